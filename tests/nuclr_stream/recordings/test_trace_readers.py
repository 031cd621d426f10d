from __future__ import annotations

import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pynwb
import pytest
from pynwb.ophys import DfOverF, Fluorescence, ImageSegmentation, OpticalChannel, PlaneSegmentation

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers import open_recordings
from nuclr_stream.recordings.readers.fluorescence import delta_f_over_f
from nuclr_stream.recordings.readers.traces import open_traces
from tests.nuclr_stream.recordings.test_traces import trace_recording

RATE = Fraction(2)
UNITS, FRAMES = 5, 400


def fluorescence(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """F and surround (U, T) of cells on a bleaching baseline."""
    rng = np.random.default_rng(seed)
    surround = 100 * rng.gamma(9, 1 / 9, (UNITS, FRAMES))
    values = 500 * np.exp(-np.arange(FRAMES) / 10000) * (1 + rng.gamma(0.3, 0.3, (UNITS, FRAMES))) + 0.7 * surround
    return values.astype(np.float32), surround.astype(np.float32)


def by_the_definition(values: np.ndarray, surround: np.ndarray) -> np.ndarray:
    """dF/F frame by frame, as a rig that follows the definition would compute it."""
    frames, step = 120, 10
    out = np.zeros_like(values)
    corrected = values - np.float32(0.7) * surround
    for t in range(values.shape[1]):
        stop = frames + (t - frames) // step * step if t >= frames else frames
        past = slice(stop - frames, stop)
        low, floor = (np.percentile(x[:, past], 8, axis=1).astype(np.float32) for x in (corrected, values))
        out[:, t] = (corrected[:, t] - low) / floor
    return out


def test_df_over_f_is_what_its_definition_says_and_causal_past_the_first_minute():
    values, surround = fluorescence()
    found = delta_f_over_f(values, surround, RATE, where="f")
    assert np.array_equal(found, by_the_definition(values, surround))
    later = values.copy()
    later[:, 300:] *= 3
    assert np.array_equal(delta_f_over_f(later, surround, RATE, where="f")[:, :300], found[:, :300])


def test_bleaching_leaves_df_over_f_level():
    values, surround = fluorescence()
    found = delta_f_over_f(values, surround, RATE, where="f")
    assert np.median(found[:, :200]) == pytest.approx(np.median(found[:, 200:]), abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, n: (f - 1000, n), r"ROI 0 has a baseline fluorescence of -\d+"),
        (lambda f, n: (f, n[:, 1:]), r"neuropil is \(5, 399\), fluorescence \(5, 400\)"),
        (
            lambda f, n: (np.where(np.arange(FRAMES) == 7, np.nan, f), n),
            "fluorescence of ROI 0 is not finite at frame 7",
        ),
    ],
)
def test_fluorescence_without_a_baseline_is_rejected(change, message):
    with pytest.raises(RecordingError, match=f"f: {message}"):
        delta_f_over_f(*change(*fluorescence()), RATE, where="f")


def suite2p(folder: Path, seed: int = 0, **sidecar: object) -> Path:
    """A plane as suite2p writes it, pickles included; ROI 1 is no cell."""
    folder.mkdir(parents=True)
    values, surround = fluorescence(seed)
    np.save(folder / "F.npy", values)
    np.save(folder / "Fneu.npy", surround)
    np.save(folder / "iscell.npy", np.array([[1, 0.9], [0, 0.1], [1, 0.8], [1, 0.7], [1, 0.6]]))
    np.save(folder / "ops.npy", {"fs": 2.0}, allow_pickle=True)
    if sidecar:
        (folder / "recording.toml").write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in sidecar.items())
        )
    return folder


