"""What a notebook asks for: predictions of a recording that is in memory or on disk, as a table."""
