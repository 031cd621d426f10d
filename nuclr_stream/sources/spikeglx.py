"""SpikeGLX as a source: raw samples of one probe, fetched through its remote command server (TCP, port 4142).

A command is a line; the answer is lines and then OK, or ERROR and why. FETCH answers with BINARY_DATA channels samples
uint64(first), little-endian int16 in the order of samples, and OK; a first sample above the one that was asked for
means that those between are gone.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.sources.raw_samples import RawSamples
from nuclr_stream.windows.binning import rational

PORT = 4142
PROBES = 2
"""What SpikeGLX calls the stream type of imec probes, its `js`."""
ANSWER_S = 5.0
FETCH_S = 0.1
"""Most that one fetch asks for."""
PAUSE_S = 0.004
"""Between a fetch that brought nothing and the next."""
RECONNECT_S = 1.0
STALLED_S = 1.0
"""After so long without a sample, see whether the run has started again."""
MAX_LINE_BYTES = 2**20
MAX_BYTES = 2**28
_HEADER = re.compile(r"BINARY_DATA (\d+) (\d+) uint64\((\d+)\)")


class SpikeGlxError(NuclrStreamError):
    """SpikeGLX answered that it cannot do what was asked, or with what is no answer."""


class SpikeGlx:
    """A connection to the command server. Raises OSError when there is none, SpikeGlxError for what it refuses."""

    def __init__(self, host: str, port: int = PORT) -> None:
        self._socket = socket.create_connection((host, port), timeout=ANSWER_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def ask(self, command: str) -> list[str]:
        """Send a command; return the lines of its answer."""
        self._socket.sendall(command.encode() + b"\n")
        lines = []
        while (line := self._line(command)) != "OK":
            lines.append(line)
        return lines

    def sample_rate(self, probe: int) -> Fraction:
        """Return the calibrated rate of a probe, exactly as it is written."""
        text = self._one(f"GETSTREAMSAMPLERATE {PROBES} {probe}")
        try:
            return rational(text)
        except ValueError as error:
            raise SpikeGlxError(f"SpikeGLX gives {text!r} as the rate of probe {probe}; start a run first") from error

    def microvolts(self, probe: int, channel: int) -> float:
        """Return what one step of a channel is, in uV."""
        return 1e6 * float(self._one(f"GETSTREAMI16TOVOLTS {PROBES} {probe} {channel}"))

    def sample_count(self, probe: int) -> int:
        """Return how many samples the run has so far, 0 when there is no run."""
        return int(self._one(f"GETSTREAMSAMPLECOUNT {PROBES} {probe}"))

    def geometry(self, probe: int) -> npt.NDArray[np.float32]:
        """Return x and depth above the tip (C, 2) in um of every AP channel, from GETGEOMMAP's lines key=value."""
        values = dict(line.split("=", 1) for line in self.ask(f"GETGEOMMAP {probe}") if "=" in line)
        found: list[tuple[float, float]] = []
        while f"ch{len(found)}_x" in values:
            found.append((float(values[f"ch{len(found)}_x"]), float(values[f"ch{len(found)}_z"])))
        if not found:
            raise SpikeGlxError(f"SpikeGLX gives no geometry of probe {probe}; give --templates of a sorting")
        return np.array(found, dtype=np.float32)

    def fetch(self, probe: int, *, start: int, most: int, channels: str) -> tuple[int, npt.NDArray[np.int16]]:
        """Return the first sample that there is from `start` on, and samples (T, C), at most `most`."""
        command = f"FETCH {PROBES} {probe} {start} {most} {channels} 1"
        self._socket.sendall(command.encode() + b"\n")
        line = self._line(command)
        header = _HEADER.match(line)
        if header is None:
            raise SpikeGlxError(f"SpikeGLX answers {command[:40]!r} with {line[:80]!r}, no BINARY_DATA")
        width, samples, first = (int(group) for group in header.groups())
        size = 2 * width * samples
        if not width > 0 or size > MAX_BYTES:
            raise SpikeGlxError(f"SpikeGLX announces {width} channels of {samples} samples: no such data")
        data = self._file.read(size)
        if len(data) < size:
            raise ConnectionError("SpikeGLX closed the connection in the middle of data")
        if self._line(command) != "OK":
            raise SpikeGlxError("SpikeGLX ends data with no OK")
        return first, np.frombuffer(data, dtype="<i2").reshape(samples, width)

    def close(self) -> None:
        """Close it."""
        self._file.close()
        self._socket.close()

    def _one(self, command: str) -> str:
        lines = self.ask(command)
        if len(lines) != 1:
            raise SpikeGlxError(f"SpikeGLX answers {command!r} with {len(lines)} lines, not one")
        return lines[0]

    def _line(self, command: str) -> str:
        raw = self._file.readline(MAX_LINE_BYTES)
        if not raw.endswith(b"\n"):
            raise ConnectionError("SpikeGLX closed the connection")
        line = raw.decode("utf-8", "replace").strip()
        if line.startswith("ERROR"):
            raise SpikeGlxError(f"SpikeGLX: {line[5:].strip()} (to {command[:40]!r})")
        return line


