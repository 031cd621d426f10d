"""The model of a task: its predictors and pools, fitted in one way for training, evaluation and export.

A run keeps its task models in readouts.json (what they are) and readouts.npz (their coefficients).
Shapes: R examples, U units, C classes.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.bundle.manifest import PoolPart, TaskPart
from nuclr_stream.features.accumulator import SPIKE_SETS, FeatureSet, FeatureSnapshot
from nuclr_stream.prediction.answer import Answer, answer
from nuclr_stream.prediction.pool import LogLinearPool
from offline_training.readouts.examples import WHOLE, Examples
from offline_training.readouts.pooling import Held, calibrated, fit_pools, precision_promise, sets_promise
from offline_training.readouts.predictor import Fitted, Predictor, fit_predictor
from offline_training.readouts.regression import Float64Array, ReadoutError, grouping
from offline_training.scores import macro_f1

ARRAYS = ("n", "weight", "bias", "mean", "scale")


@dataclass(frozen=True)
class TaskModel:
    """A fitted task: its classes in the order of the logits, predictors by feature set, and how they are pooled.

    Args:
        pools: ways to answer, the preferred first.
        single: every predictor's own calibrated pool, for scores of each alone.
        c: regularisation by feature set, at every knot of its predictor.
        scores: macro-F1 by length of the stretch in windows (0: whole recordings): of the training units themselves, of
            animals left out, and of animals left out by readouts fitted on whole recordings only.
        calibrated_on, threshold_promise, sets_promise: in words.
    """

    classes: tuple[str, ...]
    predictors: Mapping[FeatureSet, Predictor]
    pools: tuple[LogLinearPool, ...]
    single: Mapping[FeatureSet, LogLinearPool]
    c: Mapping[FeatureSet, tuple[float, ...]]
    scores: Mapping[str, Mapping[str, float]]
    calibrated_on: str
    threshold_promise: str
    sets_promise: str

    @property
    def prior(self) -> tuple[float, ...]:
        """The class prior that the probabilities assume: uniform, for training is balanced over classes."""
        return (1 / len(self.classes),) * len(self.classes)

    def answer(self, snapshot: FeatureSnapshot) -> Answer:
        """What the model predicts of units, exactly as the daemon does."""
        needed = {name for pool in self.pools for name in pool.predictors}
        logits = {
            name: self.predictors[name].logits(snapshot.features[name], snapshot.exposure_of({name})) for name in needed
        }
        return answer(self.pools, snapshot, logits, prior=self.prior)

    def alone(self, name: FeatureSet) -> TaskModel:
        """The same with one predictor only."""
        return replace(self, pools=(self.single[name],))

    def on_whole_recordings(self) -> TaskModel:
        """The same with the readouts of whole recordings at every exposure."""
        whole = {
            name: replace(p, n=p.n[-1:], weight=p.weight[-1:], bias=p.bias[-1:]) for name, p in self.predictors.items()
        }
        return replace(self, predictors=whole)

    def part(self, task: str) -> TaskPart:
        """What a bundle's manifest says of the model."""
        needed = {name for pool in self.pools for name in pool.predictors}
        return TaskPart(
            name=task,
            classes=self.classes,
            prior=self.prior,
            predictors=tuple(name for name in SPIKE_SETS if name in needed),
            pools=tuple(PoolPart(**asdict(pool)) for pool in self.pools),
            calibrated_on=self.calibrated_on,
            threshold_promise=self.threshold_promise,
            sets_promise=self.sets_promise,
        )


def fit_task(
    known: Examples, classes: tuple[str, ...], *, sets: Sequence[FeatureSet] | None = None, saw: str = ""
) -> TaskModel:
    """Fit the predictors of every feature set (or of `sets`) on labelled examples, calibrate and pool them.

    `saw` says in words what the encoder saw of these animals. Raises ReadoutError for examples of one class only.
    """
    present = np.unique(known.label)
    if len(present) < 2:
        raise ReadoutError(f"examples of one class only ({[classes[i] for i in present]}): nothing to tell apart")
    names = [name for name in (sets or SPIKE_SETS) if name in known.features]
    fitted = {name: fit_predictor(known, name, len(classes)) for name in names}
    held = {name: one.held_out for name, one in fitted.items()}
    pools = fit_pools(held, known)
    animals = len(np.unique(known.subject))
    words = f"units of {animals} animals, each predicted by readouts that saw nothing of its {grouping(known)}"
    model = TaskModel(
        classes=classes,
        predictors={name: one.predictor for name, one in fitted.items()},
        pools=pools,
        single={name: calibrated(held, known, (name,)) for name in names},
        c={name: one.c for name, one in fitted.items()},
        scores={},
        calibrated_on=f"{words}; {saw}" if saw else words,
        threshold_promise=precision_promise(pools[0], held, known),
        sets_promise=sets_promise(animals),
    )
    return replace(model, scores=_scores(model, fitted, known))


