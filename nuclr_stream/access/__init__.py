"""Who may reach a daemon over the network, and what for: keys, the list of those that are allowed, authentication."""
