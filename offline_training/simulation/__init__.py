"""Simulated animals."""
