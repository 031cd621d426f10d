"""What doctor sees between two looks at a running daemon, in words, and the exit code for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq

from nuclr_stream import wire
from nuclr_stream.client import Publisher, Subscription
from nuclr_stream.commands import doctor
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.recordings.recording import Recording
from tests.nuclr_stream.conftest import until, where
from tests.nuclr_stream.wire_examples import MESSAGES

RunDaemon = Callable[..., Daemon]
Diagnose = Callable[[Callable[[], None]], list[doctor.Finding]]


@pytest.fixture
def diagnose(run_daemon: RunDaemon, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> Iterator[Diagnose]:
    """Look at a daemon, and have something happen between the two looks."""
    monkeypatch.setattr(doctor, "shipped_bundles", lambda: [str(tiny_bundle)])
    daemon = run_daemon()
    places = where(daemon)

    def look(meanwhile: Callable[[], None]) -> list[doctor.Finding]:
        monkeypatch.setattr(doctor, "_last_message", lambda results, query: meanwhile() or [])
        return doctor.diagnose(**places)

    look.places = places  # type: ignore[attr-defined]
    yield look


@pytest.fixture
def rig(diagnose: Diagnose, recording: Recording) -> Iterator[tuple[Publisher, Callable[[float], None]]]:
    """A source that has sent 11 s, and a function that sends more and waits until the daemon has taken it."""
    places = diagnose.places  # type: ignore[attr-defined]
    with (
        Publisher(places["data"], stream="rig", sample_rate=30_000, start=0) as publisher,
        Subscription("rig", results=places["results"], query=places["query"]) as subscription,
    ):
        index = publisher.units(recording.unit_ids.tolist())

        def send(seconds: float) -> None:
            stop = publisher.watermark + int(30_000 * seconds)
            for start in range(publisher.watermark, stop, 15_000):
                samples, units = recording.spikes(start, min(start + 15_000, stop))
                publisher.spikes(samples, index[units], stop=min(start + 15_000, stop))
            until(subscription, lambda m: isinstance(m, wire.StreamState) and m.watermark == stop)

        send(11.0)
        until(subscription, lambda m: isinstance(m, wire.StreamState) and m.step >= 0)
        yield publisher, send


def words(findings: list[doctor.Finding], verdict: str) -> str:
    return "\n".join(finding.text for finding in findings if finding.verdict == verdict)


def codes(findings: list[doctor.Finding]) -> set[int]:
    return {finding.code for finding in findings if finding.verdict == "bad"}


def test_rates_the_pace_of_the_clock_and_the_answers_are_told(
    diagnose: Diagnose, rig: tuple[Publisher, Callable[[float], None]]
) -> None:
    found = diagnose(lambda: rig[1](2.0))
    good, note = words(found, "good"), words(found, "note")
    assert "stream rig: " in good and "spikes a second" in good and "a unit" in good
    assert "its device clock runs at" in note, "two seconds of it in much less"
    assert "cell_type" in note and "of 20 called" in note
    assert not codes(found)


def test_what_is_lost_meanwhile_is_a_fault_of_the_data(
    diagnose: Diagnose, rig: tuple[Publisher, Callable[[float], None]]
) -> None:
    publisher, send = rig

    def lossy() -> None:
        publisher.skip(publisher.watermark + 3_000)
        publisher._seq += 2  # two messages that never arrived
        send(1.0)

    found = diagnose(lossy)
    assert "samples_missing 3000, messages_gap 2" in words(found, "bad")
    assert doctor.DATA in codes(found)


def test_a_source_that_only_says_it_is_alive_stands_still(
    diagnose: Diagnose, rig: tuple[Publisher, Callable[[float], None]]
) -> None:
    publisher, _ = rig

    def alive() -> None:
        publisher.heartbeat()
        with zmq.Context() as context, context.socket(zmq.PAIR) as nothing:
            nothing.poll(200)

    found = diagnose(alive)
    assert "its watermark stands still" in words(found, "bad")
    assert codes(found) == {doctor.SOURCE}


def test_a_source_that_sends_nothing_is_a_fault_of_the_source(
    diagnose: Diagnose, rig: tuple[Publisher, Callable[[float], None]]
) -> None:
    found = diagnose(lambda: None)
    assert "nothing came for" in words(found, "bad")
    assert codes(found) == {doctor.SOURCE}


def test_where_no_stream_is_the_acquisition_systems_that_listen_are_named(
    diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zmq.Context() as context, context.socket(zmq.REP) as listening:
        port = listening.bind_to_random_port("tcp://127.0.0.1")
        monkeypatch.setattr(doctor, "VENDOR_PORTS", {port: "the GUI", 9: "nobody"})
        found = diagnose(lambda: None)
    assert f"port {port} answers: the GUI" in words(found, "note")
    assert "nobody" not in words(found, "note")
    assert codes(found) == {doctor.SOURCE}


def test_every_reason_of_a_stream_is_in_plain_words() -> None:
    stream = {"state": "degraded", "units": 3, "step": 4, "reasons": ["gap", "source_silent"], "progress": 1.0}
    found = doctor._stream("rig", stream, {"window_s": 10.0})
    assert "too much of the last window is missing" in found.text
    assert "nothing has come from the source for 2 s" in found.text
    assert (found.verdict, found.code) == ("bad", doctor.SOURCE)


def test_unsorted_units_are_counted() -> None:
    made = next(one for one in MESSAGES.values() if isinstance(one, wire.Predictions) and len(one.unit_ids))
    flags = np.full(len(made.unit_ids), wire.UnitFlag.UNSORTED | wire.UnitFlag.OOD_RATE, dtype=np.uint8)
    assert f"{len(flags)} look unsorted" in doctor._answers(replace(made, flags=flags)).text
    assert "unsorted" not in doctor._answers(replace(made, flags=flags * 0)).text
