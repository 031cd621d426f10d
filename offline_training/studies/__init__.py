"""What judges of the method need and users of the product do not."""
