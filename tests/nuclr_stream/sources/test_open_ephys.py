"""Open Ephys as a source: captures of the real GUI over real sockets, and what those do not hold from a stand-in."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from nuclr_stream.sources.open_ephys import PLUGINS, OpenEphysMessages, OpenEphysSource
from nuclr_stream.sources.open_ephys_stream import LOOK_BACK
from nuclr_stream.sources.vendor_socket import VendorSocket
from nuclr_stream.sources.writer import stream_id
from nuclr_stream.wire import End, MaskInterval, SpikeBatch, UnitTable
from tests.nuclr_stream.sources.daemon_inbox import Inbox, daemon_inbox
from tests.nuclr_stream.sources.open_ephys_gui import CAPTURES, STREAM, Gui, captured, publishing

Frames = Sequence[bytes]
FILES = {"zmq": "zmq_interface.msgpack.xz", "broadcaster": "event_broadcaster.msgpack"}


def reading(address: str, messages: OpenEphysMessages, **options: Any) -> OpenEphysSource:
    """The source at host:port."""
    host, port = address.split(":")
    return OpenEphysSource(host, int(port), messages, **options)


def carried(messages: Sequence[Frames], *, plugin: str = "zmq", ends: int) -> tuple[Inbox, OpenEphysSource]:
    """Publish messages as the GUI does, read them with the source, and return what the daemon got."""
    with daemon_inbox() as inbox, publishing() as (address, publish):
        source = reading(address, OpenEphysMessages(endpoint=inbox.endpoint, parse=PLUGINS[plugin].parse))
        publish(messages)
        while source.messages.counters["messages"] < len(messages):
            assert source.turn(5.0)
        source.close()
        inbox.take(ends=ends)
    return inbox, source


def in_process(inbox: Inbox, messages: Sequence[Frames], *, ends: int = 1, **options: object) -> OpenEphysMessages:
    """The same without the GUI's socket, for what does not depend on it."""
    source = OpenEphysMessages(endpoint=inbox.endpoint, **options)  # type: ignore[arg-type]
    for frames in messages:
        source.take(frames)
    source.finish()
    inbox.take(ends=ends)
    return source


def told(messages: Sequence[Frames]) -> list[tuple[str, int]]:
    """(unit id, sample) of the sorted spikes of a ZMQ Interface, read without the source."""
    bodies = [json.loads(frames[1]).get("spike") for frames in messages]
    return [
        (f"{b['source_node']}/{b['electrode']}/{b['sorted_id']}", b["sample_num"])
        for b in bodies
        if b and b["sorted_id"]
    ]


def accounted(source: OpenEphysMessages) -> bool:
    """Whether every spike that came is in exactly one of the counters."""
    for stream in source.streams.values():
        own, writer = stream.counters, stream.writer
        received = 0 if writer is None else writer.counters["spikes_received"]
        names = ("spikes_unsorted", "spikes_late", "spikes_out_of_range", "spikes_waiting_dropped")
        if own["spikes_seen"] != received + sum(own[name] for name in names) + stream.waiting:
            return False
        if writer is not None:
            names = ("sent", "unsent", "late", "out_of_range", "unit_rejected", "overflow")
            if received != sum(writer.counters[f"spikes_{name}"] for name in names) + writer.held:
                return False
    return True


