"""The terminal view for ssh: what the daemon publishes, in text."""
