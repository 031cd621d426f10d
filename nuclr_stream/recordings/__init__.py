"""Recordings on disk: the .npz layout, and readers of what other programs write."""
