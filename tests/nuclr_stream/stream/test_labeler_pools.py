"""The labeler with predictors, priors and forgetting, from messages to predictions."""

from __future__ import annotations

import numpy as np
import pytest

from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.errors import ConfigError
from nuclr_stream.features.neighbourhood import Coactivity
from nuclr_stream.inference.model import Model
from nuclr_stream.prediction.answer import answer
from nuclr_stream.prediction.pool import with_prior
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.stream.labeler import Labeler, Labelled
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.stream.units import Operation
from nuclr_stream.wire import Abstained, UnitAction, UnitFlag
from offline_training.readouts.embed import embed_recording, one_by_one
from tests.nuclr_stream.streams import Source, random_recording


@pytest.fixture(scope="module")
def model(pooled_bundle):
    return Model(load_bundle(pooled_bundle), provider="cpu", threads=1)


def labelled(model: Model, recording: Recording, **options) -> list[Labelled]:
    """Everything that is said of a recording."""
    labeler, done = Labeler(model, stream="r", **options), []
    for message in recording_messages(recording, stream="r", block_samples=30_000):
        labeler.push(message)
        while (step := labeler.step()) is not None:
            done.append(step)
    return done


def messages_of(units: int, seconds: int) -> tuple[Source, list]:
    """Busy units, and the source that goes on."""
    source = Source()
    return source, [source.units(units), *(source.busy(1000 * s, 1000 * (s + 1), units) for s in range(seconds))]


def last_of(labeler: Labeler, messages: list) -> Labelled:
    """The last that is said after all messages."""
    last = None
    for message in messages:
        labeler.push(message)
        while (step := labeler.step()) is not None:
            last = step
    assert last is not None
    return last


def test_predictions_are_those_of_an_offline_pass_over_the_same_windows(model: Model):
    recording = random_recording(3, seconds=20)
    done = labelled(model, recording)
    embedded = embed_recording(one_by_one(model.embed), recording, model.manifest.spec, model.manifest.window_rules)
    for k, step in enumerate(done):
        snapshot = embedded.snapshot(0, k + 1)
        assert step.predictions.exposure == pytest.approx(snapshot.exposure)
        for task in step.predictions.tasks:
            part = model.task(task.name)
            found = answer(part.log_linear_pools, snapshot, model.logits(task.name, snapshot), prior=part.prior)
            assert task.probabilities == pytest.approx(found.probabilities, abs=1e-4)
            assert np.array_equal(task.sets, found.sets)
            assert ((task.why == Abstained.LOW_PROBABILITY) == found.unsure).all()
    sets = done[-1].predictions.tasks[0].sets
    assert sets.any(axis=1).all() and not sets.all()


def operations(*kinds: tuple[str, int, int]) -> tuple[Operation, ...]:
    return tuple(Operation(kind, source=source, target=target) for kind, source, target in kinds)


def test_forgetting_1000_units_copies_the_sums_of_pairs_once(model: Model, monkeypatch: pytest.MonkeyPatch):
    labeler, units = Labeler(model, stream="r"), np.arange(1100)
    labeler._features._coactivity.add(units, np.ones((len(units), 1)))
    labeler._features.embedding.add(units, np.ones((len(units), 16), np.float32))
    kept, keep = [], Coactivity._keep
    monkeypatch.setattr(Coactivity, "_keep", lambda self, rows: kept.append(int(rows.sum())) or keep(self, rows))
    labeler._apply(
        operations(*(("forget", unit, -1) for unit in range(500)), *(("merge", u, 1050) for u in range(500, 1000)))
    )
    assert kept == [100]
    assert labeler._features.embedding.windows(np.array([0, 999, 1049, 1050])).tolist() == [0, 0, 1, 501]


@pytest.mark.parametrize(
    ("order", "windows"),
    [
        ((("forget", 0, -1), ("merge", 1, 0)), 1),  # only what came from unit 1
        ((("merge", 1, 0), ("forget", 0, -1)), 0),
        ((("forget", 1, -1), ("merge", 1, 0)), 1),  # only its own
        ((("merge", 1, 0), ("merge", 2, 1), ("merge", 1, 0)), 3),  # unit 1 anew, with what unit 2 had
    ],
)
def test_what_was_forgotten_before_a_merge_is_not_merged(model: Model, order: tuple, windows: int):
    labeler = Labeler(model, stream="r")
    labeler._features.embedding.add(np.arange(3), np.ones((3, 16), np.float32))
    labeler._apply(operations(*order))
    assert labeler._features.embedding.windows(np.array([0])).tolist() == [windows]
    assert labeler._features.embedding.windows(np.array([1])).tolist() == [0]


