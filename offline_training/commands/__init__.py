"""The `nuclr-train` commands."""
