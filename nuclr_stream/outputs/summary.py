"""What a person wants to know of labelled recordings at a glance, as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from nuclr_stream.outputs.result import Result
from nuclr_stream.wire import Abstained, TaskPredictions


def in_words(result: Result) -> Iterator[str]:
    """Yield lines: units and time; classes called, and abstained from by reason, of every task; regions along depth."""
    one = result.predictions
    seconds = f"{result.duration_s:g} s"
    yield f"{result.recording_id}: {_of(len(one.unit_ids), 'unit')}, {seconds}, bundle {one.bundle}"
    if result.note:
        yield f"  nothing can be predicted: {result.note}"
        return
    strange = int(one.out_of_distribution.sum())
    if strange:
        yield f"  unlike the units of training: {strange} of {len(one.unit_ids)}"
    for task in one.tasks:
        yield f"  {task.name.replace('_', ' ')}: {_classes(task)}"
    yield from _regions(result)


def _classes(task: TaskPredictions) -> str:
    """The classes that are called with their numbers, then the reasons for which none is."""
    tops = task.probabilities.argmax(axis=1).tolist()
    called = Counter(task.classes[k] for k, why in zip(tops, task.why.tolist(), strict=True) if not why)
    reasons = Counter(Abstained(why).word.replace("_", " ") for why in task.why.tolist() if why)
    names = ", ".join(f"{name} {n}" for name, n in called.most_common()) or "no class called"
    if not reasons:
        return names
    words = ", ".join(f"{word} {n}" for word, n in reasons.most_common())
    return f"{names}; not called {sum(reasons.values())} ({words})"


def _regions(result: Result) -> Iterator[str]:
    """The predicted regions of every shank from the tip up, with the intervals of their borders."""
    placement = result.placement or {}
    for shank in placement.get("shanks", ()):
        where = "along depth" if shank["shank"] < 0 else f"shank {shank['shank']}"
        if not shank["segments"]:
            yield f"  regions {where}: none ({shank['reason'].replace('_', ' ')})"
            continue
        parts = [
            f"{one['region']} {one['from_um']:.0f}-{one['to_um']:.0f} um "
            f"({100 * one['probability']:.0f} %; {_agreeing(one)})"
            for one in shank["segments"]
        ]
        yield f"  regions {where}, predicted, from the tip: {', '.join(parts)}"
        for border in shank["boundaries"]:
            yield (
                f"    border {border['below']} | {border['above']} at {border['depth_um']:.0f} um "
                f"(90 %: {border['low_um']:.0f}-{border['high_um']:.0f})"
            )


def _agreeing(segment: Mapping[str, Any]) -> str:
    """How many of a region's units say so themselves."""
    share = segment["units_agree"]
    return f"{'no' if share is None else f'{100 * share:.0f} %'} of {_of(segment['units'], 'unit')} alone"


def _of(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
