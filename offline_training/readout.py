"""Readouts: scaler + multinomial logistic regression on frozen features (the linear probe of the NuCLR paper).

Fitted on evidence-matched examples (see `examples`), balanced over classes, with the regularisation chosen by
cross-validation grouped by animal inside the training animals. The same folds give the calibration.
A run keeps its readouts in readouts.json (what they are) and readouts.npz (their coefficients).
Shapes: U units, F features, C classes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.binning import Float32Array
from nuclr_stream.evidence import Calibration
from nuclr_stream.fusion import Fusion
from offline_training.calibration import calibrate
from offline_training.examples import Examples
from offline_training.experts import Experts
from offline_training.regression import Group, Linear, OutOfFold, ReadoutError, fit_linear, out_of_fold
from offline_training.scores import macro_f1

C_CANDIDATES = (0.001, 0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Readout:
    """A fitted readout of one task: its classes in the order of the logits, and how far to believe them.

    `grouped_by` names what the folds of the cross-validation kept apart; `out_of_fold_f1` is its macro-F1 at `c`;
    `calibrated_on` says in words what temperature and abstention threshold were fitted on. `experts` speak beside it.
    """

    classes: tuple[str, ...]
    linear: Linear
    calibration: Calibration
    c: float
    grouped_by: Group
    out_of_fold_f1: float
    calibrated_on: str
    experts: Experts | None = None

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
    scores = [macro_f1_of(held_out) for held_out in tried]
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


def save_readouts(run_dir: Path, readouts: Mapping[str, Readout], facts: Mapping[str, Any]) -> None:
    """Write readouts.npz and readouts.json; `facts` (plain values) says what they were fitted on."""
    arrays, tasks = {}, {}
    for task, readout in readouts.items():
        values = asdict(readout) | {"prior": readout.prior}
        arrays |= {f"{task}.{name}": value for name, value in values.pop("linear").items()}
        if values["experts"]:
            for expert, linear in values["experts"].pop("linears").items():
                arrays |= {f"{task}.{expert}.{name}": value for name, value in linear.items()}
        tasks[task] = values
    np.savez_compressed(run_dir / "readouts.npz", allow_pickle=False, **arrays)
    text = json.dumps({**facts, "tasks": tasks}, indent=1)
    (run_dir / "readouts.json").write_text(text + "\n", encoding="utf-8")


def load_readouts(run_dir: Path) -> dict[str, Readout]:
    """Read the readouts of a run. Raises ReadoutError when it has none."""
    try:
        tasks = json.loads((run_dir / "readouts.json").read_text(encoding="utf-8"))["tasks"]
        with np.load(run_dir / "readouts.npz", allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return {task: _readout(values, task, arrays) for task, values in tasks.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadoutError(f"{run_dir}: no readable readouts ({error}); fit them with `nuclr-train readout`") from error


def _readout(values: dict[str, Any], task: str, arrays: Mapping[str, np.ndarray]) -> Readout:
    stored = values["calibration"]
    return Readout(
        classes=tuple(values["classes"]),
        linear=_linear(arrays, task),
        calibration=Calibration(tuple(stored["n"]), tuple(stored["temperature"]), stored["abstain_below"]),
        c=values["c"],
        grouped_by=values["grouped_by"],
        out_of_fold_f1=values["out_of_fold_f1"],
        calibrated_on=values["calibrated_on"],
        experts=_experts(values["experts"], task, arrays) if values.get("experts") else None,
    )


def _experts(values: dict[str, Any], task: str, arrays: Mapping[str, np.ndarray]) -> Experts:
    fusions = tuple(Fusion(**{k: _tuples(v) for k, v in fusion.items()}) for fusion in values.pop("fusions"))
    linears = {name: _linear(arrays, f"{task}.{name}") for name in values["c"]}
    return Experts(linears=linears, fusions=fusions, **values)


def _linear(arrays: Mapping[str, np.ndarray], place: str) -> Linear:
    limit = arrays.get(f"{place}.limit")
    parts = (arrays[f"{place}.{name}"] for name in ("weight", "bias", "mean", "scale"))
    return Linear(*parts, math.inf if limit is None else float(limit))


def _tuples(values: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(v) if isinstance(v, list) else v for v in values)


def macro_f1_of(held_out: OutOfFold) -> float:
    """Macro-F1 over the classes that occur, every unit counting once."""
    known = held_out.examples
    prediction = held_out.logits.argmax(axis=1)
    return macro_f1(known.label, prediction, np.unique(known.label), weights=known.unit_shares())
