"""Parts of the document of /status that follow from what the daemon was started with, and from a stream's state."""

from __future__ import annotations

from typing import Any

from nuclr_stream import __version__, wire
from nuclr_stream.config import Settings
from nuclr_stream.inference.model import Model
from nuclr_stream.stream.labeler import spec_with_hop


def setup(model: Model, settings: Settings) -> dict[str, Any]:
    """Return what runs, and by which rules windows are cut."""
    manifest, spec = model.manifest, spec_with_hop(model, settings.hop_s)
    return {
        "version": __version__,
        "protocol": wire.PROTOCOL_VERSION,
        "bundle": model.bundle_id,
        "tasks": {task.name: list(task.classes) for task in manifest.tasks},
        "input_kind": spec.input_kind,
        "window_s": spec.window_s,
        "hop_s": spec.hop_s,
        "lateness_s": settings.lateness_s,
        "bins_per_second": str(spec.bins_per_second),
        "window_bins": spec.bins,
        "hop_bins": spec.hop_bins,
        "min_population": manifest.window_rules.min_population,
        "max_units": min(manifest.max_units, settings.max_units),
        "provider": model.provider,
        "provider_note": model.provider_note,
        "threads": model.threads,
    }


def readable(state: wire.StreamState) -> dict[str, Any]:
    """Return a stream's state as plain values."""
    names = ("epoch", "state", "reasons", "progress", "units", "step", "end_sample", "watermark", "skipped_steps")
    return {name: getattr(state, name) for name in names} | {"counters": dict(state.counters)}
