"""Scores on held-out animals."""
