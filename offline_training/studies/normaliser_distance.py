"""How far the running normaliser of traces is from the published one, which knows the whole recording, over time.

Measured on simulated animals, as running quantile / percentile of the whole recording. A ratio of 1 is no distance; the
encoder sees traces that are too large where the ratio is below 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.windows.normaliser import Normalisation, running_scales
from offline_training.reporting.tables import table
from offline_training.simulation.calcium import simulate_calcium

SECONDS = (15.0, 30.0, 60.0, 120.0, 240.0, 480.0)

Result = dict[str, Any]


def normaliser_distance(
    settings: Normalisation, *, seeds: Iterable[int], out: Path, units: int = 120, duration_s: float = 600.0
) -> Result:
    """Measure the animals of `seeds`, write the result to `out` and return it."""
    recordings = [simulate_calcium(seed, units=units, duration_s=duration_s) for seed in seeds]
    ratios = []
    for recording in recordings:
        scales = running_scales(recording.traces, recording.observed, settings.quantile)
        ends = [round(seconds * recording.frame_rate) for seconds in SECONDS if seconds <= duration_s]
        ratios.append(scales[ends] / recording.percentile(settings.quantile))
    found = np.array(ratios, dtype=np.float64)
    result = {
        "quantile": settings.quantile,
        "warm_up_frames": settings.warm_up_frames,
        "frame_rate_hz": float(recordings[0].frame_rate),
        "animals": [recording.subject_id for recording in recordings],
        "units": units,
        "duration_s": duration_s,
        "seconds": [seconds for seconds in SECONDS if seconds <= duration_s],
        "ratio": [[round(float(value), 4) for value in one] for one in found],
        "worst_distance": [round(float(value), 4) for value in np.abs(found - 1).max(axis=0)],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def distance_section(result: Result) -> str:
    """The result as a section of docs/results.md."""
    ratios = np.array(result["ratio"])
    rows = [
        [
            f"{seconds:g} s",
            f"{np.median(column):.3f}",
            f"{column.min():.3f} - {column.max():.3f}",
            f"{100 * worst:.1f} %",
        ]
        for seconds, column, worst in zip(result["seconds"], ratios.T, result["worst_distance"], strict=True)
    ]
    header = ["seen", "median ratio", "range over animals", "worst distance"]
    section: str = table(header, rows)
    return (
        "### The running normaliser\n\n"
        f"Traces are divided by the running {result['quantile']:g} quantile; published is the percentile of the whole "
        f"recording. Their ratio on {len(result['animals'])} simulated animals that nothing was trained on, "
        f"{result['units']} units and {result['duration_s']:g} s each. Windows are embedded from "
        f"{result['warm_up_frames']} frames ({result['warm_up_frames'] / result['frame_rate_hz']:.0f} s) on.\n\n"
        + section
        + "\n"
    )
