"""The notebook's three lines: every kind of recording gives the table that the live labeler would give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pynapple
import pytest
import spikeinterface as si
from pynwb import NWBHDF5IO

from nuclr_stream import label
from nuclr_stream.errors import ConfigError, NuclrStreamError, RecordingError
from nuclr_stream.inference.model import Model
from tests.nuclr_stream.recorded_files import new_nwb, recording, trains_s

ROOT = Path(__file__).parents[3]
SECONDS = 12.2
"""Three windows, also where a recording ends with its last spike."""
SPIKES = recording(3, duration_s=SECONDS)
IDS = [int(unit_id) for unit_id in SPIKES.unit_ids]


def clusters() -> np.ndarray:
    """The cluster of every spike, as a sorter numbers them."""
    return np.array(IDS)[SPIKES.spike_units]


def probabilities(frame: Any) -> np.ndarray:
    """Probabilities (U, C) of both tasks, in the order of unit ids as numbers."""
    ordered = frame.iloc[np.argsort(frame["unit_id"].astype(int).to_numpy())]
    return ordered[[name for name in frame.columns if "_p_" in name]].to_numpy()


@pytest.fixture(scope="module")
def expected(tiny_model: Model) -> np.ndarray:
    return probabilities(label(SPIKES, bundle=tiny_model))


# -- what is taken ----------------------------------------------------------------------------------------------------


def test_arrays_in_every_unit_of_time_are_one_recording(tiny_model: Model, expected: np.ndarray) -> None:
    samples = SPIKES.spike_samples
    for time_unit, times in (("s", samples / 30000), ("ms", samples / 30), ("us", samples / 0.03)):
        frame = label((times, clusters()), bundle=tiny_model, time_unit=time_unit)
        np.testing.assert_array_equal(probabilities(frame), expected, err_msg=time_unit)
    frame = label((samples, clusters()), bundle=tiny_model, time_unit="samples", sample_rate=30000)
    np.testing.assert_array_equal(probabilities(frame), expected)


def test_a_path_and_an_nwb_file_as_pynwb_reads_it(tiny_model: Model, expected: np.ndarray, tmp_path: Path) -> None:
    file = new_nwb()
    for unit_id, train in zip(IDS, trains_s(SPIKES), strict=True):
        file.add_unit(id=unit_id, spike_times=train, obs_intervals=[[0.0, SECONDS]])
    with NWBHDF5IO(tmp_path / "day.nwb", "w") as io:
        io.write(file)
    np.testing.assert_array_equal(probabilities(label(tmp_path / "day.nwb", bundle=tiny_model)), expected)
    with NWBHDF5IO(tmp_path / "day.nwb", "r") as io:
        read = io.read()
        np.testing.assert_array_equal(probabilities(label(read, bundle=tiny_model)), expected)
        read.set_modified()
        with pytest.raises(RecordingError, match="changed since"):
            label(read, bundle=tiny_model)
    with pytest.raises(RecordingError, match="not read from a file"):
        label(new_nwb(), bundle=tiny_model)


def test_a_spikeinterface_sorting(tiny_model: Model, expected: np.ndarray) -> None:
    sorting = si.NumpySorting.from_samples_and_labels([SPIKES.spike_samples], [clusters()], 30000.0)
    sorting.set_property("depth_um", 20.0 * np.arange(len(IDS)))
    frame = label(sorting, bundle=tiny_model)
    np.testing.assert_array_equal(probabilities(frame), expected)
    assert frame["depth_um"].tolist() == [20.0 * u for u in range(len(IDS))]
    two = si.NumpySorting.from_samples_and_labels([SPIKES.spike_samples] * 2, [clusters()] * 2, 30000.0)
    with pytest.raises(RecordingError, match=r"2 segments.*select_segments"):
        label(two, bundle=tiny_model)


def test_a_spikeinterface_analyzer_knows_where_its_units_are(tiny_model: Model) -> None:
    raw, sorting = si.generate_ground_truth_recording(durations=[SECONDS], num_units=12, num_channels=8, seed=0)
    analyzer = si.create_sorting_analyzer(sorting, raw, sparse=False)
    analyzer.compute(["random_spikes", "templates", "unit_locations"], save=False)
    frame = label(analyzer, bundle=tiny_model)
    np.testing.assert_allclose(frame["depth_um"], analyzer.get_extension("unit_locations").get_data()[:, 1], rtol=1e-6)
    assert frame["windows"].max() == 3


def test_a_pynapple_group_with_its_metadata(tiny_model: Model, expected: np.ndarray) -> None:
    trains = {unit_id: pynapple.Ts(train) for unit_id, train in zip(IDS, trains_s(SPIKES), strict=True)}
    support = pynapple.IntervalSet(0, SECONDS)
    group = pynapple.TsGroup(trains, time_support=support, metadata={"depth_um": np.arange(len(IDS)) * 20.0})
    frame = label(group, bundle=tiny_model)
    np.testing.assert_array_equal(probabilities(frame), expected)
    assert frame["depth_um"].tolist() == [20.0 * u for u in range(len(IDS))]


def test_outside_of_a_groups_time_support_nothing_was_recorded(tiny_model: Model) -> None:
    trains = {unit_id: pynapple.Ts(train) for unit_id, train in zip(IDS, trains_s(SPIKES), strict=True)}
    support = pynapple.IntervalSet([0, 9], [2, SECONDS])
    assert label(pynapple.TsGroup(trains, time_support=support), bundle=tiny_model)["windows"].max() == 0, "a gap"


# -- the table --------------------------------------------------------------------------------------------------------


def test_a_class_stands_only_where_it_is_called(tiny_model: Model) -> None:
    sure, unsure = (label(SPIKES, bundle=tiny_model, abstain={"cell_type": level}) for level in (0.0, 1.0))
    assert sure["predicted_cell_type"].tolist() == sure["predicted_cell_type_top"].tolist()
    assert set(sure["predicted_cell_type_why"]) == {""}
    assert unsure["predicted_cell_type"].isna().all()
    assert set(unsure["predicted_cell_type_why"]) == {"low_probability"}
    assert unsure["predicted_cell_type_top"].tolist() == sure["predicted_cell_type_top"].tolist()


def test_depths_give_the_region_at_every_unit_and_the_borders(tiny_model: Model) -> None:
    by_id = {unit_id: 100.0 * place for place, unit_id in enumerate(IDS)}
    times = SPIKES.spike_samples / 30000
    options: dict[str, Any] = {"bundle": tiny_model, "time_unit": "s", "abstain": {"brain_region": 0.0}}
    frame = label((times, clusters()), depth_um=by_id, **options)
    assert frame["predicted_region_at_depth"].notna().all()
    assert frame.attrs["placement"]["arrays"]["shanks"][0]["segments"]
    same = label((times, clusters()), depth_um=list(by_id.values()), **options)
    assert same["depth_um"].tolist() == frame["depth_um"].tolist()
    assert label((times, clusters()), **options)["predicted_region_at_depth"].isna().all()


def test_embeddings_come_on_request(tiny_model: Model) -> None:
    frame = label(SPIKES, bundle=tiny_model, embeddings=True)
    dim = tiny_model.manifest.embedding_dim
    assert np.isfinite(frame[[f"e_{d}" for d in range(dim)]].to_numpy()).all()
    assert "e_0" not in label(SPIKES, bundle=tiny_model)


def test_a_recording_too_short_says_so_in_every_row(tiny_model: Model) -> None:
    frame = label(recording(3, duration_s=4.0), bundle=tiny_model, embeddings=True)
    assert set(frame["predicted_cell_type_reason"]) == {"recording of 4 s is shorter than a window of 10 s"}
    assert frame["e_0"].isna().all() and frame["predicted_cell_type"].isna().all()


# -- wrong inputs -----------------------------------------------------------------------------------------------------

TIMES = SPIKES.spike_samples / 30000


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ((TIMES, clusters()), {}, "time_unit is None.*s, ms, us, samples"),
        ((TIMES, clusters()), {"time_unit": "minutes"}, "time_unit is 'minutes'"),
        ((TIMES, clusters()[:-1]), {"time_unit": "s"}, "one length.*np.concatenate"),
        ((TIMES, clusters()), {"time_unit": "samples"}, "give sample_rate"),
        ((TIMES, clusters()), {"time_unit": "samples", "sample_rate": 3e4}, "not whole"),
        ((TIMES, clusters()), {"time_unit": "s", "sample_rate": 3e4}, "leave it out"),
        ((TIMES, clusters()), {"time_unit": "s", "depth_um": {0: 1.0}}, "depth of cluster 3"),
        ((TIMES, clusters()), {"time_unit": "s", "depth_um": [1.0]}, "1 values for 12 clusters"),
        ((np.zeros(0), np.zeros(0)), {"time_unit": "s"}, "0 spikes"),
        ((-TIMES - 1, clusters()), {"time_unit": "s"}, "not be negative"),
        (SPIKES, {"time_unit": "s"}, "only .*arrays take it"),
        (SPIKES, {"population_by": "shank"}, "only files"),
        (TIMES, {}, r"label\(\(times, clusters\)"),
        ({"a": 1}, {}, "no recording; give a path"),
        ("nowhere.nwb", {}, "no such file"),
        (pynapple.Ts(TIMES), {}, "one train.*TsGroup"),
        (si.NumpyRecording([np.zeros((99, 2))], 3e4), {}, "voltages.*sorting"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(
    tiny_model: Model, given: object, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecordingError, match=words):
        label(given, bundle=tiny_model, **options)


def test_a_bundle_is_needed_by_name(tiny_model: Model) -> None:
    with pytest.raises(ConfigError, match=r"bundle is empty.*demo.*rat"):
        label(SPIKES, bundle="")
    with pytest.raises(NuclrStreamError, match="no bundle 'cat'"):
        label(SPIKES, bundle="cat")


def test_importing_the_package_loads_neither_pandas_nor_the_model_and_label_never_loads_torch() -> None:
    code = (
        "import sys, nuclr_stream\n"
        "print(*sorted({'numpy', 'pandas', 'onnxruntime', 'zmq', 'torch'} & set(sys.modules)))\n"
        "from nuclr_stream import label\n"
        "print(*sorted({'pandas', 'torch', 'spikeinterface', 'pynapple', 'pynwb'} & set(sys.modules)))\n"
        "print(hasattr(nuclr_stream, 'lable'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "", "False"]


def test_without_pandas_the_remedy_is_named(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(NuclrStreamError, match=r"pip install 'nuclr-stream\[outputs\]'"):
        label(SPIKES, bundle=tiny_model)
