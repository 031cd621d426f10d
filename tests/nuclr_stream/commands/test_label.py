"""Label: recordings in, a CSV out, by the live labeler."""

import csv
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.commands.label import label_recording, write_labels
from nuclr_stream.errors import NuclrStreamError, RecordingError
from nuclr_stream.inference.model import Model
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.stream.playback import MAX_SPIKES, recording_messages
from nuclr_stream.wire import Abstained, End, SpikeBatch, UnitFlag
from tests.nuclr_stream.streams import random_recording


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return Model(load_bundle(tiny_bundle), provider="cpu", threads=1)


@pytest.fixture
def labeler(model):
    return Labeler(model, stream="r")


@pytest.fixture
def labeler_of(model):
    return lambda recording: Labeler(model, stream=recording.recording_id)


def test_rows_at_every_interval_and_at_the_end(labeler_of, tmp_path):
    recording = random_recording(1, units=12, seconds=25)
    rows = write_labels([recording], labeler_of, tmp_path / "out.csv", every_s=5.0)
    with (tmp_path / "out.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == rows == 12 * 2 * 6
    assert list(table[0]) == [
        *("recording_id", "unit_id", "task", "time_s", "final"),
        *("prediction", "probability", "set", "abstained", "why", "stable_since_s"),
        *("windows", "exposure", "ood_score", "flags"),
        *("p_E", "p_PV", "p_SST", "p_VIP", "p_CTX", "p_HPF", "p_TH", "reason"),
    ]
    windows = defaultdict(set)
    for row in table:
        windows[float(row["time_s"]), row["final"]].add(int(row["windows"]))
    assert windows[5.0, "0"] == {0}
    assert windows[10.0, "0"] == {1}
    assert windows[25.0, "0"] == windows[25.0, "1"] == {16}


def test_before_the_first_window_a_row_holds_the_prior_and_abstains(labeler):
    first = next(label_recording(random_recording(1, units=12, seconds=25), labeler, every_s=5.0))
    assert (first["windows"], first["abstained"], first["why"]) == (0, 1, "no_data")
    assert (first["reason"], first["set"], first["stable_since_s"]) == ("no window yet", "E|PV|SST|VIP", "")
    assert (first["exposure"], first["ood_score"], first["flags"]) == (0, 0, "")
    assert [first[f"p_{c}"] for c in ("E", "PV", "SST", "VIP")] == [0.25] * 4
    assert "p_CTX" not in first, "classes of other tasks stay empty"


def test_the_prediction_is_the_top_class_even_when_abstained(model, labeler):
    for row in label_recording(random_recording(2, units=12, seconds=12), labeler):
        classes = model.task(str(row["task"])).classes
        best = max(classes, key=lambda c: row[f"p_{c}"])
        assert row["prediction"] == best
        assert row["probability"] == row[f"p_{best}"]
        assert (row["reason"] != "") == (row["why"] != "") == bool(row["abstained"])


def test_the_last_row_is_what_the_live_labeler_says(model):
    recording = random_recording(4, units=14, seconds=20)
    labeler = Labeler(model, stream="r")
    for message in recording_messages(recording, stream="r", block_samples=777):
        labeler.push(message)
    while (labelled := labeler.step()) is not None:
        last = labelled.predictions
    fresh = Labeler(model, stream="r")
    finals = [r for r in label_recording(recording, fresh) if r["task"] == "cell_type"]
    assert [r["p_E"] for r in finals] == [round(float(p), 6) for p in last.tasks[0].probabilities[:, 0]]


def test_priors_and_half_life_are_those_of_the_labeler(model):
    recording = random_recording(4, units=14, seconds=14)
    options = {"half_life_s": 2.0, "priors": {"cell_type": {"VIP": 1}}}
    labeler = Labeler(model, stream="r", **options)
    rows = [r for r in label_recording(recording, labeler, every_s=5.0) if r["task"] == "cell_type"]
    assert {(r["p_VIP"], r["prediction"]) for r in rows} == {(1.0, "VIP")}, "before the first window too"
    labeler = Labeler(model, stream="r", **options)
    for message in recording_messages(recording, stream="r", block_samples=30_000):
        labeler.push(message)
    while (labelled := labeler.step()) is not None:
        last = labelled.predictions
    assert [r["windows"] for r in rows if r["final"]] == last.windows.tolist() == [3] * 14
    assert last.exposure.max() < 1.3, "five windows, of which the first are forgotten"


def test_a_recording_shorter_than_a_window_gives_final_rows_with_the_reason(labeler):
    rows = list(label_recording(random_recording(1, units=12, seconds=9), labeler, every_s=4.0))
    assert len(rows) == 12 * 2 * 3
    assert {r["reason"] for r in rows} == {"recording of 9 s is shorter than a window of 10 s"}


def test_a_small_population_says_so(labeler):
    rows = list(label_recording(random_recording(1, units=6, seconds=12), labeler))
    assert {(r["abstained"], r["why"], r["reason"]) for r in rows} == {
        (1, "small_population", "population below minimum")
    }
    assert {r["flags"] for r in rows} == {"small_population"}


def test_a_row_says_since_when_its_class_is_the_same(labeler):
    rows = list(label_recording(random_recording(8, units=12, seconds=40), labeler, every_s=1.0))
    last: dict[tuple[str, str], tuple[str, float]] = {}
    changes = 0
    for row in rows:
        if not row["windows"]:
            assert row["stable_since_s"] == ""
            continue
        key = row["unit_id"], row["task"]
        prediction, since_s = last.get(key, ("", 0.0))
        if row["prediction"] != prediction:
            changes += prediction != ""
            since_s = row["time_s"]
        assert row["stable_since_s"] == since_s
        last[key] = row["prediction"], since_s
    assert len(last) == 24
    assert changes > 0, "or nothing was tested"


def test_a_row_holds_what_the_predictions_say_of_the_unit(labeler, monkeypatch):
    label = Labeler.label

    def strange(labeler, window):
        labelled = label(labeler, window)
        predictions = labelled.predictions
        count = len(predictions.unit_ids)
        tasks = tuple(
            replace(
                task,
                sets=np.arange(len(task.classes)) % 2 == np.zeros((count, 1)),
                why=np.full(count, Abstained.OUT_OF_DISTRIBUTION, dtype=np.uint8),
            )
            for task in predictions.tasks
        )
        flags = np.full(count, UnitFlag.SILENT | UnitFlag.OOD_RATE, dtype=np.uint8)
        numbers = {
            "exposure": np.full(count, 1.25, np.float32),
            "ood_score": np.full(count, 2.5, np.float32),
        }
        return replace(labelled, predictions=replace(predictions, tasks=tasks, flags=flags, **numbers))

    monkeypatch.setattr(Labeler, "label", strange)
    row = next(label_recording(random_recording(1, units=12, seconds=11), labeler))
    assert (row["set"], row["why"], row["flags"]) == ("E|SST", "out_of_distribution", "silent|ood_rate")
    assert (row["exposure"], row["ood_score"]) == (1.25, 2.5)
    assert row["reason"] == "unlike the units of training, see flags"


def test_a_recording_with_more_units_than_the_bundle_takes_is_rejected(labeler):
    with pytest.raises(RecordingError, match=r"257 units; bundle tiny-.* takes at most 256"):
        next(label_recording(random_recording(1, units=257, seconds=2), labeler))


def test_a_file_that_cannot_be_written_is_named(labeler_of, tmp_path):
    with pytest.raises(NuclrStreamError, match=r"--out .*nowhere.*No such file"):
        write_labels([random_recording(1, seconds=2)], labeler_of, tmp_path / "nowhere" / "o.csv")


@pytest.mark.parametrize("values", [np.array(["1"] * 12), np.zeros((12, 2))])
def test_a_place_that_is_no_number_is_rejected_by_name(values):
    recording = replace(random_recording(1, units=12, seconds=2), units={"shank": values})
    with pytest.raises(RecordingError, match="unit_shank"):
        next(recording_messages(recording, stream="r", block_samples=1000))


def test_a_place_that_is_unknown_stays_unknown():
    units = {"channel": np.array([3.0, np.nan, np.inf]), "depth_um": np.array([1.0, np.nan, np.inf])}
    table = next(recording_messages(replace(random_recording(1, units=3), units=units), stream="r", block_samples=1000))
    assert table.channel.tolist() == [3, -1, -1]
    assert table.depth_um == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)