def below_plain(model: TaskModel, margin: float = 0.01) -> list[str]:
    """Where the model scores below readouts of whole recordings, on animals left out, in words."""
    return [
        f"{_length_words(length)}: macro-F1 on animals left out {s['left_out']:.3f}, "
        f"{s['plain']:.3f} with readouts of whole recordings"
        for length, s in model.scores.items()
        if s["left_out"] < s["plain"] - margin
    ]


def _length_words(length: str) -> str:
    return "whole recordings" if length == str(WHOLE) else f"{length} windows"


def _scores(model: TaskModel, fitted: Mapping[FeatureSet, Fitted], known: Examples) -> dict[str, dict[str, float]]:
    pool = model.pools[0]
    able = np.logical_and.reduce([known.has[name] for name in pool.predictors])
    training = model.answer(known.snapshot).probabilities
    held: dict[str, Held] = {
        "left_out": {name: fitted[name].held_out for name in pool.predictors},
        "plain": {name: fitted[name].plain for name in pool.predictors},
    }
    exposure = known.exposure_of(pool.predictors)
    found = {"training": training} | {key: pool.probabilities(values, exposure) for key, values in held.items()}
    scores: dict[str, dict[str, float]] = {}
    for length in np.unique(known.length):
        at = able & (known.length == length)
        own = known.where(at)
        scores[str(length)] = {
            key: round(macro_f1(own.label, p[at].argmax(axis=1), np.unique(own.label), weights=own.shares()), 4)
            for key, p in found.items()
        }
    return scores


def save_task_models(run_dir: Path, models: Mapping[str, TaskModel], facts: Mapping[str, Any]) -> None:
    """Write readouts.npz and readouts.json; `facts` (plain values) says what they were fitted on."""
    arrays: dict[str, Float64Array] = {}
    tasks: dict[str, Any] = {}
    for task, model in models.items():
        values = {key: value for key, value in vars(model).items() if key != "predictors"}
        values["pools"] = [asdict(pool) for pool in model.pools]
        values["single"] = {name: asdict(pool) for name, pool in model.single.items()}
        tasks[task] = values
        for name, predictor in model.predictors.items():
            arrays |= {f"{task}.{name}.{part}": getattr(predictor, part) for part in ARRAYS}
    np.savez_compressed(run_dir / "readouts.npz", allow_pickle=False, **arrays)
    (run_dir / "readouts.json").write_text(json.dumps({**facts, "tasks": tasks}, indent=1) + "\n", encoding="utf-8")


def load_task_models(run_dir: Path) -> dict[str, TaskModel]:
    """Read the task models of a run. Raises ReadoutError when it has none."""
    try:
        tasks = json.loads((run_dir / "readouts.json").read_text(encoding="utf-8"))["tasks"]
        with np.load(run_dir / "readouts.npz", allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return {task: _task_model(task, values, arrays) for task, values in tasks.items()}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ReadoutError(f"{run_dir}: no readable readouts ({error}); fit them with `nuclr-train readout`") from error


def _task_model(task: str, values: dict[str, Any], arrays: Mapping[str, Float64Array]) -> TaskModel:
    predictors = {name: Predictor(*(arrays[f"{task}.{name}.{part}"] for part in ARRAYS)) for name in values["c"]}
    values["classes"] = tuple(values["classes"])
    values["c"] = {name: tuple(each) for name, each in values["c"].items()}
    values["pools"] = tuple(_pool(pool) for pool in values["pools"])
    values["single"] = {name: _pool(pool) for name, pool in values["single"].items()}
    return TaskModel(predictors=predictors, **values)


def _pool(values: dict[str, Any]) -> LogLinearPool:
    return LogLinearPool(**{key: _tuples(value) for key, value in values.items()})


def _tuples(values: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(v) if isinstance(v, list) else v for v in values)
