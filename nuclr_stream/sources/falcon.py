"""Falcon Output of the Open Ephys GUI as a source: raw samples of one data stream over ZeroMQ (PUB, port 3335).

The plugin publishes every block of the stream that is chosen in its editor, in uV. Samples that its queue dropped show
as a jump of the sample number and are declared as missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import ConfigError
from nuclr_stream.sources.falcon_wire import ContinuousData, FalconMessageError, continuous_data
from nuclr_stream.sources.raw_samples import RawSamples
from nuclr_stream.sources.vendor_socket import VendorSocket

PORT = 3335
TURN_MESSAGES = 64
"""Blocks that one turn takes before signals are looked at."""


class FalconSource:
    """Reads one port of the plugin: `turn` again and again, then `close`.

    `make` builds what takes the samples when the stream's name, rate and channels are known; `channels` (C,) are the
    rows of a block that the templates are of, all of them when None. Blocks of another stream are counted and left out.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        make: Callable[[str, Fraction, int], RawSamples],
        channels: npt.NDArray[np.int32] | None,
    ) -> None:
        self._socket = VendorSocket(f"tcp://{host}:{port}", "Falcon Output")
        self._make, self._channels = make, channels
        self._raw: RawSamples | None = None
        self._first: ContinuousData | None = None
        self.counters: Counter[str] = Counter()

    def turn(self, timeout_s: float) -> bool:
        """Take the blocks that have come; always True: acquisition may start again."""
        for _ in range(TURN_MESSAGES):
            frames = self._socket.receive(timeout_s)
            if frames is None:
                break
            timeout_s = 0.0
            self._take(frames)
        return True

    def _take(self, frames: list[bytes]) -> None:
        self.counters["messages"] += 1
        try:
            if len(frames) != 1:
                raise FalconMessageError("frames", f"{len(frames)} frames, not one")
            block = continuous_data(frames[0])
        except FalconMessageError as error:
            self.counters[f"malformed_{error.reason}"] += 1
            return
        if self._first is None:
            self._first = block
            if self._channels is not None and self._channels.max() >= len(block.samples):
                raise ConfigError(
                    f"Falcon Output sends {len(block.samples)} channels of {block.stream!r}, the sorting has channel "
                    f"{self._channels.max()}; choose all of its channels in the plugin's editor"
                )
            self._raw = self._make(block.stream, Fraction(block.sample_rate), len(block.samples))
        if (block.stream, block.sample_rate, len(block.samples)) != (
            self._first.stream,
            self._first.sample_rate,
            len(self._first.samples),
        ):
            self.counters["other_streams"] += 1
            return
        assert self._raw is not None
        samples = block.samples if self._channels is None else block.samples[self._channels]
        self._raw.take(samples.T, first_sample=block.first_sample)

    def notes(self) -> list[str]:
        """Return what there is to say since it was asked last."""
        return self._raw.notes() if self._raw is not None else []

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it."""
        found = self._raw.report() if self._raw is not None else {"state": "waiting", "reason": "no block has come"}
        return found | dict(self.counters) | {"messages_dropped": self._socket.dropped}

    def close(self) -> None:
        """End the stream and the socket; blocks that had come and were not looked at are counted."""
        self.counters["messages_unread"] += self._socket.close()
        if self._raw is not None:
            self._raw.close()
