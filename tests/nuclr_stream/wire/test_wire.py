"""Messages become exactly these bytes, these bytes become exactly these messages, and anything sent can be read."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from pathlib import Path
from threading import Thread
from typing import get_args

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nuclr_stream import wire
from nuclr_stream.errors import WireError
from tests.nuclr_stream.wire_examples import FRAMES, MESSAGES, SOURCE, TASK

DOCS = Path(__file__).parents[3] / "docs" / "protocol.md"


def assert_same(got, wanted):
    """Same type, and the same value in every field, arrays with dtype, shape and NaN."""
    if isinstance(wanted, np.ndarray):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape
        np.testing.assert_array_equal(got, wanted)
        return
    assert type(got) is type(wanted)
    if dataclasses.is_dataclass(wanted):
        for field in dataclasses.fields(wanted):
            assert_same(getattr(got, field.name), getattr(wanted, field.name))
    elif isinstance(wanted, tuple):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
    else:
        assert got == wanted


@pytest.mark.parametrize("kind", FRAMES)
def test_every_message_is_pinned_by_literal_bytes_in_both_directions(kind):
    assert wire.encode(MESSAGES[kind]) == FRAMES[kind]
    assert_same(wire.decode(FRAMES[kind]), MESSAGES[kind])


def test_no_kind_of_message_is_left_unpinned():
    assert {type(message) for message in MESSAGES.values()} == set(get_args(wire.Message))
    assert MESSAGES.keys() == FRAMES.keys()


@pytest.mark.parametrize("wrap", [bytes, lambda frame: memoryview(bytearray(frame))])
def test_arrays_are_read_only_views_on_the_frames(wrap):
    frames = [wrap(frame) for frame in FRAMES["predictions"]]
    message = wire.decode(frames)
    task = message.tasks[0]
    for array, frame in [
        (message.unit_index, frames[2]),
        (message.exposure, frames[6]),
        (message.ood_score, frames[7]),
        (task.probabilities, frames[11]),
        (task.sets, frames[12]),
        (task.stable_since, frames[14]),
    ]:
        assert np.shares_memory(array, np.frombuffer(frame, dtype=np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_topic_is_the_kind_and_the_stream():
    assert wire.topic(wire.Predictions) == b"predictions/"
    assert wire.topic(wire.Predictions, "probe/A") == b"predictions/probe/A"
    heartbeat = dataclasses.replace(MESSAGES["heartbeat"], stream="probe/Ä")
    assert wire.decode(wire.encode(heartbeat)) == heartbeat


def test_numbers_of_numpy_and_narrower_arrays_are_sent_as_the_declared_types():
    message = dataclasses.replace(
        MESSAGES["spikes"],
        seq=np.int64(3),
        samples=np.array([599, -10], dtype=np.int16),
        units=np.array([1, 2], dtype=np.uint8),
    )
    back = wire.decode(wire.encode(message))
    assert type(back.seq) is int and back.samples.dtype == np.int64 and back.units.dtype == np.uint32


def test_every_header_holds_the_protocol_version_and_another_one_is_rejected():
    assert {msgpack.unpackb(frames[1])["v"] for frames in FRAMES.values()} == {wire.PROTOCOL_VERSION}
    future = [FRAMES["mask"][0], msgpack.packb(msgpack.unpackb(FRAMES["mask"][1]) | {"v": 3})]
    with pytest.raises(WireError, match="mask of version 3; this side has version 1"):
        wire.decode(future)


def test_whether_a_unit_is_abstained_from_follows_from_why():
    every = dataclasses.replace(TASK, why=np.array(list(wire.Abstained), dtype=np.uint8))
    assert every.abstained.tolist() == [False, True, True, True, True, True]


def test_whether_a_unit_is_out_of_distribution_follows_from_its_flags():
    flags = np.array([0, 7, *(wire.UnitFlag.UNSORTED >> k for k in range(4)), 128], dtype=np.uint8)
    message = dataclasses.replace(MESSAGES["predictions"], flags=flags)
    assert message.out_of_distribution.tolist() == [False, False, True, True, True, True, True]


def test_flags_and_reasons_have_words_and_what_later_releases_say_has_none():
    assert wire.UnitFlag(0).words == ()
    assert wire.UnitFlag(2 | 64 | 128).words == ("silent", "unsorted", "ood_population")
    assert [one.word for one in wire.Abstained][:2] == ["", "no_data"]


def test_arrays_that_are_not_contiguous_are_sent_in_order():
    counts = np.arange(6, dtype=np.float32).reshape(3, 2).T
    back = wire.decode(wire.encode(wire.EmbedWindowRequest(request_id=1, counts=counts)))
    np.testing.assert_array_equal(back.counts, counts)


def test_detail_for_people_is_made_to_fit():
    event = dataclasses.replace(MESSAGES["event"], detail="line\nbreak " + "µ" * 300)
    detail = wire.decode(wire.encode(event)).detail
    assert detail.startswith("line break µµ") and len(detail.encode()) in (255, 256)


TOO_MANY_CLASSES = dataclasses.replace(
    TASK, classes=("E",) * 1025, probabilities=np.zeros((2, 1025), np.float32), sets=np.zeros((2, 1025), np.bool_)
)


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("spikes", {"seq": True}, "header"),
        ("spikes", {"seq": "3"}, "header"),
        ("spikes", {"sample_rate": 30000.0}, "header"),
        ("units", {"full": 1}, "header"),
        ("predictions", {"missing": "0"}, "header"),
        ("predictions", {"missing": True}, "header"),
        ("state", {"counters": {"late": True}}, "header"),
        ("spikes", {"sample_rate": Fraction(1, 10**7)}, "range"),
        ("spikes", {"start": 601}, "range"),
        ("spikes", {"units": np.array([1, 2])}, "header"),
        ("spikes", {"units": np.array([1], dtype=np.uint32)}, "size"),
        ("spikes", {"samples": np.array([[1, 2]])}, "header"),
        ("spikes", {"samples": [[1], [2, 3]]}, "header"),
        ("spikes", {"samples": np.zeros(65537, np.int64), "units": np.zeros(65537, np.uint32)}, "size"),
        ("spikes", {"stream": ""}, "text"),
        ("spikes", {"stream": "a\0b"}, "text"),
        ("spikes", {"stream": "\ud800"}, "text"),
        ("traces", {"values": np.full((2, 3), np.nan, np.float32)}, "nonfinite"),
        ("traces", {"values": np.zeros((2, 3))}, "header"),
        ("units", {"unit_ids": ("a", "b", "c")}, "size"),
        ("units", {"unit_ids": ("a", "b\n")}, "text"),
        ("units", {"unit_ids": ("a", "b" * 257)}, "text"),
        ("units", {"unit_ids": ("a", "\ud800")}, "text"),
        ("units", {"unit_ids": ("a", 2)}, "text"),
        ("predictions", {"state": "fine"}, "range"),
        ("predictions", {"reasons": ("gap",) * 65}, "size"),
        ("predictions", {"tasks": (TOO_MANY_CLASSES,)}, "size"),
        ("predictions", {"tasks": (dataclasses.replace(TASK, flips=-1),)}, "range"),
        ("predictions", {"tasks": (dataclasses.replace(TASK, why=np.array([0, 6], np.uint8)),)}, "range"),
        ("predictions", {"tasks": (dataclasses.replace(TASK, sets=np.ones((2, 3), np.bool_)),)}, "size"),
        ("predictions", {"ood_score": np.array([np.inf, 0], np.float32)}, "nonfinite"),
        ("predictions", {"tasks": MESSAGES["predictions"].tasks * 17}, "size"),
        ("state", {"counters": {f"{n}": n for n in range(65)}}, "size"),
        ("daemon", {"streams": ("s" * 250,) * 64, "counters": {"c" * 60 + f"{n}": n for n in range(64)}}, "size"),
        ("embed_window", {"counts": np.zeros((8192, 513), np.float32)}, "size"),
        ("snapshot_reply", {"messages": (MESSAGES["state"],) * 65}, "size"),
        ("status_reply", {"status": b"{}"}, "text"),
    ],
)
def test_what_could_not_be_read_is_not_sent(kind, change, reason):
    with pytest.raises(WireError) as caught:
        wire.encode(dataclasses.replace(MESSAGES[kind], **change))
    assert caught.value.reason == reason


def test_only_messages_are_sent():
    with pytest.raises(WireError, match="kind: dict is no message"):
        wire.encode({})


def texts(low=0):
    alphabet = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
    return st.text(alphabet, min_size=low, max_size=60)


def arrays(dtype, shape, low=None, high=None):
    elements = {"min_value": low, "max_value": high} if low is not None else {}
    floats = {"allow_nan": False, "allow_infinity": False} if dtype == np.float32 else {}
    return hnp.arrays(dtype, shape, elements=elements | floats)


samples = st.integers(-(2**53), 2**53)
counters = st.integers(0, 2**53)
rates = st.builds(Fraction, st.integers(1, 2**40 - 1), st.integers(1, 10**6))


@st.composite
def source(draw):
    fields = {"stream": draw(texts(1)), "epoch": draw(counters), "seq": draw(counters), "origin": draw(samples)}
    return fields | {"sample_rate": draw(rates)}


@st.composite
def spike_batches(draw):
    n = draw(st.integers(0, 50))
    start, stop = sorted([draw(samples), draw(samples)])
    return wire.SpikeBatch(
        **draw(source()),
        start=start,
        stop=stop,
        table_version=draw(counters),
        samples=draw(arrays(np.int64, n, -(2**53), 2**53)),
        units=draw(arrays(np.uint32, n)),
    )


@st.composite
def unit_tables(draw):
    n = draw(st.integers(0, 8))
    return wire.UnitTable(
        **draw(source()),
        version=draw(counters),
        full=draw(st.booleans()),
        sample=draw(samples),
        continues=draw(st.booleans()),
        action=draw(arrays(np.uint8, n, 0, 4)),
        index=draw(arrays(np.uint32, n)),
        into=draw(arrays(np.uint32, n)),
        added=draw(arrays(np.int64, n, -(2**53), 2**53)),
        shank=draw(arrays(np.int32, n, -1, 2**31 - 1)),
        x_um=draw(hnp.arrays(np.float32, n, elements={"allow_infinity": False})),
        depth_um=draw(hnp.arrays(np.float32, n, elements={"allow_infinity": False})),
        channel=draw(arrays(np.int32, n, -1, 2**31 - 1)),
        unit_ids=tuple(draw(st.lists(texts(), min_size=n, max_size=n))),
    )


@st.composite
def predictions(draw):
    n, classes = draw(st.integers(0, 5)), draw(st.lists(texts(), max_size=4))
    task = wire.TaskPredictions(
        name=draw(texts(1)),
        classes=tuple(classes),
        probabilities=draw(arrays(np.float32, (n, len(classes)), 0, 1)),
        sets=draw(arrays(np.bool_, (n, len(classes)))),
        why=draw(arrays(np.uint8, n, 0, 5)),
        stable_since=draw(arrays(np.int64, n, -(2**53), 2**53)),
        flips=draw(st.integers(0, 8192)),
    )
    per_unit = ("exposure", "ood_score")
    return dataclasses.replace(
        MESSAGES["predictions"],
        unit_index=draw(arrays(np.uint32, n)),
        unit_ids=tuple(draw(st.lists(texts(), min_size=n, max_size=n))),
        windows=draw(arrays(np.uint32, n)),
        **{name: draw(hnp.arrays(np.float32, n, elements=st.floats(0, 2.0**100, width=32))) for name in per_unit},
        flags=draw(arrays(np.uint8, n)),
        tasks=(task,) * draw(st.integers(0, 3)),
    )


@settings(max_examples=150)
@given(st.one_of(spike_batches(), unit_tables(), predictions()))
def test_whatever_is_sent_arrives_unchanged(message):
    assert_same(wire.decode(wire.encode(message)), message)


@pytest.mark.parametrize("count", [0, 65536])
def test_a_batch_may_be_empty_or_as_large_as_declared(count):
    batch = wire.SpikeBatch(
        **SOURCE,
        start=0,
        stop=count,
        table_version=1,
        samples=np.arange(count),
        units=np.arange(count, dtype=np.uint32),
    )
    assert_same(wire.decode(wire.encode(batch)), batch)


@pytest.fixture
def examples():
    """The two programs of docs/protocol.md: a source and a client, neither with our library."""
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)


def test_the_library_understands_the_source_of_the_documentation(examples):
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.rcvtimeo = 10_000
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        exec(examples[0].replace(":5581", f":{port}"), {})
        table, spikes = wire.decode(pull.recv_multipart()), wire.decode(pull.recv_multipart())
    assert table.unit_ids == ("good-12", "good-15") and table.full
    assert spikes.samples.tolist() == [30012, 30400, 30555] and spikes.units.tolist() == [0, 1, 0]
    assert (table.seq, spikes.seq, spikes.stop, spikes.table_version) == (0, 1, 30600, table.version)


def test_the_client_of_the_documentation_understands_the_library(examples):
    lines = []
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.linger, publisher.rcvtimeo = 0, 10_000
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        names = {"print": lambda *values: lines.append(" ".join(values))}
        client = Thread(target=exec, args=(examples[1].replace(":5582", f":{port}"), names), daemon=True)
        client.start()
        assert publisher.recv() == b"\x01" + wire.topic(wire.Predictions)
        publisher.send_multipart(wire.encode(MESSAGES["predictions"]))
        client.join(10)
    assert lines == ["a E 0.75", "µ2 abstained 0.50"]


def test_the_documentation_names_every_kind_every_key_and_every_reason():
    text = DOCS.read_text(encoding="utf-8")
    keys = {key for frames in FRAMES.values() for key in msgpack.unpackb(frames[1])}
    assert [name for name in (*FRAMES, *keys, *wire.REASONS) if f"`{name}`" not in text] == []
