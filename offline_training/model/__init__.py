"""The encoder and its loss."""
