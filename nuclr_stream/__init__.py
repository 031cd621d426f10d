"""nuclr-stream: live cell-type and brain-region predictions for recorded units. The daemon's side: never torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nuclr_stream.notebook.label import label

__version__ = "0.1.0"
__all__ = ["__version__", "label"]


def __getattr__(name: str) -> object:
    """Load `label` when it is asked for: a rig that only publishes spikes does not pay for it."""
    if name == "label":
        from nuclr_stream.notebook.label import label

        return label
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
