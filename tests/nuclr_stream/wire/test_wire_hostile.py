"""Whatever bytes come in, decode returns a message within the bounds or raises WireError with a declared reason."""

from __future__ import annotations

import random
import struct

import msgpack
import numpy as np
import pytest

from nuclr_stream import wire
from nuclr_stream.errors import WireError
from tests.nuclr_stream.wire_examples import FRAMES

LOW, HIGH = -(2**53) - 1, 2**53 + 1


def with_header(kind, /, **changes):
    """The example of a kind with other header values; a value of ... takes the key away."""
    frames = list(FRAMES[kind])
    header = msgpack.unpackb(frames[1]) | changes
    frames[1] = msgpack.packb({key: value for key, value in header.items() if value is not ...})
    return frames


def with_frame(kind, position, data):
    frames = list(FRAMES[kind])
    frames[position] = data
    return frames


def with_count(kind, key, count, *arrays):
    return [*with_header(kind, **{key: count})[:2], *arrays]


def task(**changes):
    return with_header("predictions", tasks=[{"name": "cell_type", "classes": 2, "flips": 1} | changes])


HOSTILE = {
    "no frames": ([], "frames"),
    "a topic alone": ([b"spikes/probeA"], "frames"),
    "one frame too few": (FRAMES["spikes"][:-1], "frames"),
    "one frame too many": ([*FRAMES["spikes"], b""], "frames"),
    "thousands of frames": (FRAMES["spikes"] + [b""] * 5000, "frames"),
    "parts beyond the end": (with_header("snapshot_reply", parts=[3]), "frames"),
    "parts too small": (with_header("snapshot_reply", parts=[1]), "frames"),
    "empty topic": (with_frame("spikes", 0, b""), "kind"),
    "unknown kind": (with_frame("spikes", 0, b"spike/probeA"), "kind"),
    "no slash": (with_frame("status", 0, b"status"), "kind"),
    "huge topic": (with_frame("spikes", 0, b"spikes/" + b"a" * 10**6), "kind"),
    "a snapshot in a snapshot": ([*with_header("snapshot_reply", parts=[4]), *FRAMES["snapshot_reply"]][:2]
                                 + FRAMES["snapshot_reply"], "kind"),
    "spikes in a snapshot": ([*with_header("snapshot_reply", parts=[4])[:2], *FRAMES["spikes"]], "kind"),
    "stream without a name": (with_frame("spikes", 0, b"spikes/"), "text"),
    "stream of 257 bytes": (with_frame("spikes", 0, b"spikes/" + b"a" * 257), "text"),
    "stream not UTF-8": (with_frame("spikes", 0, b"spikes/\xff"), "text"),
    "stream with an escape": (with_frame("spikes", 0, b"spikes/\x1b[2J"), "text"),
    "stream where none belongs": (with_frame("status", 0, b"status/probeA"), "text"),
    "version of the future": (with_header("spikes", v=2), "version"),
    "version 0": (with_header("predictions", v=0), "version"),
    "version true": (with_header("spikes", v=True), "version"),
    "no version": (with_header("spikes", v=...), "version"),
    "header empty": (with_frame("spikes", 1, b""), "header"),
    "header no map": (with_frame("spikes", 1, msgpack.packb([1])), "header"),
    "header cut": (with_frame("spikes", 1, FRAMES["spikes"][1][:-1]), "header"),
    "header with a tail": (with_frame("spikes", 1, FRAMES["spikes"][1] + b"\0"), "header"),
    "header of 65 keys": (with_header("spikes", **{f"k{n}": n for n in range(65)}), "header"),
    "header with a long list": (with_header("spikes", later=[0] * 65), "header"),
    "header with a long text": (with_header("spikes", later="a" * 257), "header"),
    "header with an extension": (with_header("spikes", later=msgpack.ExtType(1, b"a")), "header"),
    "header with a time stamp": (with_header("spikes", later=msgpack.Timestamp(1)), "header"),
    "header with a number as key": (with_header("spikes", **{"later": {1: 2}}), "header"),
    "header nested deep": (with_frame("spikes", 1, b"\x91" * 16000), "header"),
    "header not UTF-8": (with_frame("spikes", 1, b"\x81\xa1\xff\x01"), "header"),
    "header claims a gigabyte": (with_frame("spikes", 1, b"\xdf\xff\xff\xff\xff"), "header"),
    "rate as a float": (with_header("spikes", sample_rate=30000.0), "header"),
    "rate of three": (with_header("spikes", sample_rate=[1, 2, 3]), "header"),
    "rate of floats": (with_header("spikes", sample_rate=[1.0, 2.0]), "header"),
    "size negative": (with_header("spikes", spikes=-1), "size"),
    "size as text": (with_header("spikes", spikes="2"), "header"),
    "reasons no list": (with_header("predictions", reasons="gap"), "header"),
    "reasons of numbers": (with_header("predictions", reasons=[1]), "header"),
    "state a number": (with_header("predictions", state=1), "header"),
    "counters a list": (with_header("state", counters=[]), "header"),
    "counters of texts": (with_header("state", counters={"late": "2"}), "header"),
    "flag a number": (with_header("units", full=1), "header"),
    "fraction a text": (with_header("predictions", missing="0"), "header"),
    "no tasks": (with_header("predictions", tasks=...), "header"),
    "a task no map": (with_header("predictions", tasks=[1]), "header"),
    "a task without name": (task(name=None), "header"),
    "a task without classes": (task(classes=None), "header"),
    "a task without flips": (task(flips=None), "header"),
    "flips true": (task(flips=True), "header"),
    "header of 17 KiB": (with_header("spikes", **{f"k{n}": "a" * 256 for n in range(50)}, x=["b" * 256] * 20), "size"),
    "header of a megabyte": (with_frame("spikes", 1, b"\x91" * 10**6), "size"),
    "message above a megabyte": (with_frame("mask", 1, b"\0" * (2**20)), "size"),
    "a message of arrays above a megabyte": (
        [*with_header("traces", units=8192, frames=33)[:2], bytes(4 * 8192), bytes(4 * 8192 * 33)], "size"),
    "more spikes than declared": (with_header("spikes", spikes=1), "size"),
    "fewer spikes than declared": (with_header("spikes", spikes=3), "size"),
    "65,537 spikes": (with_count("spikes", "spikes", 65537, bytes(8 * 65537), bytes(4 * 65537)), "size"),
    "one byte short": (with_frame("spikes", 2, b"\0" * 15), "size"),
    "one byte long": (with_frame("spikes", 2, b"\0" * 17), "size"),
    "1,025 classes": (task(classes=1025), "size"),
    "17 tasks": (with_header("predictions", tasks=[{"name": "a", "classes": 0, "flips": 0}] * 17), "size"),
    "sample beyond 2**53": (with_frame("spikes", 2, struct.pack("<2q", HIGH, 0)), "range"),
    "sample below -2**53": (with_frame("spikes", 2, struct.pack("<2q", LOW, 0)), "range"),
    "start beyond 2**53": (with_header("spikes", stop=HIGH), "range"),
    "seq negative": (with_header("spikes", seq=-1), "range"),
    "epoch of 64 bits": (with_header("spikes", epoch=2**64 - 1), "range"),
    "stop before start": (with_header("spikes", start=601), "range"),
    "mask that ends before it starts": (with_header("mask", stop=599), "range"),
    "rate of zero": (with_header("spikes", sample_rate=[0, 1]), "range"),
    "rate over zero": (with_header("spikes", sample_rate=[1, 0]), "range"),
    "rate negative": (with_header("spikes", sample_rate=[-30000, -1]), "range"),
    "unknown state": (with_header("predictions", state="fine"), "range"),
    "fraction above one": (with_header("predictions", missing=1.5), "range"),
    "unknown action": (with_frame("units", 2, b"\x00\x05"), "range"),
    "shank -2": (with_frame("units", 6, struct.pack("<2i", -2, 0)), "range"),
    "channel -2": (with_frame("units", 9, struct.pack("<2i", -2, 0)), "range"),
    "ood_score negative": (with_frame("predictions", 7, struct.pack("<2f", 0, -0.5)), "range"),
    "probability above one": (with_frame("predictions", 11, struct.pack("<4f", 1.5, 0, 0, 0)), "range"),
    "probability below zero": (with_frame("predictions", 11, struct.pack("<4f", -0.5, 0, 0, 0)), "range"),
    "in a set neither": (with_frame("predictions", 12, b"\x00\x02\x00\x00"), "range"),
    "abstained for no known reason": (with_frame("predictions", 13, b"\x00\x06"), "range"),
    "stable since beyond 2**53": (with_frame("predictions", 14, struct.pack("<2q", HIGH, 0)), "range"),
    "flips negative": (task(flips=-1), "range"),
    "flips of 8,193 units": (task(flips=8193), "range"),
    "one set for two units": (with_frame("predictions", 12, b"\x00\x01"), "size"),
    "as many units stable as bytes": (with_frame("predictions", 14, b"\x00\x01"), "size"),
    "negative counts": (with_frame("embed_window", 2, struct.pack("<6f", 0, 0, -1, 0, 0, 0)), "range"),
    "fraction NaN": (with_header("predictions", missing=float("nan")), "nonfinite"),
    "hop infinite": (with_header("predictions", hop_s=float("inf")), "nonfinite"),
    "trace NaN": (with_frame("traces", 3, struct.pack("<6f", 0, 0, 0, 0, 0, np.nan)), "nonfinite"),
    "count infinite": (with_frame("embed_window", 2, struct.pack("<6f", 0, 0, 0, 0, 0, np.inf)), "nonfinite"),
    "ood_score NaN": (with_frame("predictions", 7, struct.pack("<2f", 0, np.nan)), "nonfinite"),
    "probability NaN": (with_frame("predictions", 11, struct.pack("<4f", np.nan, 0, 0, 0)), "nonfinite"),
    "depth infinite": (with_frame("units", 8, struct.pack("<2f", np.inf, 0)), "nonfinite"),
    "plan NaN": (with_frame("placement", 4, struct.pack("<2f", np.nan, 0)), "nonfinite"),
    "plan of 65 regions": (with_count("placement", "regions", 65, bytes(4 * 66), b"", bytes(260), bytes(260)), "size"),
    "plan cut short": (with_frame("placement", 5, struct.pack("<f", 0)), "size"),
    "placement of no task": (with_header("placement", task=""), "text"),
    "placement of no stream": (with_frame("placement", 0, b"placement/"), "text"),
    "cause of 65 bytes": (with_header("mask", cause="a" * 65), "text"),
    "cause empty": (with_header("mask", cause=""), "text"),
    "cause with a line break": (with_header("mask", cause="a\nb"), "text"),
    "offsets not from 0": (with_frame("units", 10, struct.pack("<3I", 1, 1, 4)), "text"),
    "offsets not to the end": (with_frame("units", 10, struct.pack("<3I", 0, 1, 3)), "text"),
    "offsets falling": (with_frame("units", 10, struct.pack("<3I", 0, 5, 4)), "text"),
    "offsets that wrap around": (with_frame("units", 10, struct.pack("<3I", 0, 2**32 - 1, 4)), "text"),
    "offsets within a character": (with_frame("units", 10, struct.pack("<3I", 0, 2, 4)), "text"),
    "unit id of 257 bytes": (
        with_count("embeddings", "units", 1, struct.pack("<2I", 0, 257), b"a" * 257), "text"),
    "unit ids not UTF-8": (with_frame("units", 11, b"a\xc2\xff2"), "text"),
    "unit id with a line break": (with_frame("units", 11, b"a\n12"), "text"),
    "text without units": (with_count("embeddings", "units", 0, struct.pack("<I", 0), b"a"), "text"),
    "status not UTF-8": (with_frame("status_reply", 2, b"\xff"), "text"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_message_is_rejected_for_a_stable_reason(name):
    frames, reason = HOSTILE[name]
    with pytest.raises(WireError) as caught:
        wire.decode(frames)
    assert caught.value.reason == reason


def test_every_declared_reason_is_met_and_no_other():
    assert {reason for _, reason in HOSTILE.values()} == set(wire.REASONS)


@pytest.mark.parametrize("kind", FRAMES)
def test_keys_of_later_releases_are_ignored_and_no_key_may_lack(kind):
    frames = with_header(kind, later={"a": [1.5, None, "text"]}, another=b"\xff")
    assert wire.encode(wire.decode(frames)) == FRAMES[kind]
    for key in msgpack.unpackb(FRAMES[kind][1]).keys() - {"v"}:
        with pytest.raises(WireError) as caught:
            wire.decode(with_header(kind, **{key: ...}))
        assert caught.value.reason == "header"


@pytest.mark.parametrize("kind", FRAMES)
def test_true_is_no_integer_and_nil_no_value(kind):
    header = msgpack.unpackb(FRAMES[kind][1])
    for key in header.keys() - {"v"}:
        wrong = [None] if isinstance(header[key], bool) else [None, True]
        for value in wrong:
            with pytest.raises(WireError) as caught:
                wire.decode(with_header(kind, **{key: value}))
            assert caught.value.reason == "header"


def test_an_unknown_position_is_nan():
    assert np.isnan(wire.decode(with_frame("units", 7, struct.pack("<2f", np.nan, np.nan))).x_um).all()


def test_a_number_may_come_as_an_integer_where_a_float_is_declared():
    assert wire.decode(with_header("predictions", missing=0)).missing == 0.0


def mutate(rng, frames):
    """Change one or two things as a broken or hostile sender would."""
    for _ in range(rng.randint(1, 2)):
        position = rng.randrange(len(frames))
        data = bytearray(frames[position])
        action = rng.randrange(9)
        if action == 0 and data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif action == 1:
            data = data[: rng.randint(0, len(data))]
        elif action == 2:
            data += rng.randbytes(rng.randint(1, 40))
        elif action == 3:
            data = bytearray(rng.randbytes(len(data)))
        elif action == 4:
            frames.insert(position, bytes(data))
        elif action == 5 and len(frames) > 1:
            del frames[position]
            continue
        elif action == 6:
            data = bytearray(frames[rng.randrange(len(frames))])
        elif action == 7:
            frames[:2] = rng.choice(list(FRAMES.values()))[:2]
            continue
        else:
            change_header(rng, frames)
            continue
        frames[position] = bytes(data)
    return frames


NUMBERS = [0, 1, -1, 2**32, 2**63, -(2**63), 2**64 - 1, 1.5, float("nan"), float("inf"), True, None]
TEXTS = ["", "a\0", "a" * 256, b"\0"]
NESTED = [[], [1, 1], [0, 0], [[]], [2, 2], [3] * 64, {}, {"a": 1}, [{"name": "a", "classes": 3, "flips": 0}]]


def change_header(rng, frames):
    try:
        header = msgpack.unpackb(frames[1], strict_map_key=False)
    except (IndexError, TypeError, ValueError, msgpack.UnpackException):
        return
    if isinstance(header, dict) and header:
        header[rng.choice(list(header))] = rng.choice(NUMBERS + TEXTS + NESTED)
        frames[1] = msgpack.packb(header)


def fuzz(seed, count):
    """Decode `count` mutated messages; return how many were rejected for each reason and how many were read ("")."""
    rng = random.Random(seed)
    kinds = sorted(FRAMES)
    seen = {}
    for _ in range(count):
        frames = mutate(rng, list(FRAMES[rng.choice(kinds)]))
        try:
            message = wire.decode(frames)
        except WireError as error:
            seen[error.reason] = seen.get(error.reason, 0) + 1
            continue
        seen[""] = seen.get("", 0) + 1
        again = wire.encode(message)
        assert wire.encode(wire.decode(again)) == again
    return seen


def test_mutated_messages_are_read_or_rejected_and_what_is_read_can_be_sent():
    seen = fuzz(seed=1, count=20_000)
    assert seen.keys() == {"", *wire.REASONS}


@pytest.mark.slow
def test_a_million_mutated_messages():
    assert fuzz(seed=2, count=1_000_000).keys() == {"", *wire.REASONS}
