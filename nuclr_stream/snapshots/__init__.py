"""What survives a crash: the state of every stream as bytes, in two generations of files."""
