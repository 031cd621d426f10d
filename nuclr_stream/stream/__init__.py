"""One probe, without I/O: admission, epochs, windows, labels."""
