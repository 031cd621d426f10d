"""The one definition of bins and windows."""
