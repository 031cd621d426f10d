"""Reading recordings: stated by content, one probe one recording, and clear words for what can not be read."""

from __future__ import annotations

import builtins
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers import find_sources, open_one, open_recordings
from nuclr_stream.recordings.readers.trains import to_samples
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.recordings.traces import TraceRecording
from tests.nuclr_stream.recorded_files import recording, write_nwb, write_phy, write_torch_brain

SHARED = Path(__file__).parents[4] / "shared" / "data" / "rat_neuropixels"


def same_spikes(found: Recording, expected: Recording) -> None:
    """The same spikes of the same units, whatever the order of those within one sample."""
    for each in (found, expected):
        assert (np.diff(each.spike_samples) >= 0).all()
    names = [each.unit_ids[each.spike_units] for each in (found, expected)]
    orders = [np.lexsort((name, each.spike_samples)) for name, each in zip(names, (found, expected), strict=True)]
    assert np.array_equal(found.spike_samples[orders[0]], expected.spike_samples[orders[1]])
    assert np.array_equal(names[0][orders[0]], names[1][orders[1]])


def test_a_folder_holds_every_kind_at_any_depth_and_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    recording(0).save(tmp_path / "a.npz")
    write_nwb(tmp_path / "b.nwb", recording(1))
    write_phy(tmp_path / "c" / "imec0" / "kilosort4", recording(2))
    write_torch_brain(tmp_path / "d.h5", recording(3))
    (tmp_path / "README.md").write_text("not a recording")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "broken.npz").write_text("never looked at")
    assert [source.kind for source in find_sources(tmp_path)] == ["npz", "nwb", "phy", "torch_brain"]
    found = open_recordings(tmp_path)
    assert [each.recording_id for each in found] == ["m1_s0", "m1_s1", "imec0_kilosort4", "m1_s3"]
    for seed, each in enumerate(found):
        same_spikes(each, recording(seed))
        assert (each.sample_rate, each.input_kind) == (30000, "spikes")


def test_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    write_nwb(tmp_path / "a.nwb", recording(0)).rename(tmp_path / "a.dat")
    recording(1).save(tmp_path / "b.npz")
    (tmp_path / "b.npz").rename(tmp_path / "b")
    assert [source.kind for source in find_sources(tmp_path)] == ["nwb", "npz"]


def test_shared_recordings_are_the_same_after_nwb(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the rat recordings are not on this machine (../shared/data/rat_neuropixels)")
    whole = Recording.load(SHARED / "T170_2018_04_17_600s.npz")
    numbered = replace(whole, unit_ids=np.array([str(row) for row in range(len(whole.unit_ids))]))
    (found,) = open_recordings(write_nwb(tmp_path / "rat.nwb", numbered))
    same_spikes(found, numbered)
    assert (found.recording_id, found.subject_id) == (whole.recording_id, "T170")
    assert (found.num_samples, found.sample_rate) == (whole.num_samples, whole.sample_rate)
    assert np.array_equal(found.units["brain_region"], whole.units["brain_region"])


@given(
    sample=st.integers(0, 30_000 * 3600 * 24 * 7),
    rate=st.sampled_from([Fraction(30000), Fraction(390625, 16), Fraction(749999, 25), Fraction(20000)]),
)
def test_a_sample_number_survives_seconds_at_any_rate(sample: int, rate: Fraction) -> None:
    assert to_samples([float(sample / rate)], rate, where="x").tolist() == [sample]


def test_traces_are_told_and_those_in_npz_are_read(tmp_path: Path) -> None:
    traces = np.ones((2, 50), dtype=np.float32)
    made = TraceRecording(
        recording_id="t", subject_id="m", frame_rate=Fraction(4), traces=traces, unit_ids=np.array(["a", "b"])
    )
    made.save(tmp_path / "t.npz")
    (source,) = find_sources(tmp_path)
    assert (source.kind, source.read()[0].input_kind) == ("traces", "traces")
    (tmp_path / "suite2p").mkdir()
    np.save(tmp_path / "suite2p" / "F.npy", traces)
    with pytest.raises(RecordingError, match="suite2p: the frame rate is not known"):
        open_recordings(tmp_path / "suite2p")


def test_one_id_in_two_files_is_rejected_with_both_names(tmp_path: Path) -> None:
    recording(0).save(tmp_path / "a.npz")
    write_nwb(tmp_path / "b.nwb", recording(0))
    with pytest.raises(RecordingError, match=r"b\.nwb: recording_id 'm1_s0' is that of .*a\.npz too; rename one"):
        open_recordings(tmp_path)


def test_one_of_several_recordings_is_chosen_by_its_id(tmp_path: Path) -> None:
    recording(0).save(tmp_path / "a.npz")
    recording(1).save(tmp_path / "b.npz")
    assert open_one(tmp_path, "m1_s1").recording_id == "m1_s1"
    assert open_one(tmp_path / "a.npz").recording_id == "m1_s0"
    for wrong in ("", "m1_s2"):
        with pytest.raises(RecordingError, match="holds m1_s0, m1_s1; choose one"):
            open_one(tmp_path, wrong)


def test_an_npz_of_two_probes_is_rejected(tmp_path: Path) -> None:
    probes = np.array(["p0", "p1"] * 6)
    replace(recording(0), units={"probe_id": probes}).save(tmp_path / "two.npz")
    with pytest.raises(
        RecordingError, match=r"two\.npz: unit_probe_id names the probes p0, p1; .* --population-by probe_id"
    ):
        open_recordings(tmp_path)


@pytest.mark.parametrize("kind", ["npz", "nwb", "h5"])
def test_empty_and_truncated_files_are_rejected_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    {"npz": lambda: recording(0).save(path), "nwb": lambda: write_nwb(path, recording(0))}.get(
        kind, lambda: write_torch_brain(path, recording(0))
    )()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match=rf"a\.{kind}: not a "):
        open_recordings(path)
    path.write_bytes(b"")
    with pytest.raises(RecordingError, match=rf"a\.{kind}: is empty"):
        open_recordings(path)
    path.write_bytes(b"something else altogether")
    with pytest.raises(RecordingError, match=rf"a\.{kind}: is neither a zip file nor HDF5"):
        open_recordings(path)


