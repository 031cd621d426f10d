"""nuclr-stream: live cell-type and brain-region predictions for recorded units. The daemon's side: never torch."""

__version__ = "0.1.0"
