"""What a rig sends: the unit table, spikes, masks, signs of life of one probe. It never waits for the daemon."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.client.acknowledgement import Acknowledgement
from nuclr_stream.client.outbox import Outbox
from nuclr_stream.config import DATA_ENDPOINT, QUERY_ENDPOINT
from nuclr_stream.errors import ConfigError
from nuclr_stream.sockets import KeyFile, connect_source, disconnect, give
from nuclr_stream.windows.binning import rational
from nuclr_stream.wire import (
    MAX_UNITS,
    End,
    Heartbeat,
    Input,
    MaskInterval,
    SpikeBatch,
    TraceBatch,
    UnitAction,
    UnitTable,
    encode,
)

TABLE_EVERY_S = 1.0
"""The unit table is sent again this often, so that a daemon that was restarted knows the units."""
KEEP_S = 60.0
"""For so long what was sent is kept to be sent again: longer than the time between two snapshots of a daemon."""
PUMP_MESSAGES = 256
"""So many messages are sent in one call, when a daemon that was away gets what it missed."""


class Publisher:
    """Publishes one probe into a daemon.

    >>> rig = Publisher(stream="probeA", sample_rate=30_000)
    >>> units = rig.units(["u1", "u2"])
    >>> rig.spikes(samples, units[rows], stop=next_sample)

    Every call returns at once. What cannot be sent waits, and what was sent in the last `keep_s` seconds is kept: a
    daemon that crashed or was out of reach gets what it does not have, in order. That needs `query`, where the daemon
    says what has arrived (and a key with the right to ask); by default it is asked at the default endpoint when data go
    to the default one. Without it, and for what is too old, messages are dropped, counted in `unsent`, and missing in
    the daemon as a gap that predictions declare. With `wait_s` a call waits that long for room first. `epoch` must grow
    with every start of the acquisition; by default it is the wall clock in ms. Waits up to `connect_s` for a daemon
    when it is created. `key` is the key file for a daemon that asks for one; without it the environment's
    NUCLR_STREAM_KEY counts.
    """

    def __init__(
        self,
        endpoint: str = DATA_ENDPOINT,
        *,
        stream: str,
        sample_rate: Fraction | int | float | str,
        origin: int = 0,
        start: int | None = None,
        epoch: int | None = None,
        wait_s: float = 0.0,
        connect_s: float = 1.0,
        query: str | None = None,
        keep_s: float = KEEP_S,
        key: KeyFile = None,
    ) -> None:
        self.stream = stream
        self.sample_rate = _rate(sample_rate, stream)
        self.origin = origin
        self.epoch = time.time_ns() // 1_000_000 if epoch is None else epoch
        self.wait_s = wait_s
        self._unsent = 0
        self.watermark = origin if start is None else start
        self._seq = 0
        self._table: dict[str, Any] | None = None
        self._index_of: dict[str, int] = {}
        self._next_index = 0
        self._table_at = 0.0
        self._merged: dict[int, int] = {}  # source -> target of merges that spikes may still refer to
        if query is None and endpoint == DATA_ENDPOINT:
            query = QUERY_ENDPOINT
        self._socket = connect_source(endpoint, wait_s=connect_s, key=key)
        self._outbox = Outbox(keep_s) if query else None
        self._acknowledgement = (
            Acknowledgement(stream, self.epoch, data=self._socket, query=query, key=key) if query else None
        )

    @property
    def unsent(self) -> int:
        """How many messages never left, and never will."""
        return self._unsent + (self._outbox.lost if self._outbox else 0)

    @property
    def acknowledged(self) -> int | None:
        """The sample up to which the daemon has applied the data of this epoch; None before it said anything."""
        received = self._acknowledgement.received if self._acknowledgement else None
        return received.watermark if received and received.known and received.epoch == self.epoch else None

    def units(
        self,
        unit_ids: Sequence[str],
        *,
        continues: bool = False,
        depth_um: npt.ArrayLike | None = None,
        x_um: npt.ArrayLike | None = None,
        shank: npt.ArrayLike | None = None,
        channel: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.uint32]:
        """Declare the whole unit table (U units) and return the index (U,) of every unit, which spikes refer to.

        Call it again when the sorter's units change: units that are gone are retired, new ones get new indices, the
        others keep theirs and their exposure. With `continues` on the first call, units of the same name keep the
        exposure of the epoch before. The geometry, (U,) each, is optional.
        """
        ids = [str(unit_id) for unit_id in unit_ids]
        self._index_of = {name: self._index_of[name] for name in ids if name in self._index_of}
        for name in ids:
            if name not in self._index_of:
                self._index_of[name] = self._next_index
                self._next_index += 1
        index = np.array([self._index_of[name] for name in ids], dtype=np.uint32)
        self._table = {
            "version": 0 if self._table is None else self._table["version"] + 1,
            "continues": continues and self._table is None,
            "unit_ids": tuple(ids),
            "index": index,
            "added": np.full(len(ids), self.watermark, dtype=np.int64),
            "shank": _column(shank, len(ids), -1, np.int32),
            "x_um": _column(x_um, len(ids), np.nan, np.float32),
            "depth_um": _column(depth_um, len(ids), np.nan, np.float32),
            "channel": _column(channel, len(ids), -1, np.int32),
        }
        self._send_table()
        return index

    def restart(
        self, *, start: int, epoch: int | None = None, sample_rate: Fraction | int | float | str | None = None
    ) -> None:
        """Begin a new epoch at sample `start`: acquisition restarted, or its clock jumped or changed its rate.

        Declare the units again with `units`, where `continues` keeps their exposure. It goes over the same connection,
        so that nothing of the epoch before is overtaken. `epoch` is the wall clock in ms if left out, and always above
        the one before.
        """
        self.epoch = max(time.time_ns() // 1_000_000 if epoch is None else epoch, self.epoch + 1)
        if sample_rate is not None:
            self.sample_rate = _rate(sample_rate, self.stream)
        self.watermark = start
        self._seq = self._next_index = 0
        self._table = None
        self._index_of = {}

    def merge(self, unit_id: str, into: str) -> bool:
        """Say that `unit_id` is the same cell as `into`: counts and exposure of both are added up.

        Its index stays valid for spikes that still carry it. Returns whether it was sent; a merge that was not ends as
        a retirement. Raises ConfigError for a unit that is not in the table.
        """
        return self._change(UnitAction.MERGE, unit_id, into=into)

    def rename(self, unit_id: str, new_id: str) -> bool:
        """Give a unit another id; index and exposure stay. Returns whether it was sent. Raises ConfigError."""
        return self._change(UnitAction.RENAME, unit_id, new_id=new_id)

    def reset(self, unit_id: str) -> bool:
        """Begin a unit's exposure anew: its probe moved, say. Returns whether it was sent. Raises ConfigError."""
        return self._change(UnitAction.RESET, unit_id)

    def spikes(self, samples: npt.ArrayLike, units: npt.ArrayLike, *, stop: int) -> bool:
        """Send all spikes up to sample `stop` (exclusive): `samples` (N,) and unit indices (N,), in any order.

        Everything since the `stop` before is complete with it. An empty batch says that no unit fired. Returns whether
        it was sent. Raises WireError when there are more than 65,536 spikes or a value is out of range.
        """
        self._renew_table()
        sent = self._send(
            SpikeBatch,
            start=self.watermark,
            stop=stop,
            table_version=0 if self._table is None else self._table["version"],
            samples=np.asarray(samples, dtype=np.int64),
            units=np.asarray(units, dtype=np.uint32),
        )
        self.watermark = stop  # not before: what raised may be sent again
        return sent

    def traces(self, values: npt.ArrayLike, units: npt.ArrayLike) -> bool:
        """Send the next frames of all units: `values` (U, F) such as dF/F, and unit indices (U,).

        For a stream of traces `sample_rate` is the frame rate, and a sample is a frame. One minute of frames at most.
        Returns whether it was sent. Raises WireError for more than 1 MiB at once, or a value that is not finite.
        """
        self._renew_table()
        frames = np.asarray(values, dtype=np.float32)
        sent = self._send(
            TraceBatch,
            first_frame=self.watermark,
            table_version=0 if self._table is None else self._table["version"],
            units=np.asarray(units, dtype=np.uint32),
            values=frames,
        )
        self.watermark += frames.shape[1]
        return sent

    def mask(self, start: int, stop: int, *, cause: str = "artefact") -> bool:
        """Say that samples [start, stop) hold no usable data; best before the spikes after it. Returns whether sent."""
        self._renew_table()
        return self._send(MaskInterval, start=start, stop=stop, cause=cause)

    def heartbeat(self, stop: int | None = None) -> bool:
        """Say that the source is alive, and with `stop` that no unit fired up to there. Returns whether sent."""
        self._renew_table()
        stop = self.watermark if stop is None else stop
        sent = self._send(Heartbeat, start=self.watermark, stop=stop)
        self.watermark = stop
        return sent

    def skip(self, sample: int) -> None:
        """Go on at `sample`: what lies between was not recorded, and will be missing in the daemon."""
        self.watermark = sample

    def end(self) -> bool:
        """Say that nothing follows in this epoch. Returns whether it was sent."""
        return self._send(End, sample=self.watermark)

    def close(self, *, linger_s: float = 1.0) -> None:
        """Close; what was accepted may still leave for `linger_s`."""
        if self._outbox is not None and self._acknowledgement is not None:
            deadline = time.monotonic() + linger_s
            while not self._pump() and time.monotonic() < deadline:
                self._acknowledgement.wait(0.02)
            self._unsent += self._outbox.waiting
            self._acknowledgement.close()
        disconnect(self._socket, linger_s=linger_s)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _change(self, action: UnitAction, unit_id: str, *, into: str = "", new_id: str = "") -> bool:
        """Send one row of change, and keep the table as it is after it."""
        for known in (unit_id, into) if into else (unit_id,):
            if known not in self._index_of:
                raise ConfigError(f"stream {self.stream!r}: no unit {known!r} in its table; declare it with units()")
        if new_id in self._index_of or into == unit_id:
            raise ConfigError(f"stream {self.stream!r}: {new_id or into!r} is taken; name another unit")
        assert self._table is not None
        row = self._table["unit_ids"].index(unit_id)
        columns = {name: value for name, value in self._table.items() if isinstance(value, np.ndarray)}
        self._table["version"] += 1
        sent = self._send(
            UnitTable,
            **{name: column[row : row + 1] for name, column in columns.items()},
            version=self._table["version"],
            full=False,
            sample=self.watermark,
            action=np.array([action], dtype=np.uint8),
            into=np.array([self._index_of.get(into, 0)], dtype=np.uint32),
            unit_ids=(new_id,),
        )
        ids = list(self._table["unit_ids"])
        if action == UnitAction.MERGE:
            old, new = self._index_of[unit_id], self._index_of[into]
            self._merged = {a: new if b == old else b for a, b in self._merged.items()} | {old: new}
            del ids[row], self._index_of[unit_id]
            self._table |= {name: np.delete(column, row) for name, column in columns.items()}
        elif action == UnitAction.RENAME:
            ids[row] = new_id
            self._index_of[new_id] = self._index_of.pop(unit_id)
        self._table["unit_ids"] = tuple(ids)
        return sent

    def _renew_table(self) -> None:
        if self._table is not None and time.monotonic() - self._table_at >= TABLE_EVERY_S:
            self._send_table()

    def _send_table(self) -> None:
        assert self._table is not None
        rows = len(self._table["index"])
        # behind the units, what was merged into them: a daemon that was started since knows nothing of it
        living = set(self._index_of.values())
        merged = {old: new for old, new in self._merged.items() if new in living}
        merged = dict(list(merged.items())[max(len(merged) + rows - MAX_UNITS, 0) :])
        more, none = len(merged), np.zeros(len(merged))
        columns = {name: value for name, value in self._table.items() if isinstance(value, np.ndarray)}
        columns = {name: np.append(value, none.astype(value.dtype)) for name, value in columns.items()}
        columns["index"] = np.append(self._table["index"], np.fromiter(merged, dtype=np.uint32, count=more))
        sent = self._send(
            UnitTable,
            **(self._table | columns | {"unit_ids": self._table["unit_ids"] + ("",) * more}),
            full=True,
            sample=self.watermark,
            action=np.repeat(np.array([UnitAction.ADD, UnitAction.MERGE], dtype=np.uint8), [rows, more]),
            into=np.append(np.zeros(rows, np.uint32), np.fromiter(merged.values(), dtype=np.uint32, count=more)),
        )
        self._table_at = time.monotonic() if sent or self._outbox else 0.0

    def _send(self, kind: type[Input], **fields: Any) -> bool:
        message = kind(
            stream=self.stream,
            epoch=self.epoch,
            seq=self._seq,
            sample_rate=self.sample_rate,
            origin=self.origin,
            **fields,
        )
        frames = encode(message)
        self._seq += 1  # whether it leaves or not: the daemon sees what is missing
        if self._outbox is None:
            sent = give(self._socket, frames, wait_s=self.wait_s)
            self._unsent += not sent
            return sent
        is_table = isinstance(message, UnitTable) and message.full
        self._outbox.add(message.seq, frames, now_s=time.monotonic(), is_table=is_table)
        return self._pump(wait_s=self.wait_s)

    def _pump(self, *, wait_s: float = 0.0) -> bool:
        """Send what waits, in order and so much at a time that the caller is not held up; True when all has left."""
        assert self._outbox is not None and self._acknowledgement is not None
        resume = self._acknowledgement.poll()
        if resume is not None and resume.seq is None:
            self._outbox.rewind_all()
        elif resume is not None and resume.seq is not None:
            self._outbox.rewind(resume.seq)
        if self._acknowledgement.unsure:
            return False
        for _ in range(PUMP_MESSAGES):
            frames = self._outbox.head()
            if frames is None:
                return True
            if not give(self._socket, frames, wait_s=wait_s):
                return False
            self._outbox.sent()
        return self._outbox.waiting == 0


def _rate(sample_rate: Fraction | int | float | str, stream: str) -> Fraction:
    try:
        return rational(sample_rate)
    except ValueError as error:
        raise ConfigError(f"sample_rate of stream {stream!r}: {error}") from error


def _column(values: npt.ArrayLike | None, rows: int, absent: float, dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.full(rows, absent, dtype=dtype) if values is None else np.asarray(values, dtype=dtype)
