"""What windows add up to per unit."""
