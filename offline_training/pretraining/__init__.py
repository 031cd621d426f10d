"""From recordings to a trained encoder."""
