"""Readouts: scaler + multinomial logistic regression on frozen features (the linear probe of the NuCLR paper).

Fitted on exposure-matched examples (see `examples`) as `regression` says, with the regularisation chosen by
cross-validation grouped by animal inside the training animals. The same folds give the calibration.
A run keeps its readouts in readouts.json (what they are) and readouts.npz (their coefficients).
Shapes: U units, F features, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from nuclr_stream.features.mean_embedding import Calibration
from nuclr_stream.prediction.pool import LogLinearPool, log_softmax
from nuclr_stream.windows.binning import Float32Array
from offline_training.readouts.calibration import calibrate
from offline_training.readouts.examples import Examples
from offline_training.readouts.predictors import Predictors
from offline_training.readouts.regression import (
    Float64Array,
    Group,
    Linear,
    OutOfFold,
    ReadoutError,
    fit_linear,
    out_of_fold,
)
from offline_training.scores import macro_f1

C_CANDIDATES = (3e-5, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1, 1.0)
MOST_SEARCHED = 8_000
"""Examples by which C is chosen; everything else uses all of them."""
TEMPERATURES = (-3.0, 5.0)
"""Range of log T within which regularisations are compared."""


@dataclass(frozen=True)
class Readout:
    """A fitted readout of one task: its classes in the order of the logits, and how far to believe them.

    `grouped_by` names what the folds of the cross-validation kept apart; `out_of_fold_f1` is its macro-F1 at `c`;
    `calibrated_on` says in words what temperature and abstention threshold were fitted on. `predictors` speak beside it.
    """

    classes: tuple[str, ...]
    linear: Linear
    calibration: Calibration
    c: float
    grouped_by: Group
    out_of_fold_f1: float
    calibrated_on: str
    predictors: Predictors | None = None

    @property
    def prior(self) -> tuple[float, ...]:
        """The class prior that the probabilities assume: uniform, for training is balanced over classes."""
        return (1 / len(self.classes),) * len(self.classes)

    def probabilities(self, features: Float32Array, n: Float32Array) -> Float32Array:
        """Calibrated probabilities (U, C) of features (U, F) with exposure n (U,) behind them."""
        return self.calibration.probabilities(self.linear.logits(features, n), n)


def fit_readout(known: Examples, classes: tuple[str, ...]) -> Readout:
    """Choose C, calibrate on the out-of-fold logits, and fit on everything.

    Raises ReadoutError when the examples hold one class only.
    """
    if len(present := np.unique(known.label)) < 2:
        raise ReadoutError(f"examples of one class only ({[classes[i] for i in present]}): nothing to tell apart")
    c = choose_c(known, len(classes))
    held_out = out_of_fold(known, len(classes), c=c)
    return Readout(
        classes=classes,
        linear=fit_linear(known, len(classes), c=c),
        calibration=calibrate(
            held_out.logits,
            held_out.examples.label,
            held_out.examples.n,
            weights=held_out.examples.weights(len(classes)),
        ),
        c=c,
        grouped_by=held_out.grouped_by,
        out_of_fold_f1=macro_f1_of(held_out),
        calibrated_on=f"units of {len(np.unique(known.subject))} animals, out of fold by {held_out.grouped_by}",
    )


def choose_c(known: Examples, classes: int) -> float:
    """The strongest regularisation whose log loss out of fold is within one standard error, over animals, of the least:
    a few animals do not tell much, many tell more."""
    some = np.zeros(len(known.label), dtype=bool)  # the same ones in every run
    some[np.random.default_rng(0).permutation(len(known.label))[:MOST_SEARCHED]] = True
    found = [_log_loss(out_of_fold(known.where(some), classes, c=c)) for c in C_CANDIDATES]
    least, error = min(found)
    return next(c for c, (loss, _) in zip(C_CANDIDATES, found, strict=True) if loss <= least + error)


def _log_loss(held_out: OutOfFold) -> tuple[float, float]:
    """Mean log loss of what was said of examples held out, units alike, classes balanced, at the best temperature, and
    its standard error over the groups that were held out.

    It tells regularisations apart where macro-F1 over a few populations is a matter of luck.
    """
    known, said = held_out.examples, log_softmax(held_out.logits)
    share = known.weights(held_out.logits.shape[1])
    share /= share.sum()
    rows = np.arange(len(known.label))

    def losses(log_t: float) -> Float64Array:
        return share * -log_softmax(said / np.exp(log_t))[rows, known.label]

    best = minimize_scalar(lambda log_t: losses(log_t).sum(), bounds=TEMPERATURES, method="bounded").x
    group = np.unique(known.subject if held_out.grouped_by == "subject" else known.recording, return_inverse=True)[1]
    total, weight = np.bincount(group, losses(best)), np.bincount(group, share)
    mean = float(total.sum())
    return mean, float(np.sqrt(np.square(total - weight * mean).sum()))


def save_readouts(run_dir: Path, readouts: Mapping[str, Readout], facts: Mapping[str, Any]) -> None:
    """Write readouts.npz and readouts.json; `facts` (plain values) says what they were fitted on."""
    arrays, tasks = {}, {}
    for task, readout in readouts.items():
        values = asdict(readout) | {"prior": readout.prior}
        arrays |= {f"{task}.{name}": value for name, value in values.pop("linear").items()}
        if values["predictors"]:
            for predictor, linear in values["predictors"].pop("linears").items():
                arrays |= {f"{task}.{predictor}.{name}": value for name, value in linear.items()}
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
        predictors=_experts(values["predictors"], task, arrays) if values.get("predictors") else None,
    )


def _experts(values: dict[str, Any], task: str, arrays: Mapping[str, np.ndarray]) -> Predictors:
    pools = tuple(LogLinearPool(**{k: _tuples(v) for k, v in pool.items()}) for pool in values.pop("pools"))
    linears = {name: _linear(arrays, f"{task}.{name}") for name in values["c"]}
    return Predictors(linears=linears, pools=pools, **values)


def _linear(arrays: Mapping[str, np.ndarray], place: str) -> Linear:
    parts = (arrays[f"{place}.{name}"] for name in ("weight", "bias", "mean", "scale", "n"))
    return Linear(*parts, float(arrays[f"{place}.limit"]))


def _tuples(values: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(v) if isinstance(v, list) else v for v in values)


def macro_f1_of(held_out: OutOfFold) -> float:
    """Macro-F1 over the classes that occur, every unit counting once."""
    known = held_out.examples
    prediction = held_out.logits.argmax(axis=1)
    return macro_f1(known.label, prediction, np.unique(known.label), weights=known.unit_shares())
