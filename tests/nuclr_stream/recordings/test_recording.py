"""Recordings: what is written comes back, and a wrong file is rejected with file, field and row."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.recording import Recording, recorded_windows
from nuclr_stream.windows.binning import WindowRules, WindowSpec, rational

SHARED = Path(__file__).parents[4] / "shared" / "data" / "rat_neuropixels"
SPEC = WindowSpec(Fraction(50), bins_per_patch=50, patches=10, hop_bins=50)


def recording(**changes) -> Recording:
    """30 s of 12 regular units at 30 kHz."""
    samples = np.arange(0, 900_000, 500, dtype=np.int64)
    content = {
        "recording_id": "r1",
        "subject_id": "s1",
        "sample_rate": rational(30000),
        "num_samples": 900_000,
        "spike_samples": samples,
        "spike_units": (np.arange(len(samples)) % 12).astype(np.int32),
        "unit_ids": np.array([f"u{i}" for i in range(12)]),
        "units": {"brain_region": np.array(["Str"] * 12), "depth_um": np.arange(12, dtype=np.float32)},
    }
    return Recording(**(content | changes))


def test_a_recording_comes_back_as_it_was_saved(tmp_path):
    saved = recording(sample_rate=rational(24414.0625), mask_samples=np.array([[10, 20]]))
    saved.save(tmp_path / "a.npz")
    loaded = Recording.load(tmp_path / "a.npz")
    assert loaded.sample_rate == Fraction(390625, 16)
    assert (loaded.recording_id, loaded.subject_id, loaded.num_samples) == ("r1", "s1", 900_000)
    for name in ("spike_samples", "spike_units", "unit_ids", "mask_samples", "gap_samples"):
        assert np.array_equal(getattr(loaded, name), getattr(saved, name)), name
    assert loaded.units["brain_region"].tolist() == ["Str"] * 12
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spike_samples": np.array([5, 3]), "spike_units": np.zeros(2, np.int32)}, r"spike_samples: row 1 \(3\)"),
        ({"spike_samples": np.array([-1]), "spike_units": np.zeros(1, np.int32)}, "spike_samples: row 0 is -1"),
        (
            {"spike_samples": np.array([900_000]), "spike_units": np.zeros(1, np.int32)},
            "outside .* num_samples = 900000",
        ),
        (
            {"spike_samples": np.array([1]), "spike_units": np.array([12], np.int32)},
            "spike_units: row 0 is 12.*12 units",
        ),
        ({"spike_samples": np.array([1, 2]), "spike_units": np.zeros(1, np.int32)}, "must have one length"),
        ({"unit_ids": np.array(["a"] * 12)}, "'a' stands for 12 units"),
        ({"unit_ids": np.array([], dtype=str)}, "holds 0 units"),
        ({"units": {"depth_um": np.zeros(3)}}, r"unit_depth_um has shape \(3,\)"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"mask_samples": np.array([[5, 5]])}, "mask_samples must be"),
        ({"gap_samples": np.array([[0, 600]])}, "row 0 lies in the gap"),
    ],
)
def test_inconsistent_content_names_field_and_row(changes, message):
    with pytest.raises(RecordingError, match=message):
        recording(**changes)


def _write(path: Path, **changes) -> Path:
    arrays = {
        "recording_id": "r",
        "subject_id": "s",
        "sample_rate_hz": 30000.0,
        "num_samples": 100,
        "spike_samples": np.array([1, 2]),
        "spike_units": np.array([0, 0]),
        "unit_ids": np.array(["a"]),
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spike_samples": np.array([1.0, np.nan])}, "spike_samples has type float64, NaN or infinite at row 1"),
        (
            {"spike_units": np.array([0, 70000])},
            r"spike_units: 1 of 2 spikes name no row of the 1 unit_ids, the first is row 1 \(70000\)",
        ),
        ({"unit_ids": None}, "field unit_ids is missing"),
        ({"sample_rate_hz": None}, "field sample_rate_hz is missing"),
        ({"sample_rate_hz": np.nan}, "sample_rate_hz: nan"),
        ({"unit_ids": np.array([{"a": 1}], dtype=object)}, "plain arrays"),
        ({"spike_samples": np.array([2, 1])}, r"bad\.npz: r: spike_samples: row 1"),
    ],
)
def test_a_wrong_file_is_rejected_with_its_name_and_field(tmp_path, changes, message):
    path = _write(tmp_path / "bad.npz", **changes)
    with pytest.raises(RecordingError, match=message) as rejected:
        Recording.load(path)
    assert "bad.npz" in str(rejected.value)


def test_what_is_no_npz_is_rejected(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(RecordingError, match=r"not a readable \.npz"):
        Recording.load(tmp_path / "text.npz")
    with pytest.raises(RecordingError, match="no such file"):
        Recording.load(tmp_path / "absent.npz")


def test_a_file_that_unpacks_to_too_much_is_rejected_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("nuclr_stream.recordings.npz.MAX_FILE_BYTES", 100)
    with pytest.raises(RecordingError, match=r"bomb\.npz: unpacks to .*; split the recording"):
        Recording.load(_write(tmp_path / "bomb.npz"))


def test_windows_of_a_recording_end_on_every_hop_and_hold_its_spikes():
    windows = list(recorded_windows(recording(), SPEC, WindowRules()))
    assert [w.end_bin for w in windows] == list(range(500, 1501, 50))
    assert not any(w.exclusion for w in windows)
    assert windows[0].counts.shape == (12, 500)
    assert windows[0].counts.sum() == (recording().spike_samples < 300_000).sum()


def test_windows_that_touch_a_mask_or_miss_too_much_are_rejected():
    masked = recorded_windows(recording(mask_samples=np.array([[450_000, 450_001]])), SPEC, WindowRules())
    assert {w.end_bin for w in masked if w.exclusion == "mask"} == set(range(800, 1251, 50))
    whole = recording()
    keep = (whole.spike_samples < 450_000) | (whole.spike_samples >= 510_000)
    broken = recording(
        gap_samples=np.array([[450_000, 510_000]]),
        spike_samples=whole.spike_samples[keep],
        spike_units=whole.spike_units[keep],
    )
    rejected = {w.end_bin for w in recorded_windows(broken, SPEC, WindowRules()) if w.exclusion == "gap"}
    assert rejected == set(range(850, 1251, 50)), "2 s of 10 are too much, 1 s is not"


def test_the_shared_recordings_are_read():
    if not SHARED.is_dir():
        pytest.skip("the rat recordings are not on this machine (../shared/data/rat_neuropixels)")
    loaded = Recording.load(SHARED / "T170_2018_04_17_600s.npz")
    assert (loaded.subject_id, len(loaded.unit_ids), loaded.sample_rate) == ("T170", 32, 30000)
    assert loaded.duration_s == 600
