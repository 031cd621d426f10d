"""The writer of all sources: order, losses, epochs, units, and counters that add up."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nuclr_stream.client import Publisher
from nuclr_stream.sources import writer as writer_module
from nuclr_stream.sources.writer import StreamWriter, UnitPlace
from nuclr_stream.wire import End, SpikeBatch, UnitTable
from tests.nuclr_stream.sources.daemon_inbox import daemon_inbox

RATE = 1_000


def adds_up(writer: StreamWriter) -> bool:
    names = ("sent", "unsent", "late", "out_of_range", "unit_rejected", "overflow")
    return writer.counters["spikes_received"] == sum(writer.counters[f"spikes_{name}"] for name in names) + writer.held


def test_spikes_leave_when_the_watermark_has_passed_them() -> None:
    with daemon_inbox() as inbox:
        writer = StreamWriter(inbox.endpoint, stream="s", sample_rate=RATE, start=0)
        for sample in (30, 10, 90, 20):
            writer.spike("a", sample)
        writer.advance(50)
        assert writer.held == 1
        writer.advance(40)  # back: nothing
        writer.finish()
        writer.close()
        inbox.take(ends=1)
    batches = inbox.of(SpikeBatch)
    assert [(b.start, b.stop, b.samples.tolist()) for b in batches] == [(0, 50, [10, 20, 30]), (50, 91, [90])]
    assert writer.counters == Counter(spikes_received=4, spikes_sent=4)
    assert inbox.of(End)[0].sample == 91


def test_a_stretch_with_losses_keeps_what_came_and_the_rest_is_missing() -> None:
    with daemon_inbox() as inbox:
        writer = StreamWriter(inbox.endpoint, stream="s", sample_rate=RATE, start=0)
        writer.spike("a", 5)
        writer.spike("a", 25)
        writer.lost(20, 28)
        writer.lost(26, 40)
        writer.advance(30)
        writer.spike("a", 35)
        writer.advance(60)
        writer.finish()
        writer.close()
        inbox.take(ends=1)
    assert inbox.observed(inbox.epochs[0]) == [(0, 20), (25, 26), (35, 36), (40, 60)]
    assert sorted(sample for _, sample in inbox.spikes()) == [5, 25, 35]
    assert writer.counters["samples_lossy"] == 20


def test_much_at_once_and_long_stretches_are_cut_into_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH_SPIKES", 100)
    with daemon_inbox() as inbox:
        writer = StreamWriter(inbox.endpoint, stream="s", sample_rate=RATE, start=0)
        samples = np.random.default_rng(0).integers(0, 500, 1_000).tolist()
        for sample in samples:
            writer.spike("a", sample)
        writer.advance(500)
        writer.advance(25_000)
        writer.finish()
        writer.close()
        inbox.take(ends=1)
    batches = inbox.of(SpikeBatch)
    assert max(len(batch.samples) for batch in batches) <= 110, "a sample is never split"
    assert max(batch.stop - batch.start for batch in batches) <= 10 * RATE
    assert inbox.observed(inbox.epochs[0]) == [(0, 25_000)]
    assert inbox.spikes() == Counter(("a", sample) for sample in samples)


def test_what_a_daemon_that_is_not_there_did_not_get_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "ROOM_WAIT_S", 0.0)
    monkeypatch.setattr(writer_module, "MAX_HELD", 3)
    writer = StreamWriter("tcp://127.0.0.1:9", stream="s", sample_rate=RATE, start=10)
    for sample in (5, 20, 30, 40, 50, 2**60):
        writer.spike("a", sample)
    writer.spike("", 60)
    writer.advance(35)
    assert adds_up(writer)
    counters = dict(writer.counters)
    assert counters == {
        "spikes_received": 7,
        "spikes_late": 1,
        "spikes_overflow": 1,
        "spikes_out_of_range": 1,
        "spikes_unit_rejected": 1,
        "spikes_unsent": 2,
        "samples_lossy": 25,
    }
    assert writer.report()["messages_unsent"] > 0
    writer.close()


def test_units_come_and_go_and_places_travel_with_them() -> None:
    with daemon_inbox() as inbox:
        writer = StreamWriter(inbox.endpoint, stream="s", sample_rate=RATE, start=0)
        writer.add_unit("a", UnitPlace(channel=3, depth_um=40.0))
        writer.spike("b", 10)
        writer.advance(20)
        writer.retire(["a", "nobody"])
        writer.advance(30)
        writer.begin(1_000)
        writer.advance(1_010)
        writer.finish()
        writer.close()
        inbox.take(ends=1)
    tables = inbox.of(UnitTable)
    assert [table.unit_ids for table in tables] == [("a", "b"), ("b",), ("b",)]
    assert (tables[0].channel.tolist(), tables[0].depth_um[0]) == ([3, -1], 40.0)
    assert [table.continues for table in tables] == [False, False, True]
    assert writer.epochs == len(inbox.epochs) == 2


def test_a_publisher_begins_a_new_epoch_over_the_same_connection() -> None:
    with daemon_inbox() as inbox:
        with Publisher(inbox.endpoint, stream="s", sample_rate=RATE, start=0, epoch=7) as rig:
            rig.units(["a", "b"])
            rig.spikes([5], [1], stop=10)
            rig.restart(start=100, epoch=3, sample_rate="390625/16")
            assert rig.units(["b"], continues=True).tolist() == [0], "indices begin anew"
            rig.spikes([], [], stop=110)
            rig.end()
        messages = inbox.take(ends=1)
    assert [message.epoch for message in messages] == [7, 7, 8, 8, 8], "never below the one before"
    assert [message.seq for message in messages] == [0, 1, 0, 1, 2]
    assert str(messages[-1].sample_rate) == "390625/16"
    assert (inbox.of(UnitTable)[1].version, inbox.of(UnitTable)[1].continues) == (0, True)
    assert inbox.of(SpikeBatch)[1].start == 100