# -- the real GUI -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", FILES)
def test_every_planted_spike_of_the_real_gui_arrives_under_its_unit(plugin: str) -> None:
    messages = captured(FILES[plugin])
    truth = np.load(CAPTURES / "truth.npz")
    inbox, source = carried(messages, plugin=plugin, ends=3 if plugin == "zmq" else 2)
    node = 102 if plugin == "zmq" else 105  # the broadcaster gives its own id for the detector's
    electrode = {1: "Tetrode 1", 2: "Tetrode 1", 3: "Stereotrode 1"}
    # the file was played once, looped at 24 s, and went on from there after the restart
    planted = list(zip(truth["sample"].tolist(), truth["unit"].tolist(), strict=True))
    passes = [planted, [(sample, unit) for sample, unit in planted if sample < 387_500]]
    found = [inbox.spikes(inbox.epochs[0]), sum((inbox.spikes(epoch) for epoch in inbox.epochs[1:]), Counter())]
    for expected, arrived in zip(passes, found, strict=True):
        left = Counter(arrived)
        for sample, unit in expected:
            if unit in electrode:
                name = f"{node}/{electrode[unit]}/{unit}"
                near = [one for one in left.elements() if one[0] == name and abs(one[1] - sample) <= 4]
                assert near, (name, sample)
                left -= Counter([near[0]])
        assert not left
    stream = source.messages.streams["Golden_Source-100.ProbeA"]
    assert stream.unsorted == Counter({"Electrode 1": 230})
    assert (stream.counters["spikes_seen"], stream.counters["ttl_events"]) == (1142, 136)
    assert accounted(source.messages)


def test_the_epochs_of_the_real_gui_are_its_file_loop_and_its_restart() -> None:
    inbox, source = carried(captured(FILES["zmq"]), ends=3)
    assert [inbox.observed(epoch) for epoch in inbox.epochs] == [
        [(0, 720_360)],
        [(360 - LOOK_BACK, 149_304)],
        [(149_304, 388_728)],
    ]
    assert [end.sample for end in inbox.of(End)] == [720_360, 149_304, 388_728]
    tables = {table.epoch: table for table in reversed(inbox.of(UnitTable))}
    assert [tables[epoch].continues for epoch in inbox.epochs] == [False, True, True], "units keep their exposure"
    assert source.messages.counters["restarts"] == 1
    assert "messages_lost" not in source.messages.counters
    assert source.notes()[:2] == [
        "stream Golden_Source-100.ProbeA: the device clock went back from sample 720360 to 360",
        "stream Golden_Source-100.ProbeA: acquisition started again",
    ]


@pytest.mark.parametrize("seed", range(3))
def test_lost_messages_of_the_real_gui_are_counted_exactly_and_their_stretches_are_missing(seed: int) -> None:
    messages = captured(FILES["zmq"])
    rng = np.random.default_rng(seed)
    numbers = [json.loads(frames[1])["message_num"] for frames in messages]
    dropped = rng.random(len(messages)) < 0.02
    dropped[[0, -1]] = False  # of what came before the first and after the last nothing can be known
    kept = [frames for frames, is_lost in zip(messages, dropped, strict=True) if not is_lost]
    with daemon_inbox() as inbox:
        source = in_process(inbox, kept, ends=3)
    restart = numbers.index(1, 1)
    tail = restart - 1 - max(row for row in range(restart) if not dropped[row])  # lost unseen before the restart
    assert source.counters["messages_lost"] == dropped.sum() - tail
    assert inbox.spikes() == Counter(told(kept)), "what came through is there, and nothing else"
    assert accounted(source)
    loop = next(row for row, number in enumerate(numbers) if number == 2913)
    lost = [json.loads(m[1]).get("spike") for m, is_lost in zip(messages[:loop], dropped, strict=False) if is_lost]
    came = {sample for _, sample in inbox.spikes(inbox.epochs[0])}  # two may have fired at one sample
    samples = [body["sample_num"] for body in lost if body and body["sample_num"] not in came]
    covered = inbox.observed(inbox.epochs[0])
    assert samples
    assert not [s for s in samples if any(a <= s < b for a, b in covered)], "no loss counts as observed silence"


def test_names_outside_ascii_cut_the_header_and_nothing_is_lost() -> None:
    gui = Gui(stream="Sonde-é-探针", channels=2)
    messages = [frames for k in range(5) for frames in gui.block([(gui.sample + 40, 1, "Électrode 1")])]
    with pytest.raises(ValueError, match=r"char \d+"):
        json.loads(messages[0][1])
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages)
    assert inbox.spikes() == Counter(("102/Électrode 1/1", 696 * k + 40) for k in range(5))
    assert list(source.streams) == ["Sonde-é-探针"]
    assert not [name for name in source.counters if name.startswith("malformed")]


