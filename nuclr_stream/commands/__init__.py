"""The `nuclr-stream` commands, a file each."""
