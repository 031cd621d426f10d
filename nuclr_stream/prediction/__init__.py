"""From features to classes, doubt and out-of-distribution scores."""
