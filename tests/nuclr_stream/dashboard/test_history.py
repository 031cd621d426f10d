"""The past of every unit, kept beside the page: half an hour, by unit id, of one epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nuclr_stream.dashboard.history import EVERY_S, HISTORY_S, History
from nuclr_stream.wire import Predictions
from tests.nuclr_stream.dashboard.stand_in import FakeProbe


def step(probe: FakeProbe, number: int) -> tuple[Predictions, float]:
    probe.step = number
    return probe.predictions(instance=1), 10.0 + number


def test_the_newest_point_is_always_there_and_the_others_lie_apart() -> None:
    history, probe = History(), FakeProbe("a", units=3)
    for number in range(8):
        history.add(*step(probe, number))
    assert history.of("u1").time_s.tolist() == [10.0, 13.0, 16.0, 17.0]
    assert np.diff(history.of("u1").time_s)[:-1].min() >= EVERY_S


def test_it_goes_back_for_half_an_hour() -> None:
    history, probe = History(), FakeProbe("a", units=2)
    for number in range(0, 2400, 4):
        history.add(*step(probe, number))
    time_s = history.of("u0").time_s
    assert time_s[-1] - time_s[0] <= HISTORY_S and time_s[-1] - time_s[0] > HISTORY_S - 8


def test_a_unit_is_followed_by_its_id_when_rows_move() -> None:
    history, probe = History(), FakeProbe("a", units=3)
    first, time_s = step(probe, 0)
    history.add(first, time_s)
    names = ("probabilities", "sets", "why", "stable_since")
    turned = tuple(replace(task, **{name: getattr(task, name)[::-1] for name in names}) for task in first.tasks)
    history.add(replace(first, unit_ids=first.unit_ids[::-1], tasks=turned), time_s + 5)
    found = history.of("u0").probabilities[0]
    assert len(found) == 2 and np.array_equal(found[0], found[1])
    assert len(history.of("nobody").time_s) == 0


def test_another_epoch_or_bundle_begins_a_new_history() -> None:
    history, probe = History(), FakeProbe("a", units=3)
    first, time_s = step(probe, 0)
    for other in (first, replace(first, epoch=8), replace(first, epoch=8, bundle="b", tasks=first.tasks[:1])):
        history.add(other, time_s)
        assert len(history) == 1
