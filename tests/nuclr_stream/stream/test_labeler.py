"""The labeler: live predictions are what the offline pass over the same seconds says, and doubt is never hidden."""

from dataclasses import replace

import numpy as np
import pytest

from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.errors import ConfigError, NonFiniteError
from nuclr_stream.features.mean_embedding import MeanEmbedding
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import recorded_windows
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.wire import UnitAction, UnitFlag
from tests.nuclr_stream.streams import Source, random_recording


@pytest.fixture(scope="module")
def model(tiny_bundle):
    return Model(load_bundle(tiny_bundle), provider="cpu", threads=1)


def play(labeler, *messages):
    """Push messages one by one and return everything that was labelled."""
    done = []
    for message in messages:
        labeler.push(message)
        while (labelled := labeler.step()) is not None:
            done.append(labelled)
    return done


def busy_source(seconds=10, *, units=12, **options):
    """Messages of `seconds` seconds of busy units, and the source that goes on."""
    source = Source(**options)
    return source, [source.units(units), *(source.busy(1000 * s, 1000 * (s + 1), units) for s in range(seconds))]


@pytest.mark.parametrize("hop_s", [None, 10.0, 0.5])
def test_after_t_seconds_the_running_mean_is_the_offline_embedding_of_those_seconds(model, hop_s):
    recording = random_recording(3, seconds=40, gap=True, mask=True)
    labeler = Labeler(model, stream="r", hop_s=hop_s)
    done = play(labeler, *recording_messages(recording, stream="r", block_samples=1000))
    offline, ends = MeanEmbedding(model.manifest.embedding_dim), iter(done)
    everyone = np.arange(len(recording.unit_ids))
    embedded = 0
    for window in recorded_windows(recording, labeler.spec, labeler.rules):
        if not window.exclusion:
            embeddings = model.embed(window.counts, window.active)
            offline.add(everyone[window.active], embeddings, weight=1 - window.missing)
            embedded += 1
        live = next(ends)
        assert np.array_equal(live.mean, offline.mean(everyone))
        assert np.array_equal(live.predictions.windows, offline.windows(everyone))
        assert live.predictions.reasons == ((window.exclusion,) if window.exclusion else ())
    assert embedded > 0


def test_any_block_length_gives_bitwise_the_same_predictions(model):
    recording = random_recording(5, seconds=25)
    runs = [
        play(Labeler(model, stream="r"), *recording_messages(recording, stream="r", block_samples=block))
        for block in (600, 7_001, 30_000)
    ]
    for one, *others in zip(*runs, strict=True):
        for other in others:
            assert np.array_equal(one.predictions.tasks[0].probabilities, other.predictions.tasks[0].probabilities)
            assert np.array_equal(one.last, other.last)


def test_predictions_say_what_stands_behind_them(model):
    _, messages = busy_source(14)
    done = play(Labeler(model, stream="probeA"), *messages)
    assert [d.predictions.step for d in done] == [0, 1, 2, 3, 4]
    last = done[-1].predictions
    assert (last.end_sample, last.state, last.missing, last.active_units) == (14_000, "ready", 0.0, 12)
    assert last.windows.tolist() == [5] * 12
    assert last.exposure == pytest.approx([1.4] * 12)
    assert last.bundle == model.bundle_id
    assert {task.name: task.classes for task in last.tasks} == {
        task.name: task.classes for task in model.manifest.tasks
    }
    for task in last.tasks:
        assert task.probabilities.shape == (12, len(task.classes))
        assert task.probabilities.sum(axis=1) == pytest.approx(np.ones(12), abs=1e-5)


def test_a_unit_without_a_window_has_the_prior_and_abstains(model):
    source, messages = busy_source(10)
    new = source.table([(UnitAction.ADD, 30, "new")], added=10_000)
    done = play(Labeler(model, stream="probeA"), *messages, new, source.busy(10_000, 11_000))
    row = done[-1].predictions.unit_ids.index("new")
    for task in done[-1].predictions.tasks:
        assert task.probabilities[row] == pytest.approx(np.full(len(task.classes), 1 / len(task.classes)))
        assert task.abstained[row]
    assert done[-1].predictions.flags[row] & UnitFlag.NEW


def test_a_unit_silent_in_a_window_keeps_its_last_mean(model):
    source, messages = busy_source(10)
    labeler = Labeler(model, stream="probeA")
    (before,) = play(labeler, *messages)
    quiet = [source.busy(1000 * s, 1000 * (s + 1), units=11) for s in range(10, 21)]
    after = play(labeler, *quiet)[-1]
    assert after.predictions.flags[11] & UnitFlag.SILENT
    assert after.predictions.windows[11] == 10 < after.predictions.windows[0]
    assert not np.array_equal(before.mean[0], after.mean[0])


def test_below_eleven_active_units_predictions_are_out_of_distribution_and_abstain(model):
    _, messages = busy_source(10, units=10)
    (done,) = play(Labeler(model, stream="probeA"), *messages)
    assert done.predictions.state == "degraded"
    assert done.predictions.reasons == ("population_below_minimum",)
    assert (done.predictions.flags & UnitFlag.SMALL_POPULATION).all()
    assert all(task.abstained.all() for task in done.predictions.tasks)


