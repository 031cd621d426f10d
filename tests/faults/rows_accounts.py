"""Rows about accounts and memory: every message counted once, every unit where it belongs, nothing that only grows."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from nuclr_stream.features.isi import Intervals
from nuclr_stream.stream.population import Population
from nuclr_stream.stream.sequence import SequenceCheck
from nuclr_stream.stream.units import Units
from nuclr_stream.stream.window import Window
from nuclr_stream.wire import Input, UnitAction, UnitTable
from tests.faults.rig import RATE, messages, model
from tests.faults.row import Outcome, Row, Size
from tests.faults.rows_recovery import UNITS, adds_up

LATENESS_S = 1.0


def population() -> Population:
    """A fresh population under the rules of the demo bundle, that waits a second for what comes late."""
    manifest = model().manifest
    return Population(
        manifest.spec, manifest.window_rules, stream="truth", lateness_s=LATENESS_S, max_units=manifest.max_units
    )


def windows(given: Population, sent: Sequence[Input]) -> list[Window]:
    """Everything that a population cuts from messages."""
    found = []
    for message in sent:
        given.push(message)
        while (window := given.cut(0)) is not None:
            found.append(window)
    return found


def alike(found: Sequence[Window], expected: Sequence[Window]) -> bool:
    """Whether windows hold the same, bit by bit."""
    names = ("counts", "active", "eligible", "intervals", "coupling", "unit_index")
    return len(found) == len(expected) and all(
        (a.end_sample, a.missing, a.exclusion) == (b.end_sample, b.missing, b.exclusion)
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)
        for a, b in zip(found, expected, strict=True)
    )


# -- R3: lost, repeated and reordered messages -------------------------------------------------------------------------


def lossy_line(seed: int, size: Size, folder: Path) -> Outcome:
    """Drop, repeat and reorder messages: the counters are the truth, repeats change nothing, reordering heals."""
    seconds = {"test": 30, "ci": 120, "long": 1800}[size]
    right, figures = _on_a_lossy_line(seed, seconds)
    with mock.patch.object(SequenceCheck, "admit", lambda self, seq: True):  # whoever does not look at the numbers
        blind, _ = _on_a_lossy_line(seed, 30)
    return Outcome(held=right, caught=not blind, figures=figures)


def _on_a_lossy_line(seed: int, seconds: int) -> tuple[bool, dict[str, Any]]:
    sent = list(messages(units=UNITS, seed=seed, stop=seconds * RATE))
    table, batches = sent[:1], sent[1:]
    expected, dice = windows(population(), sent), random.Random(seed)
    wrong: list[str] = []
    tried = 0
    for share in (0.01, 0.05, 0.2):
        tried += len(batches)
        # dropped: neither the first nor the last, or nobody could tell
        kept = [one for one in batches[1:-1] if dice.random() >= share]
        dropped, found = len(batches) - 2 - len(kept), population()
        windows(found, [*table, batches[0], *kept, batches[-1]])
        if found.counters["messages_gap"] - found.counters["messages_reordered"] != dropped:
            wrong.append(f"{share:.0%} dropped")
        repeated, again, found = [], 0, population()
        for one in batches:
            twice = dice.random() < share
            repeated += [one, one] if twice else [one]
            again += twice
        same = alike(windows(found, [*table, *repeated]), expected)
        if not same or found.counters["duplicate"] != again:
            wrong.append(f"{share:.0%} repeated")
        # within the lateness: 20 messages of 50 ms
        places = [number + (dice.uniform(1, 15) if dice.random() < share else 0) for number in range(len(batches))]
        shuffled, found = [batches[number] for number in np.argsort(places, kind="stable")], population()
        shuffled = [batches[0], *[one for one in shuffled if one is not batches[0]]]
        if not alike(windows(found, [*table, *shuffled]), expected) or found.counters["spikes_late"]:
            wrong.append(f"{share:.0%} reordered")
        if not adds_up(found.counters):
            wrong.append(f"{share:.0%} accounts")
    return not wrong, {"messages": tried, "wrong": wrong}


# -- R25: accounts -----------------------------------------------------------------------------------------------------


def accounts(seed: int, size: Size, folder: Path) -> Outcome:
    """Send anything in any order: at any time received = accepted + duplicate + rejected, for messages and spikes."""
    count = {"test": 2_000, "ci": 50_000, "long": 1_000_000}[size]
    given, checked, wrong = population(), 0, 0
    for message in _anything(seed, count):
        given.push(message)
        while given.cut(0) is not None:
            pass
        checked += 1
        wrong += not adds_up(given.counters)
    planted = given.counters + given.counters.__class__(accepted=1)
    return Outcome(
        held=not wrong,
        caught=not adds_up(planted),
        figures={"messages": checked, "wrong": wrong, "counters": dict(sorted(given.counters.items()))},
    )


def _anything(seed: int, count: int) -> Iterator[Input]:
    """Messages of a probe with other epochs, rates, numbers, origins and stretches mixed in."""
    dice, epoch, number = random.Random(seed), 1, 0
    usual = list(messages(units=UNITS, seed=seed, stop=20 * RATE))
    for _ in range(count):
        message = usual[number]
        number = (number + 1) % len(usual)
        if not number:
            epoch += 1
        message = replace(message, epoch=epoch)
        what = dice.randrange(12)
        if what == 0:
            message = replace(message, epoch=max(epoch - dice.randrange(3), 0))
        elif what == 1:
            message = replace(message, seq=dice.randrange(2**30))
        elif what == 2:
            message = replace(message, sample_rate=Fraction(dice.choice([1000, 29_999, 30_001])))
        elif what == 3:
            message = replace(message, origin=7)
        elif what == 4 and not isinstance(message, UnitTable):
            start = dice.randrange(-(10**6), 2**40)
            message = replace(message, start=start, stop=start + dice.randrange(10**7))  # type: ignore[call-arg]
        elif what == 5 and not isinstance(message, UnitTable):
            message = replace(message, units=message.units + dice.randrange(3))  # type: ignore[union-attr,call-arg]
        yield message


# -- R12: units that come and go ---------------------------------------------------------------------------------------


def churn(seed: int, size: Size, folder: Path) -> Outcome:
    """Add, retire, merge and rename units at random: who lives, under which id, and whose spikes are whose."""
    count = {"test": 1_000, "ci": 20_000, "long": 100_000}[size]
    mismatches, stretches = _churned(seed, count)
    forgetful = mock.patch.object(Units, "_rename", lambda *_: None)
    with forgetful:
        planted, _ = _churned(seed, 1_000)
    return Outcome(
        held=not mismatches,
        caught=planted > 0,
        figures={
            "changes": count,
            "mismatches": mismatches,
            "stretches_of_retired": stretches,
            "planted": planted,
        },
    )


def _churned(seed: int, count: int) -> tuple[int, int]:
    """Returns how often the table and a plain model of it differ, and in how many stretches the retired are kept."""
    dice = random.Random(seed)
    units, counters = Units(64), population().counters
    living: dict[int, str] = {}
    alias: dict[int, int] = {}
    number = mismatches = 0
    for version in range(count):
        what = dice.choice(["add", "add", "retire", "merge", "rename"]) if len(living) > 2 else "add"
        row: dict[str, Any] = {"action": UnitAction.ADD, "index": number, "into": 0, "unit_id": f"u{number}"}
        if what == "add" and len(living) < 64:
            living[number] = row["unit_id"]
            number += 1
        elif what in ("retire", "add"):
            row |= {"action": UnitAction.RETIRE, "index": dice.choice(list(living)), "unit_id": ""}
            del living[row["index"]]
        elif what == "merge":
            source, target = dice.sample(list(living), 2)
            row |= {"action": UnitAction.MERGE, "index": source, "into": target, "unit_id": ""}
            alias[source] = target
            del living[source]
        else:
            row |= {"action": UnitAction.RENAME, "index": dice.choice(list(living)), "unit_id": f"r{version}"}
            living[row["index"]] = row["unit_id"]
        units.apply(_change(version, row), np.zeros(1, dtype=np.int64), 0, counters)
        if version % 100 == 99:  # over a restart too
            saved, units = units.dump(), Units(64)
            units.load(saved)
        probes = np.array(dice.sample(range(number), min(number, 20)), dtype=np.int64)
        order = sorted(living)
        expected = [order.index(end) if (end := _end(one, alias)) in living else -1 for one in probes.tolist()]
        ids = tuple(living[index] for index in order)
        mismatches += units.ids != ids or units.rows(probes).tolist() != expected
    return mismatches, len(units.dump()["retired"]["starts"])


def _end(index: int, alias: dict[int, int]) -> int:
    while index in alias:
        index = alias[index]
    return index


def _change(version: int, row: dict[str, Any]) -> UnitTable:
    one = {"shank": np.zeros(1, np.int32), "x_um": np.zeros(1, np.float32), "depth_um": np.zeros(1, np.float32)}
    return UnitTable(
        stream="truth",
        epoch=1,
        seq=version,
        sample_rate=Fraction(RATE),
        version=version,
        full=False,
        sample=0,
        action=np.array([row["action"]], dtype=np.uint8),
        index=np.array([row["index"]], dtype=np.uint32),
        into=np.array([row["into"]], dtype=np.uint32),
        added=np.zeros(1, dtype=np.int64),
        channel=np.zeros(1, dtype=np.int32),
        unit_ids=(row["unit_id"],),
        **one,
    )


# -- D12: what only grows ----------------------------------------------------------------------------------------------


def renumbered(seed: int, size: Size, folder: Path) -> Outcome:
    """Renumber all units again and again in one epoch: intervals are kept of the living only."""
    rounds = {"test": 50, "ci": 500, "long": 5_000}[size]
    kept = _intervals_after(rounds)
    planted = _intervals_after(rounds, forgets=False)  # as it once was
    return Outcome(
        held=kept <= UNITS,
        caught=planted > UNITS,
        figures={"units_ever": rounds * UNITS, "last_spikes_kept": kept, "planted": planted},
    )


def _intervals_after(rounds: int, *, forgets: bool = True) -> int:
    intervals, ever = Intervals(Fraction(RATE)), dict[int, int]()
    for turn in range(rounds):
        index = np.arange(turn * UNITS, (turn + 1) * UNITS)
        intervals.add(np.full(UNITS, turn * RATE), index)
        intervals.take((turn + 1) * RATE, index, lambda units, first=turn * UNITS: units - first)  # type: ignore[misc]
        ever |= intervals._last
        intervals._last = intervals._last if forgets else ever
    return len(intervals.dump()["last_units"])


ROWS = (
    Row(
        id="R3",
        promise="what is lost, repeated or reordered on the way is counted exactly; repeats and late arrivals heal",
        bar="counters equal the truth at 1, 5 and 20 %; repeated and reordered messages give bitwise equal windows",
        planted="numbers that nobody looks at",
        run=lossy_line,
    ),
    Row(
        id="R25",
        promise="every message and every spike is accounted for once, at any time",
        bar="received = accepted + duplicate + rejected after each message of a wild mixture",
        planted="one message accepted twice",
        run=accounts,
    ),
    Row(
        id="R12",
        promise="units that come, go, merge and are renamed keep what is theirs, over restarts too",
        bar="0 mismatches with a plain model of the table",
        planted="renamings that are forgotten",
        run=churn,
    ),
    Row(
        id="D12-grow",
        promise="what is kept of single units is that of the living ones",
        bar="no more last spikes than units",
        planted="intervals that never forget",
        run=renumbered,
    ),
)