def test_where_nothing_is_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no recording there; looked for"):
        open_recordings(tmp_path)
    with pytest.raises(RecordingError, match="no such file or folder"):
        open_recordings(tmp_path / "absent")


def test_hdf5_of_another_kind_is_rejected_with_what_it_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = [1.0]
    with pytest.raises(RecordingError, match=r"other\.h5: HDF5 with weights, neither NWB"):
        open_recordings(tmp_path)


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_torch_brain(tmp_path / "a.h5", recording(0))
    real = builtins.__import__

    def without(name: str, *arguments: object, **named: object) -> object:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        RecordingError, match=r"a\.h5: is HDF5, which needs h5py; .*pip install 'nuclr-stream\[readers\]'"
    ):
        open_recordings(tmp_path)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_torch_brain(tmp_path_factory.mktemp("small") / "small.h5", recording(0, units=2, duration_s=2))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(where=st.floats(0, 1), bytes_=st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_read_or_rejected_but_nothing_else(small_file: Path, where: float, bytes_: bytes) -> None:
    """Any bytes overwritten anywhere end in a recording or in a RecordingError that names the file."""
    content = bytearray(small_file.read_bytes())
    at = 8 + int(where * (len(content) - 16))
    content[at : at + len(bytes_)] = bytes_
    damaged = small_file.with_name("damaged.h5")
    damaged.write_bytes(content)
    try:
        open_recordings(damaged)
    except RecordingError as error:
        assert "damaged.h5" in str(error)


def test_torch_brain_probes_domain_and_columns(tmp_path: Path) -> None:
    whole = recording(0)
    late = whole.spike_samples >= 150_000
    whole = replace(whole, spike_samples=whole.spike_samples[late], spike_units=whole.spike_units[late])
    probes = np.array(["a-1", "b-2"] * 6)
    columns = {"probe_id": probes, "label": np.ones(12), "depths": np.arange(12.0), "wf": np.zeros((12, 3))}
    first, second = open_recordings(
        write_torch_brain(tmp_path / "x.h5", whole, domain=[(5.0, 20.0), (20.0, 30.0)], **columns)
    )
    assert [first.recording_id, second.recording_id] == ["m1_s0_a-1", "m1_s0_b-2"]
    assert (first.subject_id, first.session_date, first.num_samples) == ("m1", "2020-01-02", 900_000)
    assert first.gap_samples.tolist() == second.gap_samples.tolist() == [[0, 150_000]]
    assert first.unit_ids.tolist() == whole.unit_ids[::2].tolist()
    assert first.units["depth_um"].tolist() == [0, 2, 4, 6, 8, 10] and set(first.units) == {
        "probe_id",
        "label",
        "depths",
        "depth_um",
    }
    assert len(first.spike_samples) + len(second.spike_samples) == len(whole.spike_samples)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        (
            "spikes/timestamps",
            [0.1, np.nan, 0.3],
            r"spikes/timestamps: 1 of 3 spikes have no finite time, the first is row 1 \(nan\)",
        ),
        (
            "spikes/timestamps",
            [-0.2, 0.1, 0.3],
            r"spikes/timestamps: 1 of 3 spikes lie before sample 0, .* row 0 \(-6000\)",
        ),
        (
            "spikes/unit_index",
            [0, 1, 2],
            r"spikes/unit_index: 1 of 3 spikes name no row of the 2 units, .* row 2 \(2\)",
        ),
        ("spikes/unit_index", [0, 1], r"must be one time and one integer row a spike"),
        ("units/id", [], r"3 of 3 spikes name no row of the 0 units"),
        ("units/id", None, r"field /units/id is missing"),
        (
            "domain/end",
            [-1.0],
            r"field domain: 1 of 1 intervals do not end after they begin, .* row 0 \(\[0.0, -1.0\]\)",
        ),
    ],
)
def test_a_wrong_torch_brain_file_names_field_row_and_remedy(
    tmp_path: Path, field: str, values: list[object] | None, message: str
) -> None:
    path = tmp_path / "bad.h5"
    with h5py.File(path, "w") as file:
        file["spikes/timestamps"], file["spikes/unit_index"], file["units/id"] = [0.1, 0.2, 0.3], [0, 1, 1], ["a", "b"]
        file["domain/start"], file["domain/end"] = [0.0], [0.3]
        del file[field]
        if values is not None:
            file[field] = values
    with pytest.raises(RecordingError, match=rf"^bad\.h5: .*{message}"):
        open_recordings(path)
