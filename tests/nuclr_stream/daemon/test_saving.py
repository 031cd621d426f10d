"""Over a restart: a stream goes on as if nothing had happened, whenever its state was taken, or says why it cannot."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclr_stream import wire
from nuclr_stream.client import Publisher, Query, Subscription
from nuclr_stream.client.replay import replay
from nuclr_stream.config import Settings
from nuclr_stream.daemon import saving
from nuclr_stream.daemon.saving import Saver, taken
from nuclr_stream.daemon.streams import CATCH_UP_AT_LEAST_NS, CATCH_UP_AT_MOST_NS, Stream, Streams
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.snapshots.pack import pack, unpack
from nuclr_stream.stream.labeler import Labelled
from nuclr_stream.wire import Input, Predictions, UnitAction
from tests.nuclr_stream.conftest import assert_same, running, until, where
from tests.nuclr_stream.streams import Source

MS = 10**6


def fresh(model: Model, **settings: Any) -> Streams:
    return Streams(model, Settings(**settings), instance=1)


def told(streams: Streams, messages: Sequence[Input], *, now_ns: int = 0) -> list[Predictions]:
    """What a stream predicts for messages, labelled one window after the other as the worker would."""
    found = []
    for message in messages:
        stream = streams.of(message, now_ns)
        assert stream is not None
        todo = list(stream.take(message, now_ns))
        while todo:
            found.append(published(stream, todo.pop(0)).predictions)
            todo += stream.cut(now_ns)
    return found


def published(stream: Stream, window: Any) -> Labelled:
    return stream.published(stream.labeler.label(window), 0)


def state_of(streams: Streams, name: str = "probeA") -> Any:
    """The state of a stream, as it comes back from a file."""
    stream = streams.get(name)
    assert stream is not None
    state = taken(stream, stream.labeler.population.dump(), stream.labeler.dump_model_side())
    return unpack(b"".join(pack(state)))


def eventful() -> list[Input]:
    """22 s in which units fire, merge, are renamed, reset, retired and added, with a gap, a mask, and a new epoch."""
    source = Source(epoch=3)
    messages: list[Input] = [source.units(14), *(source.busy(500 * k, 500 * (k + 1)) for k in range(23))]
    messages += [source.table([(UnitAction.MERGE, 3, 4), (UnitAction.RENAME, 5, "five"), (UnitAction.RESET, 6, "")])]
    messages += [source.mask(12_100, 12_110), *(source.busy(500 * k, 500 * (k + 1)) for k in range(24, 30))]
    messages += [source.table([(UnitAction.RETIRE, 7, ""), (UnitAction.ADD, 20, "u20"), (UnitAction.MERGE, 4, 2)])]
    messages += [source.busy(500 * k, 500 * (k + 1), 14) for k in range(30, 44)]
    again = Source(epoch=4)
    messages += [again.table([(UnitAction.ADD, i, f"u{i}") for i in range(12)], full=True, continues=True)]
    return [*messages, *(again.busy(500 * k, 500 * (k + 1)) for k in range(24))]


@pytest.mark.parametrize("half_life_s", [None, 4.0])
def test_a_stream_that_is_restored_goes_on_as_if_nothing_had_happened(
    tiny_model: Model, half_life_s: float | None
) -> None:
    settings = {} if half_life_s is None else {"half_life_s": half_life_s}
    messages = eventful()
    expected = told(fresh(tiny_model, **settings), messages)
    assert len(expected) > 12
    for place in range(5, len(messages), 23):
        before, after = fresh(tiny_model, **settings), fresh(tiny_model, **settings)
        found = told(before, messages[:place])
        assert after.restore("probeA", state_of(before), 0) == ""
        found += told(after, messages[place:])
        assert_same(found, expected)
        assert [one.seq for one in found] == [one.seq for one in expected]
        one, other = after.get("probeA"), before.get("probeA")
        assert one is not None and other is not None
        assert one.state.counters["accepted"] == len(messages)


def test_a_merged_index_stands_for_its_target_after_a_restart(tiny_model: Model) -> None:
    streams, again, source = fresh(tiny_model), fresh(tiny_model), Source()
    told(streams, [source.units(), source.table([(UnitAction.MERGE, 1, 0)]), source.busy(0, 500)])
    again.restore("probeA", state_of(streams), 0)
    told(again, [source.busy(500, 1000)])
    stream = again.get("probeA")
    assert stream is not None
    assert "spikes_unknown_unit" not in stream.state.counters


def test_a_stream_belongs_to_the_same_key_after_a_restart(tiny_model: Model) -> None:
    streams, again = fresh(tiny_model), fresh(tiny_model)
    told(streams, [Source().units()])
    stream = streams.get("probeA")
    assert stream is not None
    stream.owner = "key of the rig"
    again.restore("probeA", state_of(streams), 0)
    assert [one.owner for one in again] == ["key of the rig"]


def test_predictions_from_before_are_there_at_once(tiny_model: Model) -> None:
    streams, again, source = fresh(tiny_model), fresh(tiny_model), Source()
    (last,) = told(streams, [source.units(), source.busy(0, 10_000)])
    again.restore("probeA", state_of(streams), 0)
    stream = again.get("probeA")
    assert stream is not None and stream.current is not None
    assert_same([stream.current.predictions], [last])
    assert stream.state.state == "ready"


@pytest.mark.parametrize(
    ("settings", "words"), [({"hop_s": 2.0}, "hop_s = 1.0"), ({"half_life_s": 9.0}, "half_life_s = None")]
)
def test_a_state_of_other_settings_is_not_taken(tiny_model: Model, settings: dict[str, Any], words: str) -> None:
    streams = fresh(tiny_model)
    told(streams, [Source().units()])
    assert words in fresh(tiny_model, **settings).restore("probeA", state_of(streams), 0)


def test_a_state_of_another_bundle_is_not_taken(tiny_model: Model) -> None:
    streams = fresh(tiny_model)
    told(streams, [Source().units()])
    state = state_of(streams)
    state["fingerprint"]["bundle"] = "another"
    assert "bundle = another" in fresh(tiny_model).restore("probeA", state, 0)


def test_no_more_streams_come_back_than_there_are_places(tiny_model: Model) -> None:
    streams, small = fresh(tiny_model), fresh(tiny_model, max_streams=1)
    told(streams, [Source().units()])
    assert small.restore("probeA", state_of(streams), 0) == ""
    assert "all 1 places are taken" in small.restore("probeB", state_of(streams), 0)


# -- catching up ------------------------------------------------------------------------------------------------------


def restored(model: Model) -> tuple[Stream, Source]:
    streams, again, source = fresh(model), fresh(model), Source()
    told(streams, [source.units(), *(source.busy(1000 * s, 1000 * (s + 1)) for s in range(10))])
    again.restore("probeA", state_of(streams), 0)
    stream = again.get("probeA")
    assert stream is not None
    return stream, source


def test_a_restored_stream_labels_every_window_that_is_replayed(tiny_model: Model) -> None:
    stream, source = restored(tiny_model)
    (first,) = stream.take(source.busy(10_000, 14_000), 0)
    stream.in_work = 1
    assert list(stream.take(source.busy(14_000, 15_000), 0)) == [], "one at a time"
    stream.in_work = 0
    steps = [first.step]
    while window := next(stream.cut(0), None):
        steps.append(window.step)
    assert steps == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("later_ns", [CATCH_UP_AT_LEAST_NS, CATCH_UP_AT_MOST_NS])
def test_catching_up_ends_when_there_is_nothing_left_or_it_takes_too_long(tiny_model: Model, later_ns: int) -> None:
    stream, source = restored(tiny_model)
    list(stream.take(source.busy(10_000, 11_000), 1))
    list(stream.cut(2))
    assert stream.catching_up
    busy = later_ns == CATCH_UP_AT_MOST_NS
    list(stream.take(source.busy(11_000, 13_000 if busy else 11_100), 2 + later_ns))
    assert not stream.catching_up


def test_a_source_that_was_there_before_the_daemon_is_caught_up_with_too(tiny_model: Model) -> None:
    source = Source()
    source.seq = 41
    streams = fresh(tiny_model)
    told(streams, [source.units()])
    stream = streams.get("probeA")
    assert stream is not None and stream.catching_up


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[Saver]:
    made = Saver(tmp_path / "kept", every_s=1.0)
    yield made
    made.close()


def test_a_state_is_wanted_once_an_interval(saver: Saver) -> None:
    assert saver.wants("a", 0)
    saver.save("a", {}, 0)
    assert not saver.wants("a", 999 * MS)
    assert saver.wants("b", 0)


def test_a_slow_disk_is_given_no_more_states_and_said_to_fail(
    saver: Saver, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go = threading.Event(), threading.Event()

    def slow(self: Any, stream: str, state: Any) -> int:
        writing.set()
        go.wait(10)
        return 0

    monkeypatch.setattr(saving.SnapshotFolder, "write", slow)
    saver.restore(fresh(tiny_model), 0)
    saver.save("a", {}, 0)
    assert writing.wait(10)
    assert not saver.wants("a", 5_000 * MS), "the one before is not written yet"
    assert not saver.failing(5_000 * MS)
    assert saver.failing(11_000 * MS)
    go.set()
    saver.close()
    assert not saver.failing(20_000 * MS)


def test_an_error_of_the_disk_is_counted_logged_once_and_over_when_it_is(
    saver: Saver, tiny_model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors = iter([OSError(28, "No space left on device")] * 2)
    write = saving.SnapshotFolder.write

    def full(self: Any, stream: str, state: Any) -> int:
        for error in errors:
            raise error
        return write(self, stream, state)

    monkeypatch.setattr(saving.SnapshotFolder, "write", full)
    monkeypatch.setattr(saver, "_every_ns", 0)
    with caplog.at_level(logging.WARNING):
        saver.restore(fresh(tiny_model), 0)
        for name in "abc":
            saver.save(name, {}, 0)
        saver.close(wait_s=10.0)
    assert (saver.figures.failed, saver.figures.written, saver.figures.error) == (2, 1, "")
    assert [record.message for record in caplog.records] == [
        "snapshot of stream 'a' not written: [Errno 28] No space left on device",
        "snapshots are written again",
    ]


def test_no_more_is_written_than_the_rate_allows(
    saver: Saver, tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []
    wait_for = threading.Condition.wait_for

    def noted(self: Any, predicate: Any, timeout: float | None = None) -> Any:
        if timeout is not None:
            pauses.append(timeout)
            return False
        return wait_for(self, predicate)

    monkeypatch.setattr(saving.SnapshotFolder, "write", lambda *_: 4 * saving.MAX_WRITE_BYTES_PER_S)
    monkeypatch.setattr(threading.Condition, "wait_for", noted)
    saver.restore(fresh(tiny_model), 0)
    saver.save("a", {}, 0)
    saver.close(wait_s=10.0)
    assert len(pauses) == 1
    assert 3 < pauses[0] <= 4, "four seconds' worth was written"


def test_what_cannot_be_used_is_logged_with_its_reason(
    tiny_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Saver(tmp_path / "kept", every_s=1.0)
    streams = fresh(tiny_model)
    told(streams, [Source().units()])
    first.restore(streams, 0)
    first.save("probeA", state_of(streams), 0)
    first.save("odd", {"fingerprint": state_of(streams)["fingerprint"]}, 0)
    first.close(wait_s=10.0)
    again = Saver(tmp_path / "kept", every_s=1.0)
    found = fresh(tiny_model)
    again.restore(found, 0)
    again.close()
    assert [stream.name for stream in found] == ["probeA"]
    assert "snapshot of stream 'odd' not used: its content is not that of this release (KeyError: 'population')" in (
        record.message for record in caplog.records
    )
    assert "stream 'odd' starts anew: no snapshot of it can be used" in (record.message for record in caplog.records)


# -- a whole daemon ---------------------------------------------------------------------------------------------------


def test_a_daemon_that_ended_goes_on_where_it_was(tiny_model: Model, recording: Recording, tmp_path: Path) -> None:
    with running(tiny_model, snapshots=str(tmp_path / "kept")) as daemon:
        last = [one.predictions for one in replay(recording, **where(daemon))][-1]
    with (
        running(tiny_model, snapshots=str(tmp_path / "kept")) as again,
        Subscription("random_0", **where(again, "results", "query")) as late,
    ):
        found = until(late, lambda message: isinstance(message, Predictions))
        assert_same([found], [last])
        with Query(again.endpoints["query"]) as query:
            assert query.status()["streams"]["random_0"]["state"] == "ended"


def test_a_source_sends_again_what_a_new_daemon_does_not_have(tiny_model: Model, recording: Recording) -> None:
    """The first daemon goes without a trace; what the second one predicts is what the first had predicted."""
    block = 1_500
    with running(tiny_model) as daemon:
        ports = {f"{name}_endpoint": daemon.endpoints[name] for name in ("data", "results", "query")}
        rig = Publisher(
            ports["data_endpoint"], stream="rig", sample_rate=30_000, query=ports["query_endpoint"], epoch=5
        )
        index = rig.units([f"u{row}" for row in range(20)])
        with Subscription("rig", **where(daemon, "results", "query")) as client:
            until(client, lambda message: isinstance(message, wire.DaemonState))
            publish(rig, recording, index, stop=11 * 30_000, block=block)
            first = until(client, lambda m: isinstance(m, Predictions) and m.end_sample >= 10 * 30_000)
            until(client, lambda m: isinstance(m, wire.StreamState) and m.watermark == 11 * 30_000)
    with (
        running(tiny_model, **ports) as again,
        rig,
        Subscription("rig", **where(again, "results", "query")) as client,
    ):
        until(client, lambda message: isinstance(message, wire.DaemonState))
        found = None
        while found is None:  # the new one knows nothing until it is sent again, beside what comes anew
            publish(rig, recording, index, stop=rig.watermark + block, block=block)
            message = client.receive(0.02)
            if isinstance(message, Predictions) and message.end_sample >= 10 * 30_000:
                found = message
    assert_same([found], [first])
    assert rig.unsent == 0


def publish(rig: Publisher, recording: Recording, index: np.ndarray, *, stop: int, block: int) -> None:
    while rig.watermark < stop:
        first, last = np.searchsorted(recording.spike_samples, [rig.watermark, rig.watermark + block])
        spikes = recording.spike_samples[first:last], index[recording.spike_units[first:last]]
        rig.spikes(*spikes, stop=rig.watermark + block)
