"""A log of predictions as lines of JSON that people can search and programs can turn back, number by number.

A line is one window of one stream: everything that a Predictions message holds. Numbers are written so that they come
back as the same float32; what is derived (the top class, whether it is abstained from) stands beside them for readers
and is not read back. docs/outputs.md lists the keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.errors import NuclrStreamError, WireError
from nuclr_stream.prediction.stability import NEVER
from nuclr_stream.wire import Abstained, Predictions, TaskPredictions, UnitFlag, decode, encode

VERSION = 1
_PLAIN = (
    *("stream", "epoch", "step", "seq", "instance", "end_sample", "origin", "closed_ns", "published_ns", "state"),
    *("missing", "active_units", "skipped_steps", "bundle", "hop_s", "window_s"),
)
"""Fields of Predictions that JSON holds as they are."""


def to_line(one: Predictions) -> str:
    """Return predictions as one line of JSON, without its line feed."""
    document: dict[str, Any] = {"v": VERSION, "time_s": float(one.end_sample / one.sample_rate)}
    document |= {name: getattr(one, name) for name in _PLAIN}
    document |= {"sample_rate": str(one.sample_rate), "reasons": list(one.reasons)}
    document["tasks"] = [{"task": t.name, "classes": list(t.classes), "flips": t.flips} for t in one.tasks]
    document["units"] = [_unit(one, u) for u in range(len(one.unit_ids))]
    return json.dumps(document, ensure_ascii=False)


def from_line(line: str) -> Predictions:
    """Return the predictions of a line. Raises ValueError saying what is wrong with it."""
    try:
        document = json.loads(line)
        if document.get("v") != VERSION:
            raise ValueError(f"v is {document.get('v')!r}; this version reads {VERSION}")
        return _checked(_predictions(document))
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__} {error}") from error
    except WireError as error:
        raise ValueError(str(error)) from error


def read_log(path: Path) -> Iterator[Predictions]:
    """Yield the predictions of a log in order; a last line that a crash cut off is left out.

    Raises NuclrStreamError naming file, line and what is wrong with it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n"):
                    return
                try:
                    yield from_line(line)
                except ValueError as error:
                    raise NuclrStreamError(
                        f"{path.name}: line {number}: {error}; it is no log of predictions, or was changed"
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise NuclrStreamError(f"{path}: not a readable log of predictions ({error})") from error


def _unit(one: Predictions, u: int) -> dict[str, Any]:
    return {
        "unit_id": one.unit_ids[u],
        "unit_index": int(one.unit_index[u]),
        "windows": int(one.windows[u]),
        "exposure": float(one.exposure[u]),
        "ood_score": float(one.ood_score[u]),
        "flags": list(UnitFlag(int(one.flags[u])).words),
        "tasks": [_answer(task, u) for task in one.tasks],
    }


def _answer(task: TaskPredictions, u: int) -> dict[str, Any]:
    probabilities, why, since = task.probabilities[u], Abstained(task.why[u]), int(task.stable_since[u])
    return {
        "task": task.name,
        "prediction": task.classes[int(probabilities.argmax())],
        "abstained": bool(why),
        "why": why.word,
        "probabilities": probabilities.tolist(),
        "set": [name for name, inside in zip(task.classes, task.sets[u], strict=True) if inside],
        "stable_since": None if since == NEVER else since,
    }


def _predictions(document: dict[str, Any]) -> Predictions:
    units = document["units"]
    return Predictions(
        **{name: document[name] for name in _PLAIN},
        sample_rate=Fraction(document["sample_rate"]),
        reasons=tuple(document["reasons"]),
        unit_index=np.array([unit["unit_index"] for unit in units], dtype=np.uint32),
        unit_ids=tuple(unit["unit_id"] for unit in units),
        windows=np.array([unit["windows"] for unit in units], dtype=np.uint32),
        exposure=np.array([unit["exposure"] for unit in units], dtype=np.float32),
        ood_score=np.array([unit["ood_score"] for unit in units], dtype=np.float32),
        flags=np.array([sum(UnitFlag[word.upper()] for word in unit["flags"]) for unit in units], dtype=np.uint8),
        tasks=tuple(_task(task, [unit["tasks"][t] for unit in units]) for t, task in enumerate(document["tasks"])),
    )


def _task(task: dict[str, Any], answers: Sequence[dict[str, Any]]) -> TaskPredictions:
    classes = tuple(task["classes"])
    since = [NEVER if answer["stable_since"] is None else answer["stable_since"] for answer in answers]
    whys = [Abstained[answer["why"].upper() or "NO"] for answer in answers]
    probabilities = np.array([answer["probabilities"] for answer in answers], dtype=np.float32)
    sets = np.array([[name in answer["set"] for name in classes] for answer in answers], dtype=np.bool_)
    return TaskPredictions(
        name=task["task"],
        classes=classes,
        probabilities=probabilities.reshape(len(answers), len(classes)),
        sets=sets.reshape(len(answers), len(classes)),
        why=np.array(whys, dtype=np.uint8),
        stable_since=np.array(since, dtype=np.int64),
        flips=task["flips"],
    )


def _checked(predictions: Predictions) -> Predictions:
    """The same as the wire would take them: a line that was edited must not bring in what no daemon would send."""
    found = decode(encode(predictions))
    assert isinstance(found, Predictions)
    return found
