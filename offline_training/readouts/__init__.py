"""From a frozen encoder to calibrated readouts."""
