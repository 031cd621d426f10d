"""Readouts: scaler + multinomial logistic regression on frozen features (the linear probe of the NuCLR paper).

Fitted on evidence-matched examples (see `examples`), balanced over classes, with the regularisation chosen by
cross-validation grouped by animal inside the training animals. The same folds give the calibration.
A run keeps its readouts in readouts.json (what they are) and readouts.npz (their coefficients).
Shapes: U units, F features, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.binning import Float32Array
from nuclr_stream.evidence import Calibration
from nuclr_stream.recording import Recording
from offline_training.calibration import calibrate
from offline_training.embed import embed_recording, through_torch
from offline_training.examples import Examples, examples
from offline_training.labels import task_labels
from offline_training.pretrain import load_run
from offline_training.regression import Group, Linear, OutOfFold, ReadoutError, fit_linear, out_of_fold
from offline_training.scores import macro_f1

C_CANDIDATES = (0.001, 0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Readout:
    """A fitted readout of one task: its classes in the order of the logits, and how far to believe them.

    `grouped_by` names what the folds of the cross-validation kept apart; `out_of_fold_f1` is its macro-F1 at `c`;
    `calibrated_on` says in words what temperature and abstention threshold were fitted on.
    """

    classes: tuple[str, ...]
    linear: Linear
    calibration: Calibration
    c: float
    grouped_by: Group
    out_of_fold_f1: float
    calibrated_on: str

    @property
    def prior(self) -> tuple[float, ...]:
        """The class prior that the probabilities assume: uniform, for training is balanced over classes."""
        return (1 / len(self.classes),) * len(self.classes)

    def probabilities(self, features: Float32Array, n: Float32Array) -> Float32Array:
        """Calibrated probabilities (U, C) of features (U, F) with evidence n (U,) behind them."""
        return self.calibration.probabilities(self.linear.logits(features), n)


def fit_readout(known: Examples, classes: tuple[str, ...]) -> Readout:
    """Choose C, calibrate on the out-of-fold logits, and fit on everything.

    Raises ReadoutError when the examples hold one class only.
    """
    if len(present := np.unique(known.label)) < 2:
        raise ReadoutError(f"examples of one class only ({[classes[i] for i in present]}): nothing to tell apart")
    tried = [out_of_fold(known, len(classes), c=c) for c in C_CANDIDATES]
    scores = [_macro_f1(held_out) for held_out in tried]
    best = int(np.argmax(scores))  # the first, strongest regularisation wins a tie
    held_out = tried[best]
    return Readout(
        classes=classes,
        linear=fit_linear(known, len(classes), c=C_CANDIDATES[best]),
        calibration=calibrate(
            held_out.logits,
            held_out.examples.label,
            held_out.examples.n,
            weights=held_out.examples.weights(len(classes)),
        ),
        c=C_CANDIDATES[best],
        grouped_by=held_out.grouped_by,
        out_of_fold_f1=scores[best],
        calibrated_on=f"units of {len(np.unique(known.subject))} animals, out of fold by {held_out.grouped_by}",
    )


def fit_readouts(run_dir: Path, recordings: Sequence[Recording], *, hop_s: float | None = None) -> dict[str, Readout]:
    """Fit a readout per task of the run's settings on labelled recordings, and store them with the run.

    `hop_s` is the step between windows, one whole window if not given. The recordings may be those that the encoder was
    trained on or, for a calibration that its familiarity with the animals does not flatter, others.
    Raises LabelError, ReadoutError or RunError.
    """
    encoder, config, info = load_run(run_dir)
    spec = config.window.spec
    spec = spec.with_hop_s(hop_s or spec.window_s)
    labels = {task: task_labels(task, settings, recordings) for task, settings in config.tasks.items()}
    encode = through_torch(encoder)
    embedded = [embed_recording(encode, recording, spec, config.rules.rules) for recording in recordings]
    familiarity = info["animals"] if "imported" in info else _familiarity(recordings, info["subjects"])
    readouts = {}
    for task, settings in config.tasks.items():
        readout = fit_readout(examples(embedded, labels[task]), settings.names)
        readouts[task] = replace(readout, calibrated_on=f"{readout.calibrated_on}; {familiarity}")
    facts = {
        "hop_s": spec.hop_s,
        "recordings": [recording.recording_id for recording in recordings],
        "subjects": sorted({recording.subject_id for recording in recordings}),
    }
    save_readouts(run_dir, readouts, facts)
    return readouts


def recalibrate(run_dir: Path, fold_dirs: Sequence[Path], recordings: Sequence[Recording]) -> dict[str, Readout]:
    """Replace the calibration of a run's readouts by one from animals that neither encoder nor readouts had seen.

    Each of `fold_dirs` is a run on all animals but those it holds out (as `evaluate` keeps them): readouts are fitted
    on its embeddings of its own animals, and what they say of the held-out ones is pooled over the folds. Weights,
    classes and C of the run's readouts stay. Raises ReadoutError when no fold holds out a labelled animal.
    """
    readouts = load_readouts(run_dir)
    said: dict[str, list[tuple[Float32Array, Examples]]] = {task: [] for task in readouts}
    for fold_dir in fold_dirs:
        encoder, config, info = load_run(fold_dir)
        spec = config.window.spec.with_hop_s(config.window.spec.window_s)
        encode = through_torch(encoder)
        embedded = [embed_recording(encode, recording, spec, config.rules.rules) for recording in recordings]
        for task in readouts:
            known = examples(embedded, task_labels(task, config.tasks[task], recordings))
            seen = np.isin(known.subject, info["subjects"])
            if seen.all():
                continue
            fitted = fit_readout(known.where(seen), config.tasks[task].names)
            # a class that lives in the held-out animals only says nothing of calibration: nobody could have known it
            held_out = known.where(~seen & np.isin(known.label, known.label[seen]))
            said[task].append((fitted.linear.logits(held_out.features), held_out))
    for task, parts in said.items():
        if not parts:
            raise ReadoutError(f"{task}: none of {len(fold_dirs)} folds holds out an animal that is labelled for it")
        readouts[task] = _recalibrated(readouts[task], parts)
    facts = json.loads((run_dir / "readouts.json").read_text(encoding="utf-8"))
    del facts["tasks"]
    save_readouts(run_dir, readouts, facts)
    return readouts


def _recalibrated(readout: Readout, parts: Sequence[tuple[Float32Array, Examples]]) -> Readout:
    label = np.concatenate([held_out.label for _, held_out in parts])
    shares = np.concatenate([held_out.unit_shares() for _, held_out in parts])
    per_class = np.bincount(label, weights=shares, minlength=len(readout.classes))
    animals = sorted({str(subject) for _, held_out in parts for subject in held_out.subject})
    calibration = calibrate(
        np.concatenate([logits for logits, _ in parts]),
        label,
        np.concatenate([held_out.n for _, held_out in parts]),
        weights=shares / per_class[label],
    )
    what = f"units of {len(animals)} animals ({', '.join(animals)}), each unseen by its fold's encoder and readout"
    return replace(readout, calibration=calibration, calibrated_on=what)


def _familiarity(recordings: Sequence[Recording], trained_on: Sequence[str]) -> str:
    seen = {recording.subject_id for recording in recordings} & set(trained_on)
    if not seen:
        return "animals that the encoder never saw"
    return (
        "the encoder saw the activity of all of them"
        if len(seen) == len({recording.subject_id for recording in recordings})
        else f"the encoder saw the activity of {len(seen)} of them"
    )


def save_readouts(run_dir: Path, readouts: Mapping[str, Readout], facts: Mapping[str, Any]) -> None:
    """Write readouts.npz and readouts.json; `facts` (plain values) says what they were fitted on."""
    arrays = {
        f"{task}.{name}": value for task, readout in readouts.items() for name, value in asdict(readout.linear).items()
    }
    np.savez_compressed(run_dir / "readouts.npz", allow_pickle=False, **arrays)
    tasks = {}
    for task, readout in readouts.items():
        values = asdict(readout)
        del values["linear"]
        tasks[task] = values | {"prior": readout.prior}
    text = json.dumps({**facts, "tasks": tasks}, indent=1)
    (run_dir / "readouts.json").write_text(text + "\n", encoding="utf-8")


def load_readouts(run_dir: Path) -> dict[str, Readout]:
    """Read the readouts of a run. Raises ReadoutError when it has none."""
    try:
        tasks = json.loads((run_dir / "readouts.json").read_text(encoding="utf-8"))["tasks"]
        with np.load(run_dir / "readouts.npz", allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return {task: _readout(values, task, arrays) for task, values in tasks.items()}
    except (OSError, ValueError, KeyError) as error:
        raise ReadoutError(f"{run_dir}: no readable readouts ({error}); fit them with `nuclr-train readout`") from error


def _readout(values: dict[str, Any], task: str, arrays: Mapping[str, np.ndarray]) -> Readout:
    stored = values["calibration"]
    return Readout(
        classes=tuple(values["classes"]),
        linear=Linear(*(arrays[f"{task}.{name}"] for name in ("weight", "bias", "mean", "scale"))),
        calibration=Calibration(tuple(stored["n"]), tuple(stored["temperature"]), stored["abstain_below"]),
        c=values["c"],
        grouped_by=values["grouped_by"],
        out_of_fold_f1=values["out_of_fold_f1"],
        calibrated_on=values["calibrated_on"],
    )


def _macro_f1(held_out: OutOfFold) -> float:
    known = held_out.examples
    prediction = held_out.logits.argmax(axis=1)
    return macro_f1(known.label, prediction, np.unique(known.label), weights=known.unit_shares())