def test_an_interval_must_be_positive(labeler):
    with pytest.raises(RecordingError, match="--every"):
        list(label_recording(random_recording(1, units=12, seconds=12), labeler, every_s=-1.0))


def test_progress_is_reported_window_by_window(labeler_of, tmp_path):
    seen = []
    recording = random_recording(1, units=12, seconds=14)
    write_labels([recording], labeler_of, tmp_path / "o.csv", on_window=lambda r, s: seen.append((r.recording_id, s)))
    assert seen == [("random_1", float(s)) for s in range(10, 15)]


def test_a_recording_as_messages_holds_every_spike_once_and_skips_its_gaps():
    recording = random_recording(6, gap=True, mask=True)
    messages = list(recording_messages(recording, stream="r", block_samples=20_000))
    assert [m.seq for m in messages] == list(range(len(messages)))
    batches = [m for m in messages if isinstance(m, SpikeBatch)]
    assert np.array_equal(np.concatenate([b.samples for b in batches]), recording.spike_samples)
    observed = sum(b.stop - b.start for b in batches)
    assert observed == recording.num_samples - int(np.diff(recording.gap_samples).sum())
    assert isinstance(messages[-1], End)


def test_a_block_with_too_many_spikes_for_one_message_is_cut_in_time():
    recording = random_recording(6, units=200, seconds=30)
    batches = [m for m in recording_messages(recording, stream="r", block_samples=900_000) if isinstance(m, SpikeBatch)]
    assert len(recording.spike_samples) > MAX_SPIKES
    assert max(len(b.samples) for b in batches) <= MAX_SPIKES
    assert sum(len(b.samples) for b in batches) == len(recording.spike_samples)


def test_labelling_that_fails_leaves_neither_a_file_nor_half_of_one(labeler_of, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_labels([random_recording(1, units=12, seconds=14)], labeler_of, tmp_path / "o.csv", on_window=stop)
    assert not list(tmp_path.iterdir())
