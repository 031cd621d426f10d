"""A recording played into a running daemon, at any speed, never faster than the daemon can follow."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from nuclr_stream.client.publisher import TABLE_EVERY_S
from nuclr_stream.client.subscriber import Query, Subscription
from nuclr_stream.config import DATA_ENDPOINT, QUERY_ENDPOINT, RESULTS_ENDPOINT
from nuclr_stream.errors import DaemonGoneError, NuclrStreamError
from nuclr_stream.recordings.recorded import Recorded
from nuclr_stream.recordings.recording import Recording, observed_stretches
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.sockets import Socket, connect_source, disconnect, give
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.windows.binning import Grid, rational
from nuclr_stream.wire import (
    Event,
    Input,
    Output,
    Predictions,
    SpikeBatch,
    StreamState,
    TraceBatch,
    UnitTable,
    encode,
)

BLOCK_S = 0.05
"""Length of the blocks that are sent, in recording time, unless the hop is shorter."""
STALLED_S = 30.0


@dataclass(frozen=True)
class Received:
    """Predictions that came back, and how long after the spikes that closed their window had been sent."""

    predictions: Predictions
    latency_s: float


def replay(
    recording: Recording | TraceRecording,
    *,
    stream: str = "",
    speed: float | None = None,
    start: int = 0,
    data: str = DATA_ENDPOINT,
    results: str = RESULTS_ENDPOINT,
    query: str = QUERY_ENDPOINT,
) -> Iterator[Received]:
    """Play `recording` from sample `start` as `stream` (by default its id) and yield every prediction that comes back.

    `speed` is in recording seconds per second, None as fast as the daemon labels. Data that close a window are sent
    only after every window before it was published, so no step is ever skipped and predictions do not depend on the
    speed. Raises DaemonGoneError when the daemon goes away, NuclrStreamError when it takes in but publishes nothing,
    or when its bundle takes another kind of input.
    """
    with Query(query) as ask:
        status = ask.status()
    if recording.input_kind != status["input_kind"]:
        raise NuclrStreamError(
            f"{recording.recording_id} holds {recording.input_kind}, the daemon's bundle {status['bundle']} takes "
            f"{status['input_kind']}; start one with another bundle"
        )
    stream = stream or recording.recording_id
    with Subscription(stream, results=results, query=query) as subscription:
        if subscription.receive(1.0) is None:
            raise DaemonGoneError(f"nothing is published at {results}")
        with _pushing(data) as socket:
            yield from _Playing(recording, status, stream=stream, speed=speed, start=start).play(socket, subscription)


class _Playing:
    """One run of `replay`: what was sent, what came back, and what may therefore be sent next."""

    def __init__(
        self,
        recording: Recording | TraceRecording,
        status: dict[str, Any],
        *,
        stream: str,
        speed: float | None,
        start: int,
    ) -> None:
        self.recording, self.stream, self.speed, self.start = recording, stream, speed, start
        self.epoch = time.time_ns() // 1_000_000
        self.ends = window_ends(recording, status, start=start)
        self.late_samples = int(status["lateness_s"] * recording.sample_rate)
        hop_s = float(status["hop_bins"] / rational(status["bins_per_second"]))
        self.block_samples = max(1, int(min(BLOCK_S, hop_s) * recording.sample_rate))
        self.done = 0
        self.seq = 0
        self.table: UnitTable | None = None
        self.table_at = 0.0
        self.sent_at: dict[int, float] = {}

    def play(self, socket: Socket, subscription: Subscription) -> Iterator[Received]:
        started = self.table_at = time.monotonic()
        messages = recording_messages(
            self.recording, stream=self.stream, block_samples=self.block_samples, epoch=self.epoch, start=self.start
        )
        closed = 0
        for message in messages:
            if isinstance(message, SpikeBatch | TraceBatch):
                played_s = float((message.stop - self.start) / self.recording.sample_rate)
                due_s = 0.0 if self.speed is None else played_s / self.speed
                closes = bisect_right(self.ends, message.stop - self.late_samples)
                yield from self._wait(subscription, due_s=started + due_s, published=closed if closes > closed else 0)
                self.sent_at |= dict.fromkeys(self.ends[closed:closes], time.monotonic())
                closed = closes
            self._send(socket, message)
        self.sent_at |= dict.fromkeys(self.ends[closed:], time.monotonic())  # the end closes what lateness held back
        while True:
            output = subscription.receive(STALLED_S)
            if output is None:
                raise self._stalled()
            yield from self._received(output)
            if isinstance(output, StreamState) and output.epoch == self.epoch and output.state == "ended":
                return

    def _wait(self, subscription: Subscription, *, due_s: float, published: int) -> Iterator[Received]:
        """Take in what comes until it is time and the first `published` windows are back."""
        stalled_s = time.monotonic() + STALLED_S
        while True:
            ahead = self.done < published
            now_s = time.monotonic()
            wait_s = stalled_s - now_s if ahead else max(due_s - now_s, 0.0)
            message = subscription.receive(min(wait_s, 1.0))
            if message is None and not ahead and time.monotonic() >= due_s:
                return
            yield from self._received(message)
            if isinstance(message, Predictions):
                stalled_s = time.monotonic() + STALLED_S
            elif time.monotonic() >= stalled_s:
                raise self._stalled()

    def _received(self, message: Output | None) -> Iterator[Received]:
        if isinstance(message, Predictions) and message.epoch == self.epoch:
            self.done = bisect_right(self.ends, message.end_sample)
            now_s = time.monotonic()
            yield Received(message, now_s - self.sent_at.pop(message.end_sample, now_s))
        elif isinstance(message, Event) and message.kind == "new_epoch" and message.epoch > self.epoch:
            raise NuclrStreamError(f"another source took over stream {self.stream!r}; choose one with --stream")

    def _stalled(self) -> NuclrStreamError:
        return NuclrStreamError(
            f"window {self.done} of stream {self.stream!r} has not come back for {STALLED_S:g} s; "
            "run nuclr-stream doctor"
        )

    def _send(self, socket: Socket, message: Input) -> None:
        if isinstance(message, UnitTable):
            self.table = message
        elif self.table is not None and time.monotonic() - self.table_at >= TABLE_EVERY_S:
            self.table_at = time.monotonic()
            self._send(socket, self.table)
        message = replace(message, seq=self.seq)
        self.seq += 1
        if not give(socket, encode(message), wait_s=1.0):
            raise DaemonGoneError("the daemon takes no more data")


def window_ends(recording: Recorded, status: dict[str, Any], *, start: int = 0) -> list[int]:
    """Return the samples at which the daemon of that status will close a window: every hop, if any data lie in it.

    No window holds a sample before `start`, where playing begins.
    """
    rate = rational(status["bins_per_second"])
    grid = Grid(rate if recording.input_kind == "traces" else recording.sample_rate, rate)
    bins, hop = int(status["window_bins"]), int(status["hop_bins"])
    observed = observed_stretches(recording)
    ends = []
    total = grid.complete_bins(recording.num_samples)
    first = -(-(int(grid.bin_from(start)) + bins) // hop) * hop
    for end in range(first, total + 1, hop):
        first_sample, stop = grid.first_sample(end - bins), grid.first_sample(end)
        if observed.inside(first_sample, stop):
            ends.append(stop)
    return ends


@contextmanager
def _pushing(data: str) -> Iterator[Socket]:
    socket = connect_source(data, wait_s=1.0)
    try:
        yield socket
    finally:
        disconnect(socket, linger_s=1.0)