# -- epochs -----------------------------------------------------------------------------------------------------------


def test_a_file_loop_inside_a_block_leaves_spikes_at_negative_samples() -> None:
    gui = Gui()
    messages = gui.block([(100, 1, "A")]) + gui.block([(800, 1, "A")])
    gui.sample = 50
    messages += gui.block([(-47, 1, "A"), (60, 2, "B")])  # the detector looked back across the seam
    gui.sample = -200
    messages += gui.block([(-290, 2, "B"), (-5, 1, "A")])
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages, ends=3)
    assert [sorted(inbox.spikes(epoch)) for epoch in inbox.epochs] == [
        [("102/A/1", 100), ("102/A/1", 800)],
        [("102/A/1", -47), ("102/B/2", 60)],
        [("102/A/1", -5), ("102/B/2", -290)],
    ]
    assert [batch.start for batch in inbox.of(SpikeBatch) if batch.seq == 1] == [0, 50 - LOOK_BACK, -200 - LOOK_BACK]
    assert accounted(source)


def test_a_gui_that_is_killed_and_comes_back_begins_a_new_epoch() -> None:
    with daemon_inbox() as inbox:
        gui = Gui()
        with publishing() as (address, publish):
            source = reading(address, OpenEphysMessages(endpoint=inbox.endpoint))
            publish(gui.block([(10, 1, "A")]) + gui.block([(900, 1, "A")]))
            while source.messages.counters["messages"] < 4:
                source.turn(5.0)
        gui = Gui()
        with publishing(int(address.split(":")[1])) as (_, publish):
            # a subscription is made again by the thread that reads, so this one cannot wait for it
            back = threading.Thread(target=publish, args=(gui.block([(20, 1, "A")]) + gui.block(),))
            back.start()
            while source.messages.counters["messages"] < 7:
                source.turn(5.0)
            back.join()
            source.close()
        inbox.take(ends=2)
    assert [sorted(inbox.spikes(epoch)) for epoch in inbox.epochs] == [
        [("102/A/1", 10), ("102/A/1", 900)],
        [("102/A/1", 20)],
    ]
    assert (source.messages.counters["restarts"], source.messages.counters["messages_lost"]) == (1, 0)


def test_messages_lost_after_a_restart_are_counted_from_its_number_one() -> None:
    gui = Gui()
    messages = gui.block([(10, 1, "A")]) + gui.block()
    gui.start()
    missed = gui.block([(1500, 1, "A")])
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages + gui.block([(2200, 1, "A")]), ends=2)
    assert (source.counters["restarts"], source.counters["messages_lost"]) == (1, len(missed))


def test_the_message_number_may_overflow_its_32_bits() -> None:
    gui = Gui()
    gui.number = 2**31 - 3
    messages = gui.block([(10, 1, "A")])
    gui.number = -(2**31) - 1
    messages += gui.block([(700, 1, "A")])
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages)
    assert not source.counters["restarts"] and not source.counters["messages_lost"]


def test_another_sample_rate_is_a_new_epoch() -> None:
    slow, fast = Gui(rate=30_000.0), Gui(rate=40_000.0)
    fast.number, fast.sample = 2, 696
    with daemon_inbox() as inbox:
        in_process(inbox, slow.block([(10, 1, "A")]) + fast.block([(700, 1, "A")]), ends=2)
    rates = dict.fromkeys(str(batch.sample_rate) for batch in inbox.of(SpikeBatch))
    assert list(rates) == ["30000", "40000"]


# -- order and losses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [32, 174, 696])
def test_bursts_in_any_order_are_sorted_under_the_watermark(block: int) -> None:
    rng = np.random.default_rng(block)
    gui, messages, expected = Gui(block=block), [], []
    for _ in range(400):
        # a spike may carry a number of up to 97 samples before its own block
        samples = rng.integers(max(gui.sample - 97, 0), gui.sample + block, rng.poisson(3)).tolist()
        spikes = [(int(sample), int(rng.integers(1, 5)), f"E{rng.integers(3)}") for sample in samples]
        expected += [(f"102/{electrode}/{unit}", sample) for sample, unit, electrode in spikes]
        messages += gui.block(spikes)
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages)
    assert inbox.spikes() == Counter(expected)
    assert inbox.observed(inbox.epochs[0]) == [(0, 400 * block)]
    assert accounted(source)


