"""What can be had without templates: threshold crossings per channel, which are no units and are named so.

The same interface as Matcher: blocks on a grid from the first sample, noise measured at the start. A crossing is a
trough that is the deepest in its neighbourhood. The encoder was trained on sorted units: such a stream is out of
distribution, and its units are called `channel-unsorted`.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import ConfigError
from nuclr_stream.matching.dictionary import nearest
from nuclr_stream.matching.matcher import ROOM, Matched, load_kernels
from nuclr_stream.matching.noise import Noise, measure_noise
from nuclr_stream.matching.preprocessing import Preprocessor
from nuclr_stream.matching.settings import DEFAULTS
from nuclr_stream.matching.templates import Filtering, Float32Array, Int32Array

THRESHOLD = 5.0
DEAD_MS = 0.3


class ThresholdCrossings:
    """Finds crossings on C channels at `positions_um` (C, 2); a unit is a channel."""

    def __init__(self, positions_um: Float32Array, *, sample_rate: Fraction, threshold: float = THRESHOLD) -> None:
        if not 0 < threshold < float("inf"):
            raise ConfigError(f"threshold = {threshold}: give standard deviations of the noise, above 0")
        self.counters: Counter[str] = Counter()
        self.noise: Noise | None = None
        self._kernels = load_kernels()
        self._rate, self._threshold = float(sample_rate), threshold
        self._channels = len(positions_um)
        self._block = round(DEFAULTS.block_ms * self._rate / 1000)
        self._edge = max(1, round(DEAD_MS * self._rate / 1000)) + 1
        shanks: Int32Array = np.zeros(self._channels, dtype=np.int32)
        self._near = nearest(positions_um, shanks, radius_um=DEFAULTS.exclusion_um, most=DEFAULTS.most_channels)
        self._next: int | None = None
        self._begin(0)

    @property
    def next_sample(self) -> int | None:
        """The sample that continues the stream, None before the first."""
        return self._next

    def push(self, samples: npt.NDArray[Any], *, first_sample: int) -> list[Matched]:
        """Take samples (T, C) from `first_sample` on, as Matcher.push does."""
        if samples.ndim != 2 or samples.shape[1] != self._channels:
            raise ConfigError(f"samples {samples.shape}: {self._channels} channels were declared; ask for those")
        if self._next != first_sample:
            if self._next is not None:
                self.counters["stretches"] += 1
                self.counters["samples_given_up"] += self._next - self._stop
            self._begin(first_sample)
        self._next = first_sample + len(samples)
        self.counters["samples"] += len(samples)
        found = []
        for block in self._preprocessor.push(samples):
            found += self._take(block)
        return found

    def _begin(self, first_sample: int) -> None:
        self._preprocessor = Preprocessor(
            self._kernels,
            filtering=Filtering(),
            sample_rate=self._rate,
            channels=self._channels,
            block_samples=self._block,
        )
        self._trace = np.zeros((self._block + 2 * self._edge, self._channels), dtype=np.float32)
        self._row_0 = first_sample - len(self._trace)
        self._stop = first_sample
        self._uncalibrated: list[Float32Array] = []

    def _take(self, block: Float32Array) -> list[Matched]:
        if self.noise is not None:
            return [self._find(block)]
        self._uncalibrated.append(block)
        if len(self._uncalibrated) * self._block < DEFAULTS.calibration_s * self._rate:
            return []
        self.noise = measure_noise(np.concatenate(self._uncalibrated), window_samples=self._edge)
        blocks, self._uncalibrated = self._uncalibrated, []
        return [self._find(one) for one in blocks]

    def _find(self, block: Float32Array) -> Matched:
        assert self.noise is not None
        size, edge = self._block, self._edge
        self._trace[:-size] = self._trace[size:].copy()
        np.divide(block, self.noise.sd, out=self._trace[-size:])
        self._row_0 += size
        rows, channels = np.empty(ROOM, dtype=np.int32), np.empty(ROOM, dtype=np.int32)
        count = self._kernels.find_troughs(
            self._trace, self._near, edge, edge + size, self._threshold, edge - 1, rows, channels
        )
        self.counters["spikes"] += count
        start, self._stop = self._stop, max(self._stop, self._row_0 + edge + size)
        return Matched(
            start=start,
            stop=self._stop,
            samples=self._row_0 + rows[:count].astype(np.int64),
            units=channels[:count].copy(),
            amplitudes=np.ones(count, dtype=np.float32),
            channels=channels[:count].copy(),
            unassigned=0,
        )