def test_a_rejected_window_does_not_make_a_small_population_a_large_one(model):
    source, messages = busy_source(10, units=10)
    labeler = Labeler(model, stream="probeA")
    play(labeler, *messages)
    (masked,) = play(labeler, source.mask(10_200, 10_300), source.busy(10_000, 11_000, units=10))
    assert masked.predictions.reasons == ("mask", "population_below_minimum")
    assert (masked.predictions.flags & UnitFlag.SMALL_POPULATION).all()
    assert all(task.abstained.all() for task in masked.predictions.tasks)


def test_a_rejected_window_adds_nothing_and_says_why(model):
    source, messages = busy_source(10)
    labeler = Labeler(model, stream="probeA")
    (before,) = play(labeler, *messages)
    (masked,) = play(labeler, source.mask(10_200, 10_300), source.busy(10_000, 11_000))
    assert (masked.predictions.state, masked.predictions.reasons) == ("degraded", ("mask",))
    assert np.array_equal(masked.mean, before.mean)


def test_merging_adds_windows_and_sums_retiring_and_a_reset_forget_them(model):
    source, messages = busy_source(12)
    labeler = Labeler(model, stream="probeA")
    before = play(labeler, *messages)[-1]
    table = source.table([(UnitAction.MERGE, 1, 0), (UnitAction.RETIRE, 2, ""), (UnitAction.RESET, 3, "")])
    gap = source.mask(12_000, 13_000)
    (after,) = play(labeler, table, gap, source.busy(12_000, 13_000))
    windows = dict(zip(after.predictions.unit_ids, after.predictions.windows.tolist(), strict=True))
    assert (windows["u0"], windows["u3"], windows["u4"]) == (6, 0, 3)
    assert not {"u1", "u2"} & set(windows)
    assert after.mean[0] == pytest.approx((before.mean[0] + before.mean[1]) / 2, abs=1e-6)


def test_a_new_epoch_forgets_and_one_that_continues_remembers(model):
    labeler = Labeler(model, stream="probeA")
    _, messages = busy_source(12)
    play(labeler, *messages)
    _, messages = busy_source(10, epoch=2)
    (fresh,) = play(labeler, *messages)
    assert fresh.predictions.windows.tolist() == [1] * 12
    source = Source(epoch=3)
    seconds = [(1000 * s, 1000 * (s + 1)) for s in range(10)]
    (going_on,) = play(labeler, source.units(12, continues=True), *(source.busy(*s) for s in seconds))
    assert going_on.predictions.windows.tolist() == [2] * 12


def test_a_skipped_window_leaves_its_table_changes_behind(model):
    source, messages = busy_source(10)
    labeler = Labeler(model, stream="probeA")
    play(labeler, *messages)
    labeler.push(source.table([(UnitAction.MERGE, 1, 0)]))
    labeler.push(source.busy(10_000, 11_000))
    skipped = labeler.cut()
    labeler.push(source.busy(11_000, 12_000))
    done = labeler.label(labeler.cut().superseding(skipped))
    assert done.predictions.skipped_steps == 1
    assert done.predictions.step == 2
    assert done.predictions.windows[0] == 3, "two from before, one of this window"


def test_what_is_not_finite_is_never_published(model, monkeypatch):
    _, messages = busy_source(10)
    labeler = Labeler(model, stream="probeA")

    def broken(*_arguments):
        raise NonFiniteError("encoder.onnx")

    monkeypatch.setattr(labeler.model, "embed", broken)
    (done,) = play(labeler, *messages)
    assert done.predictions.reasons == ("nonfinite",)
    assert done.predictions.windows.tolist() == [0] * 12
    assert np.isfinite(done.mean).all()


def test_a_readout_that_is_not_finite_says_nothing_but_the_prior(model, monkeypatch):
    _, messages = busy_source(10)
    labeler = Labeler(model, stream="probeA")
    readout = labeler.model.readout

    def broken(task, predictor, features, exposure):
        if task == "cell_type":
            raise NonFiniteError("readout_cell_type.onnx")
        return readout(task, predictor, features, exposure)

    monkeypatch.setattr(labeler.model, "readout", broken)
    (done,) = play(labeler, *messages)
    assert done.predictions.reasons == ("nonfinite",)
    cell_type, region = done.predictions.tasks
    assert cell_type.probabilities == pytest.approx(np.full((12, 4), 0.25))
    assert cell_type.abstained.all()
    assert not region.abstained.all()


def test_the_hop_must_be_a_whole_number_of_bins(model):
    with pytest.raises(ConfigError, match="whole number of bins; leave it out for the bundle's 1 s"):
        Labeler(model, stream="r", hop_s=0.015)
    with pytest.raises(ConfigError, match="must be above 0"):
        Labeler(model, stream="r", hop_s=0.0)


def test_the_labeler_depends_on_nothing_but_its_messages(model):
    """Two labelers fed the same messages never differ, whatever else the model was asked in between."""
    recording = random_recording(9, seconds=20)
    messages = list(recording_messages(recording, stream="r", block_samples=5_000))
    one, other = Labeler(model, stream="r"), Labeler(model, stream="r")
    first = play(one, *messages)
    for message, _ in zip(messages, range(10**9), strict=False):
        other.push(replace(message))
    second = []
    while (labelled := other.step()) is not None:
        model.embed(np.ones((40, 500), np.float32), np.ones(40, bool))
        second.append(labelled)
    assert all(np.array_equal(a.mean, b.mean) for a, b in zip(first, second, strict=True))