def test_a_suite2p_plane_becomes_df_over_f_of_its_cells(tmp_path: Path):
    about = {"frame_rate_hz": 2.0, "recording_id": "m1_d3", "subject_id": "m1", "session_date": "2020-01-03"}
    plane = suite2p(tmp_path / "m1" / "suite2p" / "plane0", **about)
    (found,) = open_traces(plane)
    values, surround = fluorescence()
    assert np.array_equal(found.traces, delta_f_over_f(values, surround, RATE, where="")[[0, 2, 3, 4]])
    assert found.unit_ids.tolist() == ["roi0", "roi2", "roi3", "roi4"]
    assert found.units["cell_probability"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert (found.recording_id, found.subject_id, found.frame_rate) == ("m1_d3", "m1", RATE)


def test_every_plane_is_a_population_and_combined_is_not_one_more(tmp_path: Path):
    root = tmp_path / "m1" / "suite2p"
    for number, name in enumerate(("plane0", "plane1", "combined")):
        suite2p(root / name, number)
    (root / "recording.toml").write_text('frame_rate_hz = "2/1"\nrecording_id = "m1"\nsubject_id = "m"\n')
    for found in (open_traces(tmp_path / "m1"), open_recordings(tmp_path)):
        assert [r.recording_id for r in found] == ["m1_plane0", "m1_plane1"]
        assert {r.subject_id for r in found} == {"m"}


def test_the_frame_rate_is_asked_for_because_ops_is_never_unpickled(tmp_path: Path):
    plane = suite2p(tmp_path / "m2" / "plane0")
    with pytest.raises(RecordingError, match=r"m2/plane0: the frame rate is not known.*recording\.toml"):
        open_traces(plane)
    (found,) = open_traces(plane, frame_rate=RATE)
    assert (found.frame_rate, found.recording_id, found.subject_id) == (RATE, f"{tmp_path.name}_m2_plane0", "unknown")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("F.npy", np.array([{"a": 1}], dtype=object), "F.npy is no readable array of numbers"),
        ("F.npy", np.zeros(5), r"F.npy does not hold one array \(ROIs, \.\.\.\)"),
        ("Fneu.npy", np.zeros((5, 3)), r"F.npy is \(5, 400\), Fneu.npy \(5, 3\)"),
        ("iscell.npy", np.zeros((5, 2)), "0 cells in iscell.npy"),
        ("iscell.npy", np.zeros((4, 2)), r"iscell.npy is \(4, 2\); F.npy has 5 ROIs"),
        ("recording.toml", "frame_rate = 2", "frame_rate = 2; it may hold frame_rate_hz and the texts recording_id"),
        ("recording.toml", "frame_rate_hz = -1", "frame_rate_hz: -1 must be above 0"),
        ("recording.toml", "frame_rate_hz = [1]", "frame_rate_hz: .* is not a finite number"),
        ("recording.toml", "subject_id = 3", "subject_id = 3; it may hold"),
        ("recording.toml", "{", "not readable as TOML"),
    ],
)
def test_a_wrong_suite2p_folder_is_rejected_with_its_file(tmp_path: Path, name, content, message):
    plane = suite2p(tmp_path / "m" / "plane0", frame_rate_hz=2.0)
    if isinstance(content, str):
        (plane / name).write_text(content)
    else:
        np.save(plane / name, content, allow_pickle=True)
    with pytest.raises(RecordingError, match=message):
        open_traces(plane)


def nwb(path: Path, containers: dict[str, dict[str, np.ndarray]], *, iscell: bool = False, **times: object) -> Path:
    """An NWB file with ROI series (T, U) by container and name; containers called Df* are DfOverF."""
    file = pynwb.NWBFile(
        session_description="d",
        identifier="i",
        session_start_time=datetime(2021, 5, 4, tzinfo=UTC),
        session_id="s7",
    )
    file.subject = pynwb.file.Subject(
        subject_id="m9", description="a mouse", species="Mus musculus", age="P90D", sex="F"
    )
    device = file.create_device("scope")
    channel = OpticalChannel(name="green", description="d", emission_lambda=510.0)
    plane = file.create_imaging_plane(
        name="p",
        optical_channel=channel,
        description="d",
        device=device,
        excitation_lambda=920.0,
        indicator="GCaMP6s",
        location="V1",
    )
    module = file.create_processing_module("ophys", "d")
    table = PlaneSegmentation(description="d", imaging_plane=plane, name="cells")
    module.add(ImageSegmentation(plane_segmentations=[table]))
    for row in range(UNITS):
        table.add_roi(pixel_mask=[(row, 0, 1.0)], id=100 + row)
    table.add_column("cell_type", "d", [("E", "PV")[row % 2] for row in range(UNITS)])
    if iscell:
        table.add_column("iscell", "d", np.array([[1, 0.9], [0, 0.1], [1, 0.8], [1, 0.7], [1, 0.6]]))
    for name, series in containers.items():
        container = (DfOverF if name.startswith("Df") else Fluorescence)(name=name)
        module.add(container)
        for each, data in series.items():
            container.create_roi_response_series(
                name=each,
                data=data,
                unit="n.a.",
                rois=table.create_roi_table_region(description="all", region=list(range(UNITS))),
                **(times or {"rate": 2.0, "starting_time": 0.0}),
            )
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