def test_in_a_small_population_spike_statistics_alone_predict(model: Model):
    _, messages = messages_of(5, 12)
    last = last_of(Labeler(model, stream="probeA"), messages).predictions
    assert last.reasons == ("population_below_minimum",)
    for task in last.tasks:
        assert set(task.why.tolist()) <= {Abstained.NO, Abstained.LOW_PROBABILITY}
        assert not np.allclose(task.probabilities, 1 / len(task.classes))


def test_a_unit_of_an_absurd_rate_is_flagged_and_abstained_from(model: Model):
    source = Source()
    spikes = [(s, u) for s in range(12_000) for u in range(13) if u == 12 or s % 100 == 0]
    every_ms = [source.units(13), source.spikes(0, 12_000, spikes)]
    last = last_of(Labeler(model, stream="probeA"), every_ms).predictions
    assert last.flags[12] == UnitFlag.OOD_RATE and not last.flags[:12].any()
    assert last.out_of_distribution.tolist() == [False] * 12 + [True]
    for task in last.tasks:
        assert task.why[12] == Abstained.OUT_OF_DISTRIBUTION and (task.why[:12] != Abstained.OUT_OF_DISTRIBUTION).all()
        assert task.probabilities[12].sum() == pytest.approx(1), "what it would be is said all the same"


def test_a_prior_changes_probabilities_of_its_task_and_nothing_else(model: Model):
    recording = random_recording(4, seconds=12)
    plain = labelled(model, recording)[-1].predictions
    stated = labelled(model, recording, priors={"cell_type": {"PV": 3, "E": 1}})[-1].predictions
    expected = with_prior(plain.tasks[0].probabilities, (0.25,) * 4, (0.25, 0.75, 0, 0))
    assert stated.tasks[0].probabilities == pytest.approx(expected, abs=1e-6)
    assert not stated.tasks[0].probabilities[:, 2:].any()
    assert np.array_equal(stated.tasks[1].probabilities, plain.tasks[1].probabilities)


def test_a_unit_of_which_nothing_is_known_has_the_prior_that_was_asked_for(model: Model):
    source, messages = messages_of(12, 10)
    messages.append(source.table([(UnitAction.ADD, 30, "new")], added=10_000))
    messages.append(source.busy(10_000, 11_000, 12))
    labeler = Labeler(model, stream="probeA", priors={"cell_type": {"VIP": 1}})
    task = last_of(labeler, messages).predictions.tasks[0]
    assert task.probabilities[12].tolist() == [0, 0, 0, 1]
    assert task.why[12] == Abstained.NO_DATA and task.sets[12].all()
    assert labeler.priors == {"cell_type": (0, 0, 0, 1), "brain_region": pytest.approx((1 / 3,) * 3)}


@pytest.mark.parametrize(
    ("priors", "says"),
    [
        ({"mood": {"E": 1}}, r"priors\.mood: bundle tiny-pools-\w+ has cell_type, brain_region"),
        ({"cell_type": {"PVX": 2}}, r"priors\.cell_type\.PVX = 2: choose one of E, PV, SST, VIP"),
        ({"cell_type": {"E": 1, "PV": -0.5}}, r"priors\.cell_type\.PV = -0\.5: give a weight of 0 or more"),
        ({"cell_type": {"PV": float("nan")}}, r"priors\.cell_type\.PV = nan: give a weight of 0 or more"),
        ({"cell_type": {"PV": float("inf")}}, r"priors\.cell_type\.PV = inf: give a weight of 0 or more"),
        ({"cell_type": {"E": 0, "PV": 0}}, r"priors\.cell_type adds up to 0: give weights above 0 to some of E, PV"),
        ({"cell_type": {}}, r"priors\.cell_type adds up to 0: give weights above 0 to some of E, PV"),
    ],
)
def test_priors_that_can_not_be_are_refused_by_task_class_and_value(model: Model, priors: dict, says: str):
    with pytest.raises(ConfigError, match=says):
        Labeler(model, stream="r", priors=priors)


@pytest.mark.parametrize("half_life_s", [0.0, -3.0, float("nan"), float("inf")])
def test_a_half_life_is_a_positive_time(model: Model, half_life_s: float):
    with pytest.raises(ConfigError, match=r"half_life_s = .*: give seconds above 0"):
        Labeler(model, stream="r", half_life_s=half_life_s)


def test_with_a_half_life_windows_count_half_after_it(model: Model):
    recording = random_recording(5, seconds=22)
    weights = [step.predictions.exposure for step in labelled(model, recording, hop_s=2.0, half_life_s=2.0)]
    expected = [sum(0.5**k for k in range(windows)) for windows in range(1, len(weights) + 1)]
    steady = [float(np.median(weight)) for weight in weights]
    assert steady == pytest.approx([1 + (weight - 1) * 0.2 for weight in expected])
    assert labelled(model, recording, hop_s=2.0)[-1].predictions.exposure.max() == pytest.approx(1 + 6 * 0.2)
