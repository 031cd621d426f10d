"""Which unit has which label, which animals are held out, what a recording holds."""
