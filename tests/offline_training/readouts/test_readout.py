"""Readouts: exposure-matched examples, folds that keep animals apart, calibration that keeps its promise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from offline_training.config import TrainConfig
from offline_training.pretraining.pretrain import pretrain
from offline_training.readouts import regression
from offline_training.readouts.calibration import abstention_threshold, calibrate, fit_temperature, nearest_knot
from offline_training.readouts.examples import WHOLE, Examples, examples
from offline_training.readouts.readout import C_CANDIDATES, ReadoutError, choose_c, fit_readout, load_readouts
from offline_training.readouts.regression import fit_linear, out_of_fold
from offline_training.readouts.run_readouts import fit_readouts
from offline_training.simulation.animals import simulate

CLASSES = ("a", "b", "c")


def made(
    label: list[int] | np.ndarray,
    features: np.ndarray,
    *,
    subject: list[str] | None = None,
    unit: list[int] | None = None,
) -> Examples:
    count = len(label)
    return Examples(
        features=np.asarray(features, dtype=np.float32),
        label=np.asarray(label),
        n=np.ones(count, dtype=np.float32),
        subject=np.array(subject or ["A", "B"] * (count // 2)),
        recording=np.array([f"r{i % 4}" for i in range(count)]),
        unit=np.array(unit or range(count)),
    )


def blobs(per_class: int = 40, *, spread: float = 0.3, subjects: int = 2) -> Examples:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(3), per_class)
    features = np.eye(3)[label] + spread * rng.normal(size=(len(label), 3))
    return made(label, features, subject=[f"s{i % subjects}" for i in range(len(label))])


@dataclass(frozen=True)
class Steps:
    """A recording of which every step shows unit u the value step + 10 u; unit 1 is seen in odd steps only."""

    recording_id: str = "r"
    subject_id: str = "s"
    steps: int = 20
    steps_per_window: int = 2

    @property
    def end_s(self) -> np.ndarray:
        return np.arange(1.0, self.steps + 1)

    def between(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        steps = np.arange(first, last)
        odd = steps[steps % 2 == 1]
        n = np.array([len(steps), len(odd), len(steps)], dtype=np.float32)
        means = np.array([steps.mean(), 10 + (odd.mean() if len(odd) else 0), 20 + steps.mean()], dtype=np.float32)
        return means[:, None], n


def test_every_labelled_unit_gives_an_example_per_stretch_and_one_of_everything():
    found = examples([Steps()], [np.array([1, -1, 0])], lengths=(1, 3, WHOLE), draws=2)
    assert found.unit.tolist() == [0, 2] * 5
    assert found.label.tolist() == [1, 0] * 5
    # three windows with half a window's hop are five steps
    assert found.n.tolist() == [1, 1, 1, 1, 5, 5, 5, 5, 20, 20]
    assert len(set(found.features[found.unit == 0, 0].tolist())) == 5, "every stretch lies elsewhere"


def test_a_stretch_that_does_not_fit_is_left_out():
    found = examples([Steps(steps=5)], [np.array([0, 0, 0])], lengths=(1, 3, 30, WHOLE), draws=1)
    assert found.n[found.unit == 0].tolist() == [1, 5]


def test_a_unit_is_no_example_where_it_was_not_seen():
    found = examples([Steps(steps=1)], [np.array([0, 1, 1])], lengths=(WHOLE,))
    assert found.unit.tolist() == [0, 2]


def test_units_of_different_recordings_differ():
    found = examples([Steps(), Steps()], [np.array([0, 1, 1])] * 2, lengths=(WHOLE,))
    assert len(set(found.unit.tolist())) == 6


def test_every_unit_counts_once_and_every_class_alike():
    known = made([0, 0, 0, 1], np.zeros((4, 1)), unit=[5, 5, 6, 7])
    weights = known.weights(3)
    np.testing.assert_allclose(weights[0] + weights[1], weights[2])
    np.testing.assert_allclose(weights[:3].sum(), weights[3])
    np.testing.assert_allclose(weights.sum(), 3)


def test_a_readout_tells_separated_classes_apart():
    known = blobs()
    readout = fit_readout(known, CLASSES)
    assert (readout.linear.logits(known.features, known.n).argmax(axis=1) == known.label).mean() > 0.95
    assert readout.out_of_fold_f1 > 0.95
    assert readout.grouped_by == "subject"
    assert readout.prior == (1 / 3, 1 / 3, 1 / 3)


def test_two_classes_of_three_give_the_same_odds_as_their_difference():
    rng = np.random.default_rng(1)
    known = made([0, 2] * 30, rng.normal(size=(60, 2)) + np.array([[0.0], [1.0]] * 30))
    logits = fit_linear(known, 3, c=1.0).logits(known.features, known.n)
    assert (logits[:, 1] < -50).all()  # training never held the middle class
    np.testing.assert_allclose(logits[:, 0], -logits[:, 2], atol=1e-5)
    assert ((logits[:, 2] > logits[:, 0]) == (known.label == 2)).mean() > 0.6


def test_out_of_fold_logits_come_from_other_animals():
    # The only feature says the class in one animal and its opposite in the other: who saw the own animal is right.
    rng = np.random.default_rng(2)
    label = np.tile([0, 1], 40)
    subject = ["A"] * 40 + ["B"] * 40
    sign = np.where(np.array(subject) == "A", 1, -1) * (2 * label - 1)
    known = made(label, sign[:, None] + 0.1 * rng.normal(size=(80, 1)), subject=subject)
    held_out = out_of_fold(known, 2, c=1.0)
    assert (held_out.logits.argmax(axis=1) == held_out.examples.label).mean() == 0


def test_a_class_of_one_animal_is_left_out_of_the_calibration():
    label = [0, 1, 2, 0, 1, 0, 1, 0]
    subject = ["A", "A", "A", "A", "A", "B", "B", "B"]
    held_out = out_of_fold(made(label, np.arange(8)[:, None], subject=subject), 3, c=0.1)
    assert 2 not in held_out.examples.label


def test_one_animal_is_validated_by_recording():
    assert out_of_fold(blobs(subjects=1), 3, c=0.1).grouped_by == "recording"


def test_animals_that_share_no_class_are_validated_by_recording():
    label = np.arange(120) // 4 % 3
    subject = ["A" if c < 2 else "B" for c in label]
    held_out = out_of_fold(made(label, np.eye(3)[label], subject=subject), 3, c=0.1)
    assert held_out.grouped_by == "recording"
    assert set(held_out.examples.label) == {0, 1, 2}


def test_one_class_or_one_recording_is_refused():
    with pytest.raises(ReadoutError, match=r"one class only \(\['b'\]\)"):
        fit_readout(made([1, 1], np.zeros((2, 1))), CLASSES)
    alone = blobs(subjects=1)
    same = Examples(**{**alone.__dict__, "recording": np.full(len(alone.label), "r0")})
    with pytest.raises(ReadoutError, match="one recording only"):
        fit_readout(same, CLASSES)


def test_stronger_regularisation_wins_a_tie(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("offline_training.readouts.readout._log_loss", lambda held_out: (0.5, 0.0))
    assert fit_readout(blobs(), CLASSES).c == min(C_CANDIDATES)


def test_regularisation_is_chosen_by_what_animals_held_out_say():
    rng = np.random.default_rng(3)
    label = np.tile([0, 1, 2], 80)
    noise = made(label, rng.normal(size=(240, 30)), subject=[f"s{i // 40}" for i in range(240)])
    assert choose_c(noise, 3) < choose_c(blobs(subjects=4, spread=0.05), 3)


def test_features_are_standardised_for_the_evidence_they_rest_on():
    """Means over n windows scatter as 1 / sqrt(n), around another place at the start: the class is as plain early as it
    is late, and an exposure between two knots is treated as between them."""
    rng = np.random.default_rng(4)
    n = np.tile([1.0, 6.0, 60.0], 400).astype(np.float32)
    label = np.repeat([0, 1], 600)
    spread, place = 1 / np.sqrt(n), 10 / n
    known = replace(made(label, (place + spread * (2 * label - 1 + rng.normal(size=1200)))[:, None]), n=n)
    linear = fit_linear(known, 2, c=1.0)
    assert linear.n.tolist() == [1, 6, 60]
    right = linear.logits(known.features, n).argmax(axis=1) == label
    for exposure in (1, 6, 60):
        assert right[n == exposure].mean() > 0.8
    between = linear.standardised(known.features[:1], np.array([np.sqrt(6.0)], np.float32))
    mean, scale = (values[:2, 0].mean() for values in (linear.mean, linear.scale))
    np.testing.assert_allclose(between, np.clip((known.features[:1] - mean) / scale, -2, 2), rtol=1e-6)


def test_what_differs_between_recordings_of_one_class_counts_for_less():
    rng = np.random.default_rng(5)
    label = np.tile([0, 1], 300)
    recording = np.arange(600) // 20
    steady, wandering = (np.outer(2 * label - 1, [1, 1]) + rng.normal(size=(600, 2))).T
    wandering = wandering + np.repeat(rng.normal(0, 1.5, 30), 20)
    known = replace(
        made(label, np.stack([steady, wandering / wandering.std() * steady.std()], axis=1)),
        recording=np.array([f"r{k}" for k in recording]),
    )
    one_each = replace(known, recording=np.full(600, "r"))
    told_apart, not_told = (abs(fit_linear(each, 2, c=1e-4).weight[1]) for each in (known, one_each))
    assert told_apart[1] / told_apart[0] < 0.95 * not_told[1] / not_told[0]


def test_an_outlier_says_no_more_than_two_standard_deviations():
    known = blobs()
    linear = fit_linear(known, 3, c=1.0)
    far = np.array([[1e6, 0, 0], [1e9, 0, 0]], np.float32)
    logits = linear.logits(far, np.ones(2, np.float32))
    assert np.array_equal(logits[0], logits[1]) and np.isfinite(logits).all()


def drawn(temperature: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (R, 3) and classes drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(len(temperature), 3))
    p = np.exp(logits / temperature[:, None])
    p /= p.sum(axis=1, keepdims=True)
    return logits.astype(np.float32), (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1)


def test_temperature_is_recovered_at_every_evidence():
    n = np.tile([1.0, 6.0, 60.0], 3000).astype(np.float32)
    truth = np.array([4.0, 2.0, 1.0])
    logits, label = drawn(np.tile(truth, 3000))
    curve = fit_temperature(logits, label, n, weights=np.ones(len(n)))
    np.testing.assert_allclose(np.interp(np.log([1, 6, 60]), np.log(curve.n), curve.temperature), truth, rtol=0.15)


def test_knots_beyond_the_evidence_are_left_out():
    n = np.tile([1.0, 7.0], 50).astype(np.float32)
    logits, label = drawn(np.ones(100))
    assert fit_temperature(logits, label, n, weights=np.ones(100)).n == (1.0, 3.0, 6.0)


def test_the_threshold_is_the_lowest_that_keeps_the_promise():
    top = np.array([0.9, 0.8, 0.7, 0.6, 0.5], dtype=np.float32)
    right = np.array([True, True, True, False, False])
    same = {"weights": np.ones(5), "group": np.zeros(5, dtype=np.int64)}
    assert abstention_threshold(top, right, **same, precision=0.9) == pytest.approx(0.7)
    assert abstention_threshold(top, right, **same, precision=0.6) == pytest.approx(0.5)
    assert abstention_threshold(top, ~right, **same, precision=0.9) == 1.0


def test_equal_probabilities_are_called_together():
    top = np.array([0.8, 0.6, 0.6], dtype=np.float32)
    right = np.array([True, True, False])
    assert abstention_threshold(top, right, weights=np.ones(3), group=np.zeros(3, dtype=np.int64)) == pytest.approx(0.8)


def test_the_promise_holds_at_every_evidence_and_not_on_average():
    top = np.tile([0.9, 0.6, 0.6, 0.5], 2).astype(np.float32)
    right = np.array([True, True, True, True, True, True, False, False])
    group = np.repeat([5, 0], 4)
    assert abstention_threshold(top, right, weights=np.ones(8), group=group, precision=0.7) == pytest.approx(0.9)


def test_an_evidence_that_cannot_keep_the_promise_silences_only_itself():
    top = np.array([0.9] * 4 + [0.6] * 4, dtype=np.float32)
    right = np.array([True] * 4 + [False] * 4)
    group = np.repeat([5, 0], 4)
    assert abstention_threshold(top, right, weights=np.ones(8), group=group) == pytest.approx(0.9)


def test_evidence_belongs_to_the_nearest_knot():
    assert nearest_knot(np.array([1.0, 1.7, 1.8, 7.0, 59.0, 500.0], dtype=np.float32)).tolist() == [0, 0, 1, 2, 5, 5]


def test_calibrated_calls_keep_the_promise_on_new_units():
    n = np.full(6000, 6, dtype=np.float32)
    logits, label = drawn(np.full(6000, 2.5))
    found = calibrate(logits[:3000], label[:3000], n[:3000], weights=np.ones(3000))
    p = found.probabilities(logits[3000:], n[3000:])
    called = ~found.abstains(p, n[3000:])
    assert 0.05 < called.mean() < 1
    assert (p.argmax(axis=1) == label[3000:])[called].mean() > 0.87


def tiny_config() -> TrainConfig:
    return TrainConfig.parse(
        {
            "name": "tiny",
            "window": {"bins_per_patch": 25, "patches": 4, "hop_s": 1.0},
            "encoder": {"dim": 8, "heads": 2, "head_dim": 4, "ffn_hidden": 8, "temporal_blocks": 1},
            "training": {"steps": 1, "batch_windows": 1},
            "tasks": {"cell_type": {"column": "cell_type", "classes": {c: [c] for c in ("E", "PV")}, "min_spikes": 5}},
        }
    )


def test_readouts_of_a_run_are_stored_and_read_back_bitwise(tmp_path: Path):
    recordings = [simulate(seed, units=32, duration_s=20.0) for seed in (1, 2)]
    run = pretrain(tiny_config(), recordings[:1], tmp_path / "run")
    fitted = fit_readouts(run, recordings)
    stored = load_readouts(run)
    assert list(stored) == ["cell_type"]
    again, first = stored["cell_type"], fitted["cell_type"]
    for name in ("weight", "bias", "mean", "scale"):
        np.testing.assert_array_equal(getattr(again.linear, name), getattr(first.linear, name))
    assert (again.classes, again.calibration, again.c) == (first.classes, first.calibration, first.c)
    assert (
        again.calibrated_on == "units of 2 animals, out of fold by subject; the encoder saw the activity of 1 of them"
    )


def test_a_run_without_readouts_says_how_to_get_them(tmp_path: Path):
    with pytest.raises(ReadoutError, match="nuclr-train readout"):
        load_readouts(tmp_path)


def test_folds_hold_whole_animals():
    known = blobs(subjects=9)
    for train, test in regression._folds(known, "subject"):
        assert not set(known.subject[train]) & set(known.subject[test])