def test_df_over_f_of_an_nwb_file_is_taken_as_it_is(tmp_path: Path):
    values = fluorescence()[0] / 500 - 1
    path = nwb(tmp_path / "a.nwb", {"DfOverF": {"x": values.T}, "Fluorescence": {"x": values.T * 7}})
    for found in (open_traces(path), open_recordings(path)):
        (one,) = found
        assert np.array_equal(one.traces, values)
        assert (one.recording_id, one.subject_id, one.session_date) == ("m9_s7", "m9", "2021-05-04")
        assert (one.frame_rate, one.unit_ids.tolist()) == (RATE, ["100", "101", "102", "103", "104"])
        assert one.units["cell_type"].tolist() == ["E", "PV", "E", "PV", "E"]


def test_raw_fluorescence_of_an_nwb_file_is_made_df_over_f_of_its_cells(tmp_path: Path):
    values, surround = fluorescence()
    parts = {"Fluorescence": values, "Neuropil": surround, "Deconvolved": values}
    planes = {name: {"plane0": data.T, "plane1": data.T} for name, data in parts.items()}
    found = open_traces(nwb(tmp_path / "b.nwb", planes, iscell=True))
    assert [one.recording_id for one in found] == ["m9_s7_plane0", "m9_s7_plane1"]
    expected = delta_f_over_f(values, surround, RATE, where="")[[0, 2, 3, 4]]
    assert np.array_equal(found[0].traces, expected)
    assert found[0].unit_ids.tolist() == ["100", "102", "103", "104"]
    assert found[0].units["cell_type"].tolist() == ["E", "E", "PV", "E"]


def test_frames_that_timestamps_leave_out_are_gaps(tmp_path: Path):
    values = fluorescence()[0] / 500 - 1
    number = np.delete(np.arange(FRAMES + 7), np.arange(50, 57))
    jitter = np.random.default_rng(0).uniform(-0.01, 0.01, FRAMES)
    path = nwb(tmp_path / "c.nwb", {"DfOverF": {"x": values.T}}, timestamps=0.5 * number + jitter + 3)
    (found,) = open_traces(path)
    assert float(found.frame_rate) == pytest.approx(2, rel=1e-3)
    assert found.gap_samples.tolist() == [[50, 57]]
    assert np.array_equal(found.traces[:, found.observed], values)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"timestamps": np.arange(FRAMES)[::-1] * 0.5}, "400 ascending times are needed"),
        ({"timestamps": np.arange(FRAMES) ** 8.0}, "are no frames of one rate"),
        ({"rate": 1e13, "starting_time": 0.0}, "must be above 0 and below"),
    ],
)
def test_times_that_are_no_frames_are_rejected(tmp_path: Path, times, message):
    values, _ = fluorescence()
    with pytest.raises(RecordingError, match=message):
        open_traces(nwb(tmp_path / "d.nwb", {"DfOverF": {"x": values.T}}, **times))


def test_what_holds_no_traces_is_rejected(tmp_path: Path):
    with pytest.raises(RecordingError, match="holds no RoiResponseSeries"):
        open_traces(nwb(tmp_path / "e.nwb", {"Deconvolved": {"x": np.ones((FRAMES, UNITS))}}))
    with pytest.raises(RecordingError, match="no suite2p output there"):
        open_traces(tmp_path)
    trace_recording().save(tmp_path / "f.npz")
    assert open_traces(tmp_path / "f.npz")[0].recording_id == "traces_0"
    with pytest.raises(RecordingError, match="the file says its frame rate itself"):
        open_traces(tmp_path / "f.npz", frame_rate=RATE)
