"""Offline training: simulated and real recordings in, encoders, readouts and honest scores out."""
