"""Imaging files as suite2p, neuroconv and CaImAn leave them: the role of each series, dead ROIs, and who is a cell."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers import open_recordings
from nuclr_stream.recordings.readers.fluorescence import delta_f_over_f
from nuclr_stream.recordings.traces import TraceRecording
from tests.nuclr_stream.recordings.test_trace_readers import FRAMES, RATE, fluorescence, nwb, suite2p

RAW, SURROUND = fluorescence()
EXPECTED = delta_f_over_f(RAW, SURROUND, RATE, where="")
ALONE = delta_f_over_f(RAW, None, RATE, where="")
ROIS = "processing/ophys/ImageSegmentation/cells"


def read(path: Path) -> TraceRecording:
    """The only recording of a file or folder."""
    (found,) = open_recordings(path)
    assert isinstance(found, TraceRecording)
    return found


def noted(found: TraceRecording, pattern: str) -> bool:
    """Whether a note of the recording says so."""
    return any(re.search(pattern, note) for note in found.notes)


@pytest.mark.parametrize(
    "series",
    [
        {"Fluorescence": {"RoiResponseSeries": "raw", "Neuropil": "np", "Deconvolved": "s", "Denoised": "s"}},
        {"Fluorescence": {"RoiResponseSeriesPlane0": "raw", "NeuropilPlane0": "np", "DeconvolvedPlane0": "s"}},
        {"Fluorescence": {"Fluorescence": "raw"}, "Neuropil": {"Neuropil": "np"}, "Deconvolved": {"Deconvolved": "s"}},
        {"Fluorescence": {"plane0": "raw"}, "Neuropil": {"plane0": "np"}, "Deconvolved": {"plane0": "s"}},
        {"Fluorescence": {"F": "raw", "Fneu": "np", "spks": "s"}},
        {"Fluorescence": {"RoiResponseSeriesChan1": "raw", "NeuropilChan1": "np", "RoiResponseSeriesChan2": "raw"}},
    ],
)
def test_raw_fluorescence_and_its_surround_are_found_in_every_layout(tmp_path: Path, series: dict) -> None:
    data = {"raw": RAW.T, "np": SURROUND.T, "s": np.maximum(RAW.T - 400, 0)}
    made = {holder: {name: data[role] for name, role in held.items()} for holder, held in series.items()}
    found = read(nwb(tmp_path / "a.nwb", made))
    assert np.array_equal(found.traces, EXPECTED) and found.recording_id == "m9_s7"


@pytest.mark.parametrize(
    ("series", "note"),
    [
        ({"DfOverF": {"RoiResponseSeries": "dff"}, "Fluorescence": {"RoiResponseSeries": "raw", "Neuropil": "np"}}, ""),
        ({"Fluorescence": {"DfOverF": "dff"}}, ""),
        ({"Fluorescence": {"RoiResponseSeries": "dff"}}, "is called fluorescence, but .*: taken as dF/F"),
    ],
)
def test_df_over_f_is_never_normalised_twice(tmp_path: Path, series: dict, note: str) -> None:
    data = {"raw": RAW.T, "np": SURROUND.T, "dff": EXPECTED.T}
    made = {holder: {name: data[role] for name, role in held.items()} for holder, held in series.items()}
    found = read(nwb(tmp_path / "a.nwb", made))
    assert np.array_equal(found.traces, EXPECTED) and noted(found, note)


def test_raw_fluorescence_in_a_df_over_f_container_is_made_df_over_f(tmp_path: Path) -> None:
    found = read(nwb(tmp_path / "a.nwb", {"DfOverF": {"RoiResponseSeries": RAW.T}}))
    assert np.array_equal(found.traces, ALONE) and noted(found, "is called dF/F, but its baseline is at .* raw")


def test_fluorescence_that_is_corrected_is_not_corrected_again(tmp_path: Path) -> None:
    series = {"Fluorescence": {"NeuropilCorrected": RAW.T}}
    assert np.array_equal(read(nwb(tmp_path / "a.nwb", series)).traces, ALONE)


def test_without_a_surround_a_note_says_so(tmp_path: Path) -> None:
    found = read(nwb(tmp_path / "a.nwb", {"Fluorescence": {"plane0": RAW.T}}))
    assert np.array_equal(found.traces, ALONE) and noted(found, "not corrected for the surround")


@pytest.mark.filterwarnings("ignore:.*should be transposed")
def test_traces_that_lie_across_are_turned(tmp_path: Path) -> None:
    found = read(nwb(tmp_path / "a.nwb", {"Fluorescence": {"x": RAW, "Neuropil": SURROUND}}))
    assert np.array_equal(found.traces, EXPECTED) and noted(found, r"data is \(5, 400\) for 5 ROIs: taken as \(ROIs")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("is_accepted", [1, 0, 1, 1, 1]),
        ("iscell", [[1, 0.9], [0, 0.1], [1, 0.8], [1, 0.7], [1, 0.6]]),
        ("iscell", [1.0, 0.0, 1.0, 1.0, 1.0]),
        ("Rejected", [0, 1, 0, 0, 0]),
        (None, None),
    ],
)
def test_cells_are_those_that_somebody_accepted(tmp_path: Path, column: str | None, values: list | None) -> None:
    path = nwb(tmp_path / "a.nwb", {"DfOverF": {"x": EXPECTED.T}})
    if column is not None:
        with h5py.File(path, "a") as file:
            file[f"{ROIS}/{column}"] = np.array(values)
    found = read(path)
    everyone = ["100", "101", "102", "103", "104"]
    assert found.unit_ids.tolist() == (everyone if column is None else everyone[:1] + everyone[2:])
    assert noted(found, "no column says which ROIs are cells: all 5 are used") == (column is None)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda dff: dff * np.where(np.arange(5) == 3, np.nan, 1)[:, None], "have values that are not finite"),
        (lambda dff: dff * (np.arange(5) != 3)[:, None], "never change"),
        (lambda dff: dff * np.where(np.arange(5) == 3, 1e5, 1)[:, None], "reach more than 1000 times their baseline"),
    ],
)
def test_one_dead_roi_of_df_over_f_costs_itself(tmp_path: Path, change, note: str) -> None:
    found = read(nwb(tmp_path / "a.nwb", {"DfOverF": {"x": change(EXPECTED).T}}))
    assert np.array_equal(found.traces, EXPECTED[[0, 1, 2, 4]])
    assert noted(found, rf"1 of 5 ROIs {note}, the first is ROI 103: left out")
    assert found.units["cell_type"].tolist() == ["E", "PV", "E", "E"]


def test_many_dead_rois_are_rejected_with_their_number(tmp_path: Path) -> None:
    with pytest.raises(
        RecordingError, match="3 of 5 ROIs have values that are not finite, the first is ROI 100; write"
    ):
        read(nwb(tmp_path / "a.nwb", {"DfOverF": {"x": np.where(np.arange(5) < 3, np.nan, EXPECTED.T)}}))


def test_frames_that_no_roi_has_are_not_recorded(tmp_path: Path) -> None:
    lost = np.where((np.arange(FRAMES) >= 50) & (np.arange(FRAMES) < 60), np.nan, 1)[:, None]
    found = read(nwb(tmp_path / "a.nwb", {"DfOverF": {"x": EXPECTED.T * lost}}))
    assert found.gap_samples.tolist() == [[50, 60]] and len(found.unit_ids) == 5
    assert np.array_equal(found.traces[:, 60:], EXPECTED[:, 60:]) and noted(
        found, "10 frames are not finite in any ROI"
    )


def test_timestamps_in_milliseconds_and_a_few_wrong_ones_are_read(tmp_path: Path) -> None:
    times = 500.0 * np.arange(FRAMES)
    times[7] = np.nan
    found = read(nwb(tmp_path / "a.nwb", {"DfOverF": {"x": EXPECTED.T}}, timestamps=times))
    assert found.frame_rate == Fraction(2) and np.array_equal(found.traces, EXPECTED)
    assert noted(found, "taken as milliseconds") and noted(found, r"1 of 400 times are not finite .* row 7")


@pytest.mark.parametrize("dead", ["negative", "zero", "nan"])
def test_one_dead_roi_of_suite2p_costs_itself(tmp_path: Path, dead: str) -> None:
    plane = suite2p(tmp_path / "m" / "plane0", frame_rate_hz=2.0)
    values = RAW.copy()
    values[3] = {"negative": values[3] - 2000, "zero": 0, "nan": np.nan}[dead]
    np.save(plane / "F.npy", values)
    found = read(plane)
    assert found.unit_ids.tolist() == ["roi0", "roi2", "roi4"] and np.array_equal(found.traces, EXPECTED[[0, 2, 4]])
    assert noted(found, r"m/plane0: 1 of 4 ROIs .*, the first is ROI roi3: left out")


def test_one_value_a_roi_in_iscell_is_enough_and_absent_files_are_named(tmp_path: Path) -> None:
    plane = suite2p(tmp_path / "m" / "plane0", frame_rate_hz=2.0)
    np.save(plane / "iscell.npy", np.array([1.0, 0.0, 1.0, 1.0, 1.0]))
    found = read(plane)
    assert np.array_equal(found.traces, EXPECTED[[0, 2, 3, 4]]) and noted(found, "iscell.npy holds one value a ROI")
    assert np.isnan(found.units["cell_probability"]).all()
    for name in ("iscell.npy", "Fneu.npy"):
        (plane / name).unlink()
    found = read(plane)
    assert np.array_equal(found.traces, ALONE)
    assert noted(found, r"no iscell\.npy: all 5 ROIs are used") and noted(found, r"no Fneu\.npy")