def test_without_data_messages_nothing_is_late_either() -> None:
    rng = np.random.default_rng(5)
    gui, messages, expected = Gui(channels=0), [], []
    for _ in range(300):
        samples = rng.integers(max(gui.sample - 97, 0), gui.sample + 696, 4).tolist()
        expected += [("102/A/1", int(sample)) for sample in samples]
        messages += gui.block([(int(sample), 1, "A") for sample in samples])
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages, sample_rate=30_000)
    assert inbox.spikes() == Counter(expected)
    assert accounted(source)
    assert len(inbox.epochs) == 1


def test_without_data_messages_a_loop_is_a_new_epoch_and_a_long_silence_is_missing() -> None:
    gui = Gui(channels=0)
    before = [(sample, 1, "A") for sample in range(0, 60_000, 500)]
    after = [(sample, 1, "A") for sample in range(200_000, 240_000, 500)]
    looped = [(sample, 1, "A") for sample in range(0, 9_000, 500)]
    messages = [gui.spike(*one) for one in before + after + looped]
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages, sample_rate=30_000, ends=2)
    assert [sorted(sample for _, sample in inbox.spikes(epoch)) for epoch in inbox.epochs] == [
        [sample for sample, *_ in before + after],
        [sample for sample, *_ in looped],
    ]
    assert inbox.observed(inbox.epochs[0]) == [(0, 59_501), (200_000, 239_501)]
    assert accounted(source)


def test_a_spike_that_is_too_late_is_counted_and_one_at_an_absurd_sample_too() -> None:
    gui = Gui()
    messages = gui.block([(10, 1, "A")]) + gui.block() + gui.block()
    messages += [gui.spike(300, 1, "A"), gui.spike(10_000_000, 1, "A"), gui.spike(2**60, 1, "A")]
    messages += gui.block([(2100, 1, "A")]) + gui.block()
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages)
    assert sorted(inbox.spikes()) == [("102/A/1", 10), ("102/A/1", 2100)]
    counters = source.streams[STREAM].counters
    assert (counters["spikes_late"], counters["spikes_out_of_range"]) == (1, 2)
    assert accounted(source)


def test_a_jump_of_the_device_clock_is_missing_not_silent() -> None:
    gui = Gui()
    messages = gui.block([(10, 1, "A")])
    gui.sample = 50_000
    messages += gui.block([(50_020, 1, "A")])
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages)
    assert inbox.observed(inbox.epochs[0]) == [(0, 696), (50_000, 50_696)]
    assert source.streams[STREAM].counters["samples_skipped"] == 50_000 - 696


def test_a_source_that_was_held_up_loses_nothing_that_the_gui_sent() -> None:
    gui, messages = Gui(), []
    for _ in range(1_000):
        messages += gui.block([(gui.sample + step, 1, "A") for step in (5, 100, 400)])
    with daemon_inbox() as inbox, publishing() as (address, publish):
        source = reading(address, OpenEphysMessages(endpoint=inbox.endpoint))
        publish(messages)  # four times ZeroMQ's default queue, before the source takes its first
        while source.messages.counters["messages"] < len(messages):
            assert source.turn(5.0)
        source.close()
        inbox.take(ends=1)
    assert sum(inbox.spikes().values()) == 3_000
    assert not source.messages.counters["messages_lost"]


def test_what_finds_no_room_in_the_bounded_queue_is_counted() -> None:
    gui = Gui(channels=0)
    with publishing() as (address, publish):
        socket = VendorSocket(f"tcp://{address}", "test", max_bytes=50_000)
        publish([gui.spike(sample, 1, "A") for sample in range(2_000)])
        taken = 0
        while socket.receive(0.0 if taken + socket.dropped == 2_000 else 5.0) is not None:
            taken += 1
        assert socket.close() == 0
    assert 0 < taken < 100
    assert taken + socket.dropped == 2_000


