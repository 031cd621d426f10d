"""The smallest settings and result files that go all the way from spikes to scores, for the tests of evaluation."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.recordings.recording import Recording
from offline_training.config import TrainConfig
from offline_training.scores import NO_PREDICTION

CONFIG = TrainConfig.parse(
    {
        "name": "tiny",
        "kind": "simulated animals",
        "window": {"bins_per_patch": 25, "patches": 4, "hop_s": 1.0},
        "encoder": {"dim": 8, "heads": 2, "head_dim": 4, "ffn_hidden": 8, "temporal_blocks": 1},
        "training": {"steps": 1, "batch_windows": 1},
        "tasks": {
            "cell_type": {"column": "cell_type", "classes": {c: [c] for c in ("E", "PV")}, "min_spikes": 5},
        },
    }
)

SMALLEST_TOML = """
name = "tiny"
[encoder]
dim = 8
heads = 1
head_dim = 8
ffn_hidden = 8
temporal_blocks = 1
spatiotemporal_blocks = 1
[training]
steps = 3
batch_windows = 2
"""
"""A training of three steps, for the tests of commands; settings of the training may follow."""

CONFIG_TOML = """\
name = "tiny"
kind = "simulated animals"
window = { bins_per_patch = 25, patches = 4, hop_s = 1.0 }
encoder = { dim = 8, heads = 2, head_dim = 4, ffn_hidden = 8, temporal_blocks = 1 }
training = { steps = 2, batch_windows = 1 }
tasks.cell_type = { column = "cell_type", classes = { E = ["E"], PV = ["PV"] }, min_spikes = 5 }
"""


def recording_of_steps(
    recording_id: str, subject: str, fired: np.ndarray, *, units: dict[str, np.ndarray] | None = None
) -> Recording:
    """A recording at 1 kHz of the units that fired (steps of 10 ms, U) bool."""
    steps, rows = np.nonzero(fired)
    return Recording(
        recording_id=recording_id,
        subject_id=subject,
        sample_rate=Fraction(1000),
        num_samples=10 * len(fired),
        spike_samples=steps * 10,
        spike_units=rows.astype(np.int32),
        unit_ids=np.array([f"{subject}:{i}" for i in range(fired.shape[1])]),
        units=units or {},
    )


def fold_file(
    folder: Path, subject: str, *, seed: int | None, label: list[int], prediction: list[int], **other: Any
) -> None:
    """A result file of three animals A, B, C, with class `rare` in C only; `feature` names what was tested, `entry`
    adds to what it holds, anything else to the file."""
    feature, entry = other.pop("feature", "embedding"), other.pop("entry", {})
    columns = {"prediction": prediction, "probability": [0.5] * len(label), "n": [1] * len(label)}
    columns |= {"abstained": [int(p == NO_PREDICTION) for p in prediction], "multi_prediction": label}
    result = {
        **{"name": "made", "kind": "", "split": "leave-one-subject-out", "folds": ["A", "B", "C"]},
        **{"format": 2, "fold": subject, "held_out": [subject], "setting": "inductive zero-shot"},
        **{"seed": seed, "hop_s": 1.0, "versions": {}, "encoder": None},
        "tasks": {
            "region": {
                "classes": ["x", "y", "rare"],
                "class_subjects": {"x": ["A", "B"], "y": ["B", "C"], "rare": ["C"]},
                "recordings": [{"recording_id": f"{subject}_1", "subject_id": subject, "units": len(label)}],
                "label": label,
                "features": {feature: {"c": 1.0, "seconds": {"all": columns}} | entry},
            }
        },
    } | other
    (folder / f"fold_{subject}_{feature}_seed{seed}.json").write_text(json.dumps(result))


def three_folds(folder: Path, *, seed: int | None = 0, **other: Any) -> None:
    """The three files of one feature and seed."""
    fold_file(folder, "A", seed=seed, label=[0, 0, 0], prediction=[0, 0, 2], **other)
    fold_file(folder, "B", seed=seed, label=[0, 1], prediction=[NO_PREDICTION, 1], **other)
    fold_file(folder, "C", seed=seed, label=[1, 2, 2], prediction=[0, 0, 2], **other)
