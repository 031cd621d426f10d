"""Where along a shank which region lies."""