# -- what is not a sorted spike ---------------------------------------------------------------------------------------


def test_spikes_wait_for_the_sample_rate_and_are_counted_when_it_never_comes() -> None:
    gui = Gui(channels=0)
    messages = [frames for _ in range(5) for frames in gui.block([(gui.sample + 3, 1, "A")])]
    with daemon_inbox() as inbox:
        source = OpenEphysMessages(endpoint=inbox.endpoint)
        for frames in messages:
            source.take(frames)
        assert source.streams[STREAM].waiting == 5
        gui.channels = 1
        for frames in gui.block():
            source.take(frames)  # the DATA message tells the rate, and that these came before it began
        source.finish()
    assert source.streams[STREAM].counters["spikes_late"] == 5
    assert accounted(source)


def test_only_the_streams_that_are_asked_for_are_read() -> None:
    one, other = Gui(stream="ProbeA"), Gui(stream="ProbeB")
    messages = one.block([(10, 1, "A")])
    other.number = one.number
    messages += other.block([(10, 1, "A")])
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages, only=["ProbeB"])
    assert {message.stream for message in inbox.messages} == {"ProbeB"}
    assert source.counters["other_streams"] == 2


def test_data_are_masked_while_the_stimulation_line_is_on() -> None:
    gui = Gui()
    messages = gui.block([(10, 1, "A")], ttl=[(500, 3, True), (510, 4, True)])
    messages += gui.block() + gui.block(ttl=[(1500, 3, False)]) + gui.block()
    with daemon_inbox() as inbox:
        in_process(inbox, messages, mask_line=3)
    masked = sorted((mask.start, mask.stop) for mask in inbox.of(MaskInterval))
    assert (masked[0][0], masked[-1][1]) == (500, 1500)
    assert all(a[1] == b[0] for a, b in pairwise(masked)), "without a hole"
    places = [type(message) for message in inbox.messages]
    assert places.index(MaskInterval) < places.index(SpikeBatch), "before the spikes of the first stretch"


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b"DATA\0"], "frames"),
        ([b"EVENT\0", b"\xff\xfe{", b""], "header"),
        ([b"EVENT\0", b"[1]", b""], "header"),
        ([b"EVENT\0", b'{"message_num": 9, "type": "spike", "spike": {"stream": "a"}}', b""], "fields"),
        ([b"DATA\0", b'{"type": "data", "content": {"stream": "a", "num_samples": "x"}}', b""], "fields"),
        ([b"EVENT\0", b'{"type": "spike", "spike": {"stream": "a", "sample_num": 1.5}}', b""], "fields"),
    ],
)
def test_a_broken_message_is_counted_by_reason_and_the_stream_goes_on(frames: list[bytes], reason: str) -> None:
    gui = Gui()
    with daemon_inbox() as inbox:
        source = in_process(inbox, [frames, *gui.block([(10, 1, "A")])])
    assert source.counters[f"malformed_{reason}"] == 1
    assert sum(inbox.spikes().values()) == 1


def test_a_name_with_control_characters_is_written_with_others_and_one_that_is_too_long_is_counted() -> None:
    gui = Gui()
    messages = gui.block([(10, 1, "A\nB\0"), (20, 1, "\ud800"), (30, 1, "x" * 300)]) + gui.block()
    with daemon_inbox() as inbox:
        source = in_process(inbox, messages)
    assert sorted(inbox.spikes()) == [("102/A_B_/1", 10), ("102/\ufffd\ufffd\ufffd/1", 20)]
    assert source.streams[STREAM].report()["counters"]["spikes_unit_rejected"] == 1


def test_any_name_of_a_stream_becomes_one_that_the_protocol_takes() -> None:
    assert stream_id("Probe A") == "Probe A"
    assert stream_id("a\nb\0") == "a_b_"
    assert stream_id("") == "unnamed"
    assert len(stream_id("é" * 500).encode()) == 256
