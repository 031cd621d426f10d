"""The board that viewers read: probes come and go, alerts say what to do, and everything has words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nuclr_stream import wire
from nuclr_stream.dashboard.alerts import alerts_of
from nuclr_stream.dashboard.board import ABSENT, LOST_S, Board
from nuclr_stream.dashboard.probe import Probe
from nuclr_stream.dashboard.words import FEATURE_SETS, FLAGS, LOSSES, NO_LOSS, PLACEMENT, REASONS, STATES, WHY
from nuclr_stream.features.accumulator import SPIKE_SETS
from nuclr_stream.wire import Abstained, UnitFlag
from tests.nuclr_stream.dashboard.stand_in import FakeProbe

PACKAGE = Path(__file__).parents[3] / "nuclr_stream"
DAEMON = wire.DaemonState(instance=1, uptime_s=1.0, provider="CPU", bundle="b", streams=("a",))


def board_with(*fakes: FakeProbe) -> Board:
    board = Board("tcp://127.0.0.1:5582")
    for fake in fakes:
        board.take(fake.stream_state(instance=1))
        board.take(fake.predictions(instance=1))
    return board


def test_probes_are_in_the_order_of_their_names_however_they_come() -> None:
    assert list(board_with(FakeProbe("b", units=2), FakeProbe("a", units=2)).probes) == ["a", "b"]


def test_a_probe_that_the_daemon_lists_no_more_goes_but_not_for_one_state_that_is_older_than_it() -> None:
    board = board_with(FakeProbe("a", units=2), FakeProbe("b", units=2))
    for _ in range(ABSENT - 1):
        board.take(DAEMON)
    assert list(board.probes) == ["a", "b"]
    board.take(DAEMON)
    assert list(board.probes) == ["a"]


def test_without_a_daemon_the_page_says_so_and_keeps_what_it_has_as_old() -> None:
    board = board_with(FakeProbe("a", units=2))
    assert board.alerts() == []
    board.gone()
    (alert,) = board.alerts()
    assert (alert.level, board.header()["connected"], list(board.probes)) == ("error", False, ["a"])
    assert "What is shown is from before" in alert.detail
    board.take(DAEMON)
    assert board.alerts() == []


def test_events_are_kept_with_the_time_of_the_stream() -> None:
    fake = FakeProbe("a", units=2)
    board = board_with(fake)
    board.take(wire.Event(stream="a", kind="gap", detail="9 samples", epoch=7, sample=60_000, monotonic_ns=1))
    board.take(wire.Event(stream="a", kind="units_changed", epoch=8, sample=60_000, monotonic_ns=1))
    assert [(one.kind, one.sample_s) for one in board.happenings] == [("gap", 2.0), ("units_changed", None)]
    assert board.probes["a"].geometry_is_due


def test_rules_that_fire_are_among_what_happened() -> None:
    board = board_with(FakeProbe("a", units=2))
    fired = {"event_id": "1", "rule": "stimulate", "subject": "u1", "value": 0.95, "closed_ns": 1, "fired_ns": 2}
    board.take(wire.RuleFired(stream="a", epoch=7, step=3, end_sample=90_000, **fired))
    (one,) = board.happenings
    assert (one.kind, one.detail, one.sample_s) == ("rule_fired", "stimulate for u1, 0.95", 3.0)


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({"state": "degraded", "reasons": ("gap",)}, "warning", "Check the acquisition"),
        ({"state": "degraded", "reasons": ("source_silent",)}, "error", "nothing has come from the source"),
        ({"state": "degraded", "reasons": ("rejected_stale_epoch",)}, "error", "larger epoch"),
        ({"state": "degraded", "reasons": ("of_a_later_release",)}, "warning", "of a later release"),
        ({"counters": {"spikes_received": 1000, "spikes_late": 10}}, "warning", "late"),
    ],
)
def test_an_alert_says_what_is_wrong_and_what_to_do(changes: dict[str, object], level: str, says: str) -> None:
    fake, probe = FakeProbe("a", units=2), Probe("a")
    probe.take_predictions(fake.predictions(instance=1))
    probe.take_state(replace(fake.stream_state(instance=1), **changes))
    (alert,) = alerts_of([probe], lost=0)
    assert (alert.level, alert.stream) == (level, "a")
    assert says in alert.detail


def test_predictions_that_stopped_coming_are_stale_but_not_those_of_a_stream_that_ended() -> None:
    fake, probe = FakeProbe("a", units=2), Probe("a")
    probe.take_predictions(fake.predictions(instance=1))
    probe.take_state(fake.stream_state(instance=1))
    assert alerts_of([probe], lost=0) == []
    probe.received_at -= 10
    assert "no new prediction for 10 s" in alerts_of([probe], lost=0)[0].text
    probe.take_state(replace(fake.stream_state(instance=1), state="ended"))
    assert alerts_of([probe], lost=0) == []


def test_a_plan_that_does_not_fit_is_an_alert() -> None:
    fake, probe = FakeProbe("a", units=2), Probe("a")
    probe.take_state(fake.stream_state(instance=1))
    probe.placement = {"plan": [{"shank": 0, "agreement": 0.31, "offset_um": 4.0, "reason": ""}]}
    (alert,) = alerts_of([probe], lost=0)
    assert "plan" in alert.text and "31%" in alert.detail


def test_predictions_that_the_page_missed_are_counted_aloud() -> None:
    board = board_with()
    board.take(DAEMON)
    board.missed(3)
    assert "3 predictions" in board.alerts()[0].text
    board.lost_at -= LOST_S
    board.missed(3)
    assert board.alerts() == [], "after a minute without another"


def test_everything_that_can_be_said_of_a_unit_has_words() -> None:
    assert set(WHY) == set(Abstained) - {Abstained.NO}
    assert set(FLAGS) == set(UnitFlag)
    assert set(FEATURE_SETS) == set(SPIKE_SETS)


def test_every_state_reason_and_counter_of_the_daemon_has_words() -> None:
    protocol = (PACKAGE.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert set(STATES) == {"ready", "warming_up", "degraded", "ended"}
    assert set(re.findall(r"`(rejected_[a-z_]+)`", protocol)) <= set(REASONS)
    source = "".join(path.read_text(encoding="utf-8") for path in (PACKAGE / "stream").glob("*.py"))
    counted = set(re.findall(r'(?:counters|dropped)\["([a-z_]+)"\]', source))
    assert counted - {"duplicate"} <= set(LOSSES) | NO_LOSS
    assert set(PLACEMENT) <= set(re.findall(r"`([a-z_]+)`", protocol))
