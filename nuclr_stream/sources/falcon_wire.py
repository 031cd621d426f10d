"""ContinuousData of the Falcon Output plugin: one flatbuffer a block, samples channel by channel.

The table has grown over the releases of the plugin, and a flatbuffer does not name its fields: which release it is
shows in how many there are. Everything is bounded by the message: nothing is read outside of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import NuclrStreamError

FIELDS = {
    7: ("samples", "stream", "n_channels", "n_samples", "sample_num", "message_id", "sample_rate"),
    8: ("samples", "stream", "n_channels", "n_samples", "sample_num", "timestamp", "message_id", "sample_rate"),
    9: (
        *("samples", "event_codes", "stream", "n_channels", "n_samples", "sample_num", "timestamp", "message_id"),
        "sample_rate",
    ),
}
"""Names of the fields, in order, by how many a release has."""
MAX_CHANNELS = 8192


class FalconMessageError(NuclrStreamError):
    """A message is no ContinuousData; `reason` is one stable word."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True, eq=False)
class ContinuousData:
    """One block: `samples` (C, T) float32 in uV, a view of the message, the first of them number `first_sample`."""

    stream: str
    sample_rate: int
    first_sample: int
    message_id: int
    samples: npt.NDArray[np.float32]


def continuous_data(message: bytes) -> ContinuousData:
    """Read one message. Raises FalconMessageError."""
    try:
        (table,) = struct.unpack_from("<I", message, 0)
        (back,) = struct.unpack_from("<i", message, table)
        vtable = table - back
        size, _ = struct.unpack_from("<HH", message, vtable)
        names = FIELDS.get((size - 4) // 2)
        if vtable < 0 or names is None:
            raise FalconMessageError("unknown_release", f"a table of {(size - 4) // 2} fields; known are 7, 8 and 9")
        offsets = struct.unpack_from(f"<{len(names)}H", message, vtable + 4)
        at = {name: table + offset if offset else 0 for name, offset in zip(names, offsets, strict=True)}
        channels, samples, rate = (
            _integer(message, at[name], "<I") for name in ("n_channels", "n_samples", "sample_rate")
        )
        first, number = (_integer(message, at[name], "<q") for name in ("sample_num", "message_id"))
        start, count = _vector(message, at["samples"])
        if not 0 < channels <= MAX_CHANNELS or not rate or count != channels * samples:
            raise FalconMessageError(
                "shape", f"{count} values for {channels} channels of {samples} samples at {rate} a second"
            )
        values = np.frombuffer(message, dtype="<f4", count=count, offset=start).reshape(channels, samples)
        begin, length = _vector(message, at["stream"])
        name = bytes(message[begin : begin + length]).decode("utf-8", "replace")
    except (struct.error, ValueError) as error:
        raise FalconMessageError("truncated", f"{len(message)} bytes end within the table ({error})") from error
    return ContinuousData(name, rate, first, number, values)


def _integer(message: bytes, at: int, kind: str) -> int:
    """Return a number of the table, 0 where the field is left out, as flatbuffers do with zeros."""
    return int(struct.unpack_from(kind, message, at)[0]) if at else 0


def _vector(message: bytes, at: int) -> tuple[int, int]:
    """Return where the elements of a vector begin and how many there are."""
    if not at:
        return 0, 0
    (offset,) = struct.unpack_from("<I", message, at)
    (count,) = struct.unpack_from("<I", message, at + offset)
    return at + offset + 4, count
