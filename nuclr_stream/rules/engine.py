"""Which rules fire, and when: hysteresis over windows and once per epoch. No sockets, threads, files or clocks here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nuclr_stream.rules.settings import BoundaryRule, CountRule, RegionRule, Rule, UnitRule
from nuclr_stream.wire import Abstained, Predictions

Placed = Callable[[], Mapping[str, Any]]
"""Gives the placement document of a window's units; called at most once, and only if a rule asks about depth."""


@dataclass(frozen=True, kw_only=True)
class Firing:
    """A rule fired: for which subject (a unit's id, a shank, or nothing), and at which value of its.

    `event_id` names it for ever: the same rule, stream, epoch and subject have the same id, whatever restarts.
    """

    rule: str
    stream: str
    epoch: int
    subject: str
    value: float
    step: int
    end_sample: int
    time_s: float
    closed_ns: int
    sinks: tuple[str, ...] = ()

    @property
    def event_id(self) -> str:
        """Rule, stream, epoch and subject, with / between them."""
        return f"{self.rule}/{self.stream}/{self.epoch}/{self.subject}"


class Engine:
    """All rules over all streams. `fired` are event ids that fired before; none of them fires again."""

    def __init__(self, rules: Sequence[Rule], fired: Sequence[str] = ()) -> None:
        self.rules = tuple(rules)
        self.asks_depth = any(isinstance(rule, RegionRule | BoundaryRule) for rule in rules)
        self._fired = set(fired)
        self._epoch: dict[str, int] = {}
        self._held: dict[tuple[str, str], dict[str, int]] = {}

    def take(self, one: Predictions, placed: Placed) -> list[Firing]:
        """Return what fires with a window's predictions.

        A window that is not ready (too much missing, a population too small) neither counts nor starts anew: nothing
        is known of it. A unit that is abstained from has the value 0.
        """
        if self._epoch.get(one.stream) != one.epoch:
            self._epoch[one.stream] = one.epoch
            for rule in self.rules:
                self._held.pop((rule.name, one.stream), None)
        if one.state != "ready":
            return []
        document: Mapping[str, Any] | None = None
        firings = []
        for rule in self.rules:
            if rule.stream not in ("", one.stream):
                continue
            if document is None and isinstance(rule, RegionRule | BoundaryRule):
                document = placed()
            values = _values(rule, one, document or {})
            firings += [
                Firing(
                    rule=rule.name,
                    stream=one.stream,
                    epoch=one.epoch,
                    subject=subject,
                    value=values[subject],
                    step=one.step,
                    end_sample=one.end_sample,
                    time_s=float(one.end_sample / one.sample_rate),
                    closed_ns=one.closed_ns,
                    sinks=rule.sinks,
                )
                for subject in self._ripe(rule, one.stream, values)
            ]
        new = [firing for firing in firings if firing.event_id not in self._fired]
        self._fired.update(firing.event_id for firing in new)
        return new

    def _ripe(self, rule: Rule, stream: str, values: Mapping[str, float]) -> Iterator[str]:
        """Yield the subjects that have held for as many windows as the rule wants; count for the others."""
        before = self._held.get((rule.name, stream), {})
        held: dict[str, int] = {}
        for subject, value in values.items():
            count = before.get(subject, 0)
            if value >= rule.above:
                count += 1
            elif value < rule.below:
                count = 0
            if count:
                held[subject] = count
            if count >= rule.hold and value >= rule.above:
                yield subject
        self._held[rule.name, stream] = held  # subjects that are gone are forgotten with it


def _values(rule: Rule, one: Predictions, document: Mapping[str, Any]) -> dict[str, float]:
    """Return the value of every subject of a rule."""
    if isinstance(rule, RegionRule):
        return {_shank(shank): _region(rule, shank) for shank in document.get("shanks", ())}
    if isinstance(rule, BoundaryRule):
        return {_shank(shank): _boundary(rule, shank) for shank in document.get("shanks", ())}
    called = _called(rule, one)
    if isinstance(rule, CountRule):
        return {"": float(np.count_nonzero(called))}
    return dict(zip(one.unit_ids, called.tolist(), strict=True))


def _called(rule: UnitRule | CountRule, one: Predictions) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the probability (U,) of the rule's class for units that it is called for, 0 for others."""
    task = next((task for task in one.tasks if task.name == rule.task), None)
    if task is None or rule.class_ not in task.classes:
        return np.zeros(len(one.unit_ids))
    row = task.classes.index(rule.class_)
    is_called = (task.why == Abstained.NO) & (task.probabilities.argmax(axis=1) == row)
    return np.where(is_called, task.probabilities[:, row], 0.0).astype(np.float64)


def _region(rule: RegionRule, shank: Mapping[str, Any]) -> float:
    segments = shank["segments"][:1] if rule.at_tip else shank["segments"]
    found = [
        segment["probability"]
        for segment in segments
        if segment["region"] == rule.region and segment["to_um"] - segment["from_um"] >= rule.min_um
    ]
    return float(max(found, default=0.0))


def _boundary(rule: BoundaryRule, shank: Mapping[str, Any]) -> float:
    found = [
        border["probability"]
        for border in shank["boundaries"]
        if (border["below"], border["above"]) == (rule.lower, rule.upper)
        and border["high_um"] - border["low_um"] <= rule.max_interval_um
        and border["low_um"] >= rule.min_um
    ]
    return float(max(found, default=0.0))


def _shank(shank: Mapping[str, Any]) -> str:
    return "" if shank["shank"] < 0 else f"shank {shank['shank']}"
