"""Closed loop: rules over predictions, events that fire once per epoch, and where they are sent."""