@dataclass(frozen=True)
class Device:
    """What a stream turned out to be: its exact rate, uV a step, and a way to ask for its geometry."""

    sample_rate: Fraction
    microvolts: float
    geometry: Callable[[], npt.NDArray[np.float32]]


class SpikeGlxSource:
    """Reads one probe of SpikeGLX: `turn` again and again, then `close`.

    `make` builds what takes the samples when the device is known, `channels` (C,) are those to ask for, all AP ones
    (0, 1, ...) when None. Without SpikeGLX, or without a run, it waits, says so, and tries again.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        probe: int,
        make: Callable[[Device], RawSamples],
        channels: npt.NDArray[np.int32] | None,
    ) -> None:
        self._host, self._port, self._probe, self._make, self._channels = host, port, probe, make, channels
        self._glx: SpikeGlx | None = None
        self._raw: RawSamples | None = None
        self._next = 0
        self._asked = ""
        self._notes: list[str] = []
        self._said = ""
        self._retry_at = self._last_data_at = 0.0

    def turn(self, timeout_s: float) -> bool:
        """Fetch what there is and send it on; always True: SpikeGLX may start again."""
        if self._glx is None and time.monotonic() < self._retry_at:
            time.sleep(min(timeout_s, self._retry_at - time.monotonic() + 1e-3))
            return True
        try:
            glx = self._glx or self._open()
            self._fetch(glx, timeout_s)
        except (OSError, SpikeGlxError) as error:
            self._say(f"{error}; trying again every {RECONNECT_S:g} s")
            self._drop()
            self._retry_at = time.monotonic() + RECONNECT_S
        return True

    def _open(self) -> SpikeGlx:
        try:
            glx = SpikeGlx(self._host, self._port)
        except OSError as error:
            raise SpikeGlxError(
                f"no command server of SpikeGLX at {self._host}:{self._port} ({error}); enable it in SpikeGLX under "
                "Options > Command Server Settings"
            ) from error
        self._glx = glx
        rate = glx.sample_rate(self._probe)
        count = glx.sample_count(self._probe)
        if not count:
            raise SpikeGlxError(f"probe {self._probe} of SpikeGLX is not running; start a run")
        if self._raw is None:
            first = 0 if self._channels is None else int(self._channels[0])
            self._raw = self._make(Device(rate, glx.microvolts(self._probe, first), lambda: glx.geometry(self._probe)))
            channels = range(len(glx.geometry(self._probe))) if self._channels is None else self._channels.tolist()
            self._asked = "".join(f"{channel}#" for channel in channels)
            self._next = count
        elif count < self._next:
            self._next = count  # the run started again
        self._last_data_at = time.monotonic()
        self._say(f"probe {self._probe} of SpikeGLX at {self._host}:{self._port}, from sample {self._next}")
        return glx

    def _fetch(self, glx: SpikeGlx, timeout_s: float) -> None:
        assert self._raw is not None
        most = max(1, int(FETCH_S * float(self._raw.sample_rate)))
        try:
            first, samples = glx.fetch(self._probe, start=self._next, most=most, channels=self._asked)
        except SpikeGlxError as error:
            if "Too late" not in str(error):
                raise
            # what was asked for has left SpikeGLX's memory: go on with the present, and the gap is counted
            self._next = glx.sample_count(self._probe)
            return
        if not len(samples):
            self._wait(glx, timeout_s)
            return
        self._last_data_at = time.monotonic()
        self._next = first + len(samples)
        # FETCH gives channels in ascending order, whatever the order they were asked in
        self._raw.take(samples if self._channels is None else samples[:, self._column_of], first_sample=first)

    @property
    def _column_of(self) -> npt.NDArray[np.int64]:
        assert self._channels is not None
        return np.argsort(np.argsort(self._channels))

    def _wait(self, glx: SpikeGlx, timeout_s: float) -> None:
        if time.monotonic() - self._last_data_at > STALLED_S:
            self._last_data_at = time.monotonic()
            count = glx.sample_count(self._probe)
            if not count:
                raise SpikeGlxError(f"probe {self._probe} of SpikeGLX is not running; start a run")
            self._next = min(self._next, count)
        time.sleep(min(timeout_s, PAUSE_S))

    def _say(self, note: str) -> None:
        if note != self._said:
            self._notes.append(note)
            self._said = note

    def _drop(self) -> None:
        if self._glx is not None:
            self._glx.close()
            self._glx = None

    def notes(self) -> list[str]:
        """Return what there is to say since it was asked last."""
        notes, self._notes = self._notes + (self._raw.notes() if self._raw is not None else []), []
        return notes

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it."""
        return self._raw.report() if self._raw is not None else {"state": "waiting", "reason": self._said}

    def close(self) -> None:
        """End the stream and the connection."""
        if self._raw is not None:
            self._raw.close()
        self._drop()
