"""Sources: each turns one kind of recording system into the messages that the daemon takes."""
