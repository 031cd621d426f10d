"""Units unlike those of training: what they keep of the recording they are made of, and the rows that count them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.bundle.manifest import find_bundle, load_bundle
from nuclr_stream.commands.demo import RECORDING
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from offline_training.commands import foreign_units as module
from offline_training.commands.cli import app
from tests.nuclr_stream.streams import random_recording


@pytest.fixture
def recording() -> Recording:
    return random_recording(0, seconds=25)


def intervals_of(recording: Recording, unit: int) -> np.ndarray:
    return np.diff(recording.spike_samples[recording.spike_units == unit])


@pytest.mark.parametrize("make", [module.poisson, module.shuffled])
def test_trains_keep_the_number_of_spikes_of_every_unit_and_nothing_of_their_times(recording: Recording, make):
    made = make(recording, np.random.default_rng(1))
    assert made.spikes_per_unit.tolist() == recording.spikes_per_unit.tolist()
    assert (np.diff(made.spike_samples) >= 0).all()
    assert not np.array_equal(made.spike_samples, recording.spike_samples)


def test_shuffled_intervals_are_those_of_the_unit_in_another_order(recording: Recording):
    made = module.shuffled(recording, np.random.default_rng(1))
    for unit in range(len(recording.unit_ids)):
        assert sorted(intervals_of(made, unit)) == sorted(intervals_of(recording, unit))
    busiest = int(recording.spikes_per_unit.argmax())
    assert intervals_of(made, busiest).tolist() != intervals_of(recording, busiest).tolist()


def test_a_pair_has_the_spikes_of_two_units(recording: Recording):
    made = module.paired(recording, np.random.default_rng(1))
    units = len(recording.unit_ids)
    assert len(made.unit_ids) == units // 2
    left_out = 0 if units % 2 == 0 else recording.spikes_per_unit.max()
    assert made.spikes_per_unit.sum() >= recording.spikes_per_unit.sum() - left_out
    assert made.spikes_per_unit.sum() <= recording.spikes_per_unit.sum()


def test_the_command_counts_units_by_kind_and_keeps_rows_of_other_bundles(
    recording: Recording, pooled_bundle: Path, tmp_path: Path
):
    (tmp_path / "own").mkdir()
    recording.save(tmp_path / "own" / "one.npz")
    out = tmp_path / "rows.json"
    other = {"bundle": "other", "units_of": "x", "units": 1, "task": "t", "called": 0.0, "flagged": 0.0}
    out.write_text(json.dumps({"rows": [other]}))
    folder = str(tmp_path / "own")
    arguments = ["foreign-units", "--bundle", str(pooled_bundle), "--own", folder, "--foreign", folder]
    for _ in range(2):
        app([*arguments, "--foreign-words", "the same", "--out", str(out)], standalone_mode=False)
    rows = json.loads(out.read_text())["rows"]
    assert rows[0] == other and len(rows) == 1 + 5 * 2
    counted: dict[str, list[tuple[float, ...]]] = {}
    for row in rows[1:]:
        counted.setdefault(row["units_of"], []).append((row["units"], row["called"], row["flagged"]))
    own = counted["other animals of its own kind"]
    assert own == counted["the same"]
    assert own[0][0] == len(recording.unit_ids) and all(0 <= called <= 1 for _, called, _ in own)


@pytest.mark.parametrize("make", [module.poisson, module.paired])
def test_the_demo_bundle_calls_next_to_nothing_of_units_unlike_those_of_its_training(make):
    model = Model(load_bundle(find_bundle("demo")), threads=1)
    rows = list(module._rows(model, "made", [make(Recording.load(RECORDING), np.random.default_rng(2))]))
    assert [row["task"] for row in rows] == ["cell_type", "brain_region"]
    assert all(row["called"] <= 0.05 and row["flagged"] >= 0.95 for row in rows)
