"""Predictions into files that other tools open, and into the windows of acquisition programs."""
