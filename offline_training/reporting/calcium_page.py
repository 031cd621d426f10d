"""Sections on simulated calcium imaging: scores on fresh animals, and how far the running normaliser is off."""

from __future__ import annotations

from typing import Any

import numpy as np

from offline_training.reporting.names import row_name, task_name, time_name
from offline_training.reporting.tables import between, table

Result = dict[str, Any]


def fresh_section(result: Result) -> str:
    """Macro-F1 on animals that nothing was trained on: median and range over the animals."""
    encoder = result["encoder"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"## {len(result['animals'])} fresh animals\n",
        f"{result['units']} units and {result['duration_s']:g} s each ({result['animals'][0]} to "
        f"{result['animals'][-1]}); encoder trained on {result['training_animals']} animals, readouts on "
        f"{result['readout_animals']}. {encoder['parameters'] / 1e6:.2f} M parameters, {encoder['step']} steps on "
        f"{encoder['machine']}, {encoder['precision']}. Step between windows: {result['hop_s']:.1f} s. {versions}. "
        "Macro-F1: median (range) over animals.\n",
    ]
    rows, times = [], []
    for task, found in result["tasks"].items():
        for name, scores in found["features"].items():
            times = list(scores)
            medians = (between(one["median"], one["range"]) for one in scores.values())
            rows.append([f"{task_name(task)}, {len(found['classes'])} classes", row_name(name), *medians])
    return "\n".join([*lines, table(["question", "row", *map(time_name, times)], rows), ""])


def distance_section(result: Result) -> str:
    """How far the running quantile of traces is from the percentile of the whole recording, over time."""
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
    return (
        "## The running normaliser\n\n"
        f"Traces are divided by the running {result['quantile']:g} quantile; published is the percentile of the whole "
        f"recording. Their ratio on {len(result['animals'])} simulated animals that nothing was trained on, "
        f"{result['units']} units and {result['duration_s']:g} s each. Windows are embedded from "
        f"{result['warm_up_frames']} frames ({result['warm_up_frames'] / result['frame_rate_hz']:.0f} s) on.\n\n"
        + table(["seen", "median ratio", "range over animals", "worst distance"], rows)
        + "\n"
    )
