"""The rules of `[recordings]`: which units are used, why others are not, and that the manifest says so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from exporters.export import _manifest
from nuclr_stream.bundle.manifest import MembershipPart, load_bundle
from nuclr_stream.errors import BundleError, ConfigError, RecordingError
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.recordings.traces import TraceRecording
from offline_training.config import RecordingSettings, TrainConfig
from offline_training.data.membership import load_selected, observed_s, rates_hz, recordings_of, select_units
from tests.conftest import change_manifest, tiny_contents


def recording(name: str = "r", **columns: object) -> Recording:
    """Units a, b, c, d with 40, 30, 20 and 10 spikes in 10 s, of which 2 s were not recorded."""
    rows = np.repeat(np.arange(4, dtype=np.int32), [40, 30, 20, 10])
    order = np.random.default_rng(0).permutation(len(rows))
    return Recording(
        recording_id=name,
        subject_id="s",
        sample_rate=Fraction(1000),
        num_samples=10_000,
        spike_samples=np.arange(100, dtype=np.int64) * 80,
        spike_units=rows[order],
        unit_ids=np.array(["a", "b", "c", "d"]),
        units={key: np.array(values) for key, values in columns.items()},
        gap_samples=np.array([[8000, 10_000]]),
    )


def test_without_rules_a_recording_stays_as_it_is() -> None:
    whole = recording()
    for settings in (None, RecordingSettings()):
        selected = select_units(whole, settings)
        assert selected.recording is whole and not selected.left_out
    assert str(selected) == "r: 4 units used; none left out"


@pytest.mark.parametrize(
    ("column", "keep", "kept"),
    [
        (["good", "mua", "good", ""], ("good",), "ac"),
        (["good", "mua", "noise", ""], ("good", "mua"), "ab"),
        ([1.0, 0.66, np.nan, 1.0], (1.0,), "ad"),
        ([True, False, True, True], (True,), "acd"),
        ([1, 0, 2, 1], (1, 2), "acd"),
    ],
)
def test_units_of_other_quality_are_left_out(column: list[object], keep: tuple[object, ...], kept: str) -> None:
    selected = select_units(recording(q=column), RecordingSettings(quality_column="q", quality_keep=keep))
    assert selected.recording is not None and "".join(selected.recording.unit_ids) == kept


def test_a_rate_counts_over_what_was_recorded() -> None:
    """10 spikes in 8 observed seconds are 1.25 Hz."""
    assert observed_s(recording()) == 8.0
    for floor, kept in ((1.25, "abcd"), (1.26, "abc"), (3.75, "ab")):
        selected = select_units(recording(), RecordingSettings(min_rate_hz=floor))
        assert selected.recording is not None and "".join(selected.recording.unit_ids) == kept


def test_a_unit_is_told_under_the_first_rule_that_it_fails() -> None:
    settings = RecordingSettings(
        quality_column="group", quality_keep=("good",), excluded_regions=("root", "void"), min_rate_hz=2.0
    )
    whole = recording(group=["good", "mua", "good", "mua"], brain_region=["CA1", "root", "void", "root"])
    selected = select_units(whole, settings)
    assert [(each.why, each.unit_ids) for each in selected.left_out] == [
        ("group is not good", ("b", "d")),
        ("brain_region is root, void", ("c",)),
    ]
    assert str(selected) == "r: 1 units used; 2 left out: group is not good; 1 left out: brain_region is root, void"


def test_what_is_left_keeps_its_spikes_and_columns() -> None:
    whole = recording(group=["good", "mua", "good", "mua"], depth_um=[1, 2, 3, 4])
    kept = select_units(whole, RecordingSettings(quality_column="group", quality_keep=("mua",))).recording
    assert isinstance(kept, Recording)
    assert kept.spikes_per_unit.tolist() == [30, 10] and kept.units["depth_um"].tolist() == [2, 4]
    assert np.array_equal(kept.spike_samples[kept.spike_units == 1], whole.spike_samples[whole.spike_units == 3])
    assert (kept.num_samples, kept.gap_samples.tolist()) == (10_000, [[8000, 10_000]])


def test_cells_of_traces_are_left_out_too_but_have_no_rate() -> None:
    cells = TraceRecording(
        recording_id="t",
        subject_id="s",
        frame_rate=Fraction(4),
        traces=np.arange(8, dtype=np.float32).reshape(2, 4),
        unit_ids=np.array(["a", "b"]),
        units={"iscell": np.array([False, True])},
    )
    kept = select_units(cells, RecordingSettings(quality_column="iscell", quality_keep=(True,))).recording
    assert isinstance(kept, TraceRecording) and kept.traces.tolist() == [[4, 5, 6, 7]]
    with pytest.raises(ConfigError, match="min_rate_hz = 1: t holds no spikes"):
        select_units(cells, RecordingSettings(min_rate_hz=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quality_column": "label", "quality_keep": [1.0]}, "r has no column 'label', but group"),
        ({"quality_column": "group", "quality_keep": [1.0]}, r"column 'group' of r is <U4 \(4,\), such as .*'good'"),
        ({"excluded_regions": ["root"]}, "r has no column 'brain_region'"),
    ],
)
def test_a_rule_that_can_not_be_applied_is_rejected(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select_units(recording(group=["good"] * 4), RecordingSettings.model_validate(settings))


def test_settings_are_whole_and_survive_their_own_json() -> None:
    base = {"name": "x", "training": {"steps": 1}}
    for wrong in ({"quality_column": "q"}, {"quality_keep": ["good"]}):
        with pytest.raises(ConfigError, match=r"recordings.*give quality_column and quality_keep together"):
            TrainConfig.parse(base | {"recordings": wrong})
    config = TrainConfig.parse(base | {"recordings": {"quality_column": "q", "quality_keep": [True]}})
    assert TrainConfig.parse(config.model_dump(mode="json", exclude_none=True)) == config
    assert "recordings" not in TrainConfig.parse(base).model_dump(exclude_none=True), "old fingerprints stay"


def test_recordings_of_which_nothing_is_left_are_dropped_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    recording("one", q=["good"] * 4).save(tmp_path / "1.npz")
    recording("two", q=["mua"] * 4).save(tmp_path / "2.npz")
    settings = RecordingSettings(quality_column="q", quality_keep=("good",))
    selected = load_selected(tmp_path, settings)
    assert [each.recording_id for each in recordings_of(selected)] == ["one"]
    assert str(selected[1]) == "two: 0 units used; 4 left out: q is not good"
    with pytest.raises(RecordingError, match=r"leave no unit \(one: 0 units used; .*\); loosen them"):
        load_selected(tmp_path, settings.model_copy(update={"quality_keep": ("best",)}))


def test_the_manifest_states_the_rules_and_old_manifests_load_without(tiny_bundle: Path, tmp_path: Path) -> None:
    stated = {"quality_column": "label", "quality_keep": (1.0, "good", True), "min_rate_hz": 1.0, "drop_last_s": 300.0}
    written = _manifest(replace(tiny_contents(), membership=MembershipPart(**stated))).model_dump(mode="json")
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny"))
    change_manifest(folder, lambda manifest: manifest.update(membership=written["membership"]))
    found = load_bundle(folder).manifest.membership
    assert found is not None and found.model_dump(include=set(stated)) == stated
    change_manifest(folder, lambda manifest: manifest.pop("membership"))
    assert load_bundle(folder).manifest.membership is None
    change_manifest(folder, lambda manifest: manifest.update(membership={"drop_first_s": 1}))
    with pytest.raises(BundleError, match=r"membership\.drop_first_s"):
        load_bundle(folder)


def test_a_recording_of_which_nothing_was_recorded_has_no_rate() -> None:
    nothing = replace(
        recording(),
        spike_samples=np.zeros(0, dtype=np.int64),
        spike_units=np.zeros(0, dtype=np.int32),
        gap_samples=np.array([[0, 10_000]]),
    )
    assert observed_s(nothing) == 0.0
    assert rates_hz(nothing).tolist() == [0.0] * 4
