"""What the Open Ephys GUI puts on its ZeroMQ sockets: frames of the ZMQ Interface and of the Event Broadcaster.

Checked against the GUI 1.0.1 with ZMQ Interface 1.0.0 and Event Broadcaster 0.3.0. Parsing is lenient: fields that are
not needed may be absent, and later releases may add some.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nuclr_stream.errors import NuclrStreamError

MAX_REPAIRS = 8
"""How many commas from its end a cut header is taken for broken off."""
TTL = 3
"""Type of an event that is a TTL line."""
TTL_FRAME, SPIKE_FRAME = 0, 1


class VendorMessageError(NuclrStreamError):
    """A message of an acquisition system does not hold what it should. `reason` is a stable word for counters."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Block:
    """One channel's samples [start, stop) of one processing block; the samples themselves are not looked at."""

    stream: str
    channel: str
    start: int
    stop: int
    sample_rate: float
    number: int | None


@dataclass(frozen=True, slots=True)
class Spike:
    """A spike of an electrode; `sorted_id` 0 is one that no box or polygon holds. `number` is that of the message."""

    stream: str
    source_node: int
    electrode: str
    sorted_id: int
    sample: int
    sample_rate: float | None
    number: int | None


@dataclass(frozen=True, slots=True)
class Ttl:
    """A TTL line, counted from 0, went on or off."""

    stream: str
    line: int
    is_on: bool
    sample: int
    sample_rate: float | None
    number: int | None


@dataclass(frozen=True, slots=True)
class Other:
    """A message of a kind that nothing is done with; it counts in the sequence."""

    number: int | None


def zmq_interface(frames: Sequence[bytes]) -> Block | Spike | Ttl | Other:
    """Return what a multipart message [envelope][JSON][binary] of the ZMQ Interface says.

    Raises VendorMessageError for anything else.
    """
    if len(frames) < 2:
        raise VendorMessageError("frames", f"{len(frames)} instead of envelope, header and data")
    header = _header(frames[1])
    number = header.get("message_num")
    number = number if isinstance(number, int) else None
    kind = header.get("type")
    body = header.get("spike" if kind == "spike" else "content")
    if not isinstance(body, dict):
        return Other(number)
    try:
        if kind == "data":
            start = _sample(body["sample_num"])
            stop = start + int(body["num_samples"])
            return Block(
                str(body["stream"]), str(body.get("channel_name", "")), start, stop, float(body["sample_rate"]), number
            )
        if kind == "spike":
            return _spike(body, _sample(body["sample_num"]), None, number)
        if kind == "event" and body.get("type") == TTL and len(frames) > 2 and len(frames[2]) >= 2:
            line, state = frames[2][0], frames[2][1]
            return Ttl(str(body["stream"]), line, bool(state), _sample(body["sample_num"]), None, number)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise VendorMessageError("fields", f"{kind} message {number}: {error!r}") from error
    return Other(number)


def event_broadcaster(frames: Sequence[bytes]) -> Spike | Ttl | Other:
    """Return what a message [type][JSON] of the Event Broadcaster says. Raises VendorMessageError for anything else."""
    if len(frames) != 2 or len(frames[0]) != 2:
        raise VendorMessageError("frames", f"{len(frames)} frames; set the Event Broadcaster's output format to JSON")
    body = _header(frames[1])
    kind: Literal["spike", "ttl"] | str = str(body.get("event_type"))
    try:
        rate = float(body["sample_rate"]) if "sample_rate" in body else None
        if kind == "spike":
            return _spike(body, _sample(body["sample_number"]), rate, None)
        if kind == "ttl":
            sample = _sample(body["sample_number"])
            return Ttl(str(body["stream"]), int(body["line"]), bool(body["state"]), sample, rate, None)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise VendorMessageError("fields", f"{kind}: {error!r}") from error
    return Other(None)


def _spike(body: dict[str, Any], sample: int, rate: float | None, number: int | None) -> Spike:
    return Spike(
        stream=str(body["stream"]),
        source_node=int(body["source_node"]),
        electrode=str(body["electrode"]),
        sorted_id=int(body["sorted_id"]),
        sample=sample,
        sample_rate=rate,
        number=number,
    )


def _sample(value: Any) -> int:
    """Return a sample number; a float is one only if it is whole, for numbers are never rounded here."""
    number = int(value)
    if number != value:
        raise ValueError(f"sample number {value!r} is not whole")
    return number


def _header(text: bytes) -> dict[str, Any]:
    """Return the JSON object of a header; one that was cut at its end is completed.

    The GUI counts the characters of a header, not its bytes: of each name outside ASCII as many bytes as it has too
    many are missing at the end of the message. What stands last there is the time of sending, which nothing here needs.
    """
    text = text.rstrip(b"\0")
    try:
        found = json.loads(text)
    except ValueError:
        found = _completed(text.decode("utf-8", errors="replace"))
    if not isinstance(found, dict):
        raise VendorMessageError("header", "not a JSON object")
    return found


def _completed(text: str) -> Any:
    """Return the object of a JSON text that broke off, without the member in which it did."""
    end = len(text)
    for _ in range(MAX_REPAIRS):
        for closing in ("}", "}}"):
            try:
                return json.loads(text[:end].rstrip(" \r\n\t,") + closing)
            except ValueError:
                continue
        end = text.rfind(",", 0, end)
        if end < 0:
            break
    raise VendorMessageError("header", "not JSON, and not JSON that was cut at its end")
