"""Comparison by simple statistics."""
