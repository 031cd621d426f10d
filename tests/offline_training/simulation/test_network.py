"""What the network simulation promises: repeatable sessions, honest labels, the numbers of its origin, clear limits."""

from __future__ import annotations

import os
import runpy
import shutil
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.recordings.recording import Recording
from offline_training.simulation import network_biology as biology
from offline_training.simulation.animals import SimulationError
from offline_training.simulation.network import as_recording, simulate_network, simulate_session, write_networks
from offline_training.simulation.network_cells import (
    draw_coupling_to_drives,
    draw_neurons,
    draw_parameters,
    draw_wiring,
    receptors,
)
from offline_training.simulation.network_drive import draw_channels, draw_network_animal
from offline_training.simulation.network_sorting import SortedUnits

ROOT = Path(__file__).parents[3]
ORIGIN = ROOT.parent / "shared" / "data" / "network_sim" / "simulate.py"
SECONDS = 6.0
PINNED = {"rest_mv": -69.22609008, "weight": 0.2110905274, "channels": 0.83786917, "drive": 0.62928075}
"""Means and a standard deviation of the animal (1, 0), as the script it comes from draws it."""


@pytest.fixture(scope="module")
def session() -> SortedUnits:
    return simulate_session(1, 0, SECONDS)


@pytest.fixture(scope="module")
def recording(session: SortedUnits) -> Recording:
    return as_recording(session, seed=1, index=0, duration_s=SECONDS)


def test_an_animal_is_pinned_by_what_is_drawn_before_its_spikes() -> None:
    rng = np.random.default_rng(np.random.SeedSequence([1, 0, 7919]))
    animal = draw_network_animal(rng)
    channels = draw_channels(rng, animal, 3004)
    neurons = draw_neurons(rng, animal)
    parameters = draw_parameters(rng, animal, neurons)
    wiring = draw_wiring(rng, animal, neurons)
    which, weight = draw_coupling_to_drives(rng, animal, neurons, channels.number)
    assert animal.regions == ("CA1", "DG", "TH")
    assert [round(animal.bottom_um[region], 1) for region in animal.regions] == [3329.2, 2771.3, 1502.4]
    assert (len(neurons), len(wiring.source)) == (1279, 67368)
    assert parameters["rest_mv"].mean() == pytest.approx(PINNED["rest_mv"], rel=1e-6)
    assert wiring.weight.mean() == pytest.approx(PINNED["weight"], rel=1e-6)
    assert channels.stacked().std() == pytest.approx(PINNED["channels"], rel=1e-4)
    assert np.abs(weight).mean() == pytest.approx(PINNED["drive"], rel=1e-5)
    assert which.max() < len(channels.number) and len(neurons) == len(receptors(neurons))


def test_the_session_is_as_active_as_its_origin(session: SortedUnits) -> None:
    """The origin's figures for 6 s of this animal: 3514 spikes of 194 units. Spikes of a network differ between kinds
    of processors, its activity does not."""
    assert 80 <= len(session.region) <= 300
    assert 1.5 < len(session.spike_s) / len(session.region) / SECONDS < 6.0
    assert set(session.region) == {"CA1", "DG", "TH"} and set(session.kind) <= set(biology.CLASSES)
    assert np.all(np.diff(session.spike_s) >= 0) and session.spike_s[0] >= 0 and session.spike_s[-1] < SECONDS


def test_a_recording_holds_the_session_with_its_units_shuffled(session: SortedUnits, recording: Recording) -> None:
    assert recording.recording_id == recording.subject_id == "network_1_000"
    assert recording.num_samples == 180_000 and len(recording.spike_samples) == len(session.spike_s)
    assert set(recording.units) == {"brain_region", "cell_type", "depth_um", "electrode"}
    assert recording.units["depth_um"].dtype == np.float32 and recording.units["electrode"].dtype == np.int32
    depth_um = recording.units["depth_um"]
    assert np.all(np.diff(session.depth_um) > -40) and not np.all(np.diff(depth_um) > -40)
    row = {depth: i for i, depth in enumerate(depth_um.tolist())}
    for unit in (0, 50, len(session.region) - 1):
        here = row[float(np.float32(session.depth_um[unit]))]
        samples = np.rint(session.spike_s[session.spike_unit == unit] * 30_000).astype(np.int64)
        assert np.array_equal(recording.spike_samples[recording.spike_units == here], samples)
        assert recording.units["brain_region"][here] == session.region[unit]


def test_medium_spiny_neurons_have_a_region_but_no_type() -> None:
    units = SortedUnits(
        spike_s=np.array([0.1, 0.2]),
        spike_unit=np.array([0, 1], np.int32),
        region=np.array(["STR", "VIS"]),
        kind=np.array(["MSN", "E"]),
        depth_um=np.array([10.0, 20.0]),
        electrode=np.array([1, 2], np.int32),
    )
    recording = as_recording(units, seed=0, index=0, duration_s=6.0)
    labels = zip(recording.units["brain_region"], recording.units["cell_type"], strict=True)
    assert Counter(labels) == Counter([("STR", ""), ("VIS", "E")])


def test_animals_of_a_seed_are_written_by_index_and_repeat_bit_for_bit(recording: Recording, tmp_path: Path) -> None:
    first, second = write_networks(tmp_path / "new", animals=2, seed=1, duration_s=SECONDS)
    assert [path.name for path in (first, second)] == ["network_1_000.npz", "network_1_001.npz"]
    again, other = Recording.load(first), Recording.load(second)
    assert np.array_equal(again.spike_samples, recording.spike_samples)
    assert np.array_equal(again.spike_units, recording.spike_units)
    assert not np.array_equal(other.spike_samples, recording.spike_samples)


@pytest.mark.parametrize(
    ("seed", "index", "duration_s", "message"),
    [
        (10_000, 0, 60.0, "seed 10000: from 10000 on seeds of the network are reserved for judging"),
        (-1, 0, 60.0, "seed -1, index 0: both must be 0 or more"),
        (1, -1, 60.0, "seed 1, index -1: both must be 0 or more"),
        (1, 0, 2.0, "at least 5 seconds"),
        (1, 0, float("inf"), "at least 5 seconds"),
    ],
)
def test_what_cannot_be_simulated_is_rejected(seed: int, index: int, duration_s: float, message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        simulate_network(seed, index, duration_s=duration_s)


def test_an_installed_package_that_nobody_may_write_to_works_and_stays_as_it_is(tmp_path: Path) -> None:
    """Neither the package nor the home directory can be written to: the kernel is compiled for this process alone."""
    kernel = ROOT / "offline_training" / "simulation" / "network_kernel.py"
    package = tmp_path / "installed"
    package.mkdir()
    shutil.copy(kernel, package / "kernel_copy.py")
    blocked = tmp_path / "a_file"
    blocked.write_text("")  # a directory cannot be made below a file, whoever asks
    (package / "__pycache__").write_text("")
    code = "import kernel_copy as k, numpy as np; print(k._normal(np.uint64(88172645463325252))[0])"
    environment = {**os.environ, "HOME": str(blocked), "XDG_CACHE_HOME": str(blocked), "PYTHONPATH": str(package)}
    environment.pop("NUMBA_CACHE_DIR", None)
    package.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
    finally:
        package.chmod(stat.S_IRWXU)
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", "8748534153485358512")
    assert sorted(path.name for path in package.iterdir()) == ["__pycache__", "kernel_copy.py"]


@pytest.mark.slow
@pytest.mark.skipif(not ORIGIN.is_file(), reason=f"{ORIGIN} is not there: nothing to compare with")
def test_the_session_is_that_of_the_script_it_comes_from(
    session: SortedUnits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    copy = shutil.copy(ORIGIN, tmp_path / "origin.py")
    data, _ = runpy.run_path(str(copy))["simulate_session"](1, 0, SECONDS / 60)
    assert np.array_equal(session.spike_s, data["spike_times"])
    assert np.array_equal(session.spike_unit, data["spike_units"])
    assert np.array_equal(session.region, data["unit_region"]) and np.array_equal(
        session.kind, data["unit_class_detail"]
    )
    assert np.array_equal(session.depth_um, data["unit_depth_um"])
    assert np.array_equal(session.electrode, data["unit_channel"])
