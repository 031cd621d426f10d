"""Raw samples of one probe in, spikes of sorted units out, live: no socket, clock or thread lives here.

Everything happens in blocks on a grid that begins with the first sample of a stretch: the same samples give the same
spikes, however they arrive. Spikes come `Matcher.latency_ms` after their samples, at most.
"""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import ConfigError
from nuclr_stream.matching.dictionary import MOST_LAG_MS, build
from nuclr_stream.matching.noise import Noise, measure_noise
from nuclr_stream.matching.preprocessing import Preprocessor
from nuclr_stream.matching.settings import DEFAULTS, MatchingSettings
from nuclr_stream.matching.templates import Float32Array, Int32Array, Templates

Int64Array = npt.NDArray[np.int64]

ROOM = 4096
"""Spikes that one block can hold; what is beyond stays in the samples and is counted as unassigned."""
LONG_AGO = -(2**30)
LARGE_TROUGH = 5.0
"""A trough that is left over counts as unassigned from this many standard deviations on: noise seldom goes there."""


def load_kernels() -> Any:
    """Return the compiled inner loops. Raises ConfigError, with the remedy, where numba is not installed."""
    try:
        return importlib.import_module("nuclr_stream.matching.kernels")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"matching raw samples needs {error.name}, which is not installed: pip install 'nuclr-stream[matching]'"
        ) from error


@dataclass(frozen=True, eq=False)
class Matched:
    """All spikes of samples [start, stop): `samples` (N,) ascending, `units` (N,) rows, `amplitudes` (N,) as shares of
    the template, `channels` (N,) rows where each was detected. `unassigned` large troughs fit no unit."""

    start: int
    stop: int
    samples: Int64Array
    units: Int32Array
    amplitudes: Float32Array
    channels: Int32Array
    unassigned: int


class Matcher:
    """Assigns the spikes of a stream to templates.

    Args:
        templates: of the earlier sorting.
        scale: what one step of the live samples is in the unit of the templates.
        settings: see MatchingSettings.

    `counters` says what became of samples and troughs. Until `calibration_s` of the stream have arrived, nothing comes
    out; the spikes of that time come then.
    """

    def __init__(self, templates: Templates, *, scale: float = 1.0, settings: MatchingSettings = DEFAULTS) -> None:
        self.templates = templates
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self.noise: Noise | None = None
        self._kernels = load_kernels()
        self._live = templates if scale == 1.0 else _scaled(templates, scale)
        rate = float(templates.sample_rate)
        self.block_samples = max(1, round(settings.block_ms * rate / 1000))
        self._window = round(settings.before_ms * rate / 1000) + round(settings.after_ms * rate / 1000)
        # A spike lies this far from the trough that led to it, at most: it may come before a block that is still open,
        # also as the second of two that overlap, whose trough is searched half a window around the first's.
        moved = round(MOST_LAG_MS * rate / 1000) + max(1, round(settings.shift_ms * rate / 1000))
        self._margin = moved + round(settings.before_ms * rate / 1000)
        wave_after = templates.waveforms.shape[1] - templates.trough
        # Troughs are judged up to half a window past the block, so that what overlaps its end is known.
        self._beyond = self._window // 2
        self._back = max(self._window, templates.trough) + self._margin + 1
        self._ahead = max(self._beyond + self._window, wave_after) + self._margin + 1
        self._next: int | None = None
        self._begin(0)

    @property
    def latency_ms(self) -> float:
        """How long after a sample its spikes come at the latest, without the time for the arithmetic."""
        samples: int = self.block_samples + self._preprocessor.lookahead + self._ahead + self._margin
        return 1000 * samples / float(self.templates.sample_rate)

    @property
    def next_sample(self) -> int | None:
        """The sample that continues the stream, None before the first."""
        return self._next

    def push(self, samples: npt.NDArray[Any], *, first_sample: int) -> list[Matched]:
        """Take samples (T, C) of the stream from `first_sample` on; return what is complete with them.

        Samples that do not continue those before begin a new stretch: the end of the old one that was still open is
        given up and counted in `samples_given_up`, and what lies between is for the caller to declare.
        """
        if samples.ndim != 2 or samples.shape[1] != len(self.templates.channels):
            raise ConfigError(
                f"samples {samples.shape}: the templates of {self.templates.source} have "
                f"{len(self.templates.channels)} channels; ask for those"
            )
        if self._next != first_sample:
            if self._next is not None:
                self.counters["stretches"] += 1
                self.counters["samples_given_up"] += self._next - self._stop
            self._begin(first_sample)
        self._next = first_sample + len(samples)
        self.counters["samples"] += len(samples)
        matched = []
        for block in self._preprocessor.push(samples):
            matched += self._take(block)
        return matched

    def _begin(self, first_sample: int) -> None:
        channels = len(self.templates.channels)
        self._preprocessor = Preprocessor(
            self._kernels,
            filtering=self.templates.filtering,
            sample_rate=float(self.templates.sample_rate),
            channels=channels,
            block_samples=self.block_samples,
        )
        self._trace = np.zeros((self._back + self.block_samples + self._ahead, channels), dtype=np.float32)
        self._row_0 = first_sample - self._back - self._ahead - self.block_samples  # the sample of row 0
        self._stop: int = first_sample
        self._last = np.full(len(self.templates.unit_ids), LONG_AGO, dtype=np.int32)
        self._held: list[tuple[Int64Array, Int32Array, Float32Array, Int32Array]] = []
        self._uncalibrated: list[Float32Array] = []

    def _take(self, block: Float32Array) -> list[Matched]:
        """Match a filtered block; before the noise is known, wait until there are enough of them."""
        if self.noise is not None:
            return [self._match(block)]
        self._uncalibrated.append(block)
        waiting = len(self._uncalibrated) * self.block_samples
        if waiting < self.settings.calibration_s * float(self.templates.sample_rate):
            return []
        self.noise = measure_noise(np.concatenate(self._uncalibrated), window_samples=self._window)
        self._dictionary, self._limits = build(self._kernels, self._live, self.noise, self.settings)
        blocks, self._uncalibrated = self._uncalibrated, []
        return [self._match(one) for one in blocks]

    def _match(self, block: Float32Array) -> Matched:
        kernels, size = self._kernels, self.block_samples
        # the window moves on by a block, and with it the rows of earlier spikes
        self._trace[:-size] = self._trace[size:]
        np.divide(block, self.noise.sd, out=self._trace[-size:])  # type: ignore[union-attr]
        self._row_0 += size
        self._last = np.maximum(self._last - size, LONG_AGO).astype(np.int32)
        begin, end = self._back, self._back + size
        # everything up to a little past the block is found, so that overlaps with what comes next are known;
        # what lies past it is put back, and found again in the next block with all of its surroundings
        columns = [np.empty(ROOM, dtype=np.int32) for _ in range(4)]
        spikes = kernels.Spikes(*columns, np.empty(ROOM, dtype=np.float32))
        count = kernels.peel(self._trace, self._dictionary, self._limits, begin, end + self._beyond, self._last, spikes)
        count = kernels.restore(self._trace, self._dictionary, self._limits, spikes, count, end)
        np.maximum.at(self._last, spikes.unit[:count], spikes.row[:count])
        unassigned = self._left_over(begin, end)
        self.counters["spikes"] += count
        self.counters["unassigned"] += unassigned
        return self._release(spikes, count, unassigned, stop=self._row_0 + end - self._margin)

    def _left_over(self, begin: int, end: int) -> int:
        rows, channels = np.empty(ROOM, dtype=np.int32), np.empty(ROOM, dtype=np.int32)
        found: int = self._kernels.find_troughs(
            self._trace, self._dictionary.near, begin, end, LARGE_TROUGH, self._limits.exclusion, rows, channels
        )
        return found

    def _release(self, spikes: Any, count: int, unassigned: int, *, stop: int) -> Matched:
        """Return the spikes before `stop`, in order, and keep the others for the next block."""
        self._held.append(
            (
                self._row_0 + spikes.row[:count].astype(np.int64),
                spikes.unit[:count].copy(),
                spikes.amplitude[:count].copy(),
                spikes.channel[:count].copy(),
            )
        )
        samples, units, amplitudes, channels = (np.concatenate(column) for column in zip(*self._held, strict=True))
        order = np.lexsort((units, samples))
        done, later = order[samples[order] < stop], order[samples[order] >= stop]
        self._held = [(samples[later], units[later], amplitudes[later], channels[later])]
        start, self._stop = self._stop, max(stop, self._stop)
        return Matched(
            start=start,
            stop=self._stop,
            samples=np.maximum(samples[done], start),  # a trough at the very first samples
            units=units[done],
            amplitudes=amplitudes[done],
            channels=channels[done],
            unassigned=unassigned,
        )


def _scaled(templates: Templates, scale: float) -> Templates:
    """Return the templates in steps of the live samples, each of them `scale` of the templates' unit."""
    if not 0 < scale < float("inf"):
        raise ConfigError(f"scale = {scale}: give what one step of the live samples is, above 0")
    return replace(templates, waveforms=(templates.waveforms / scale).astype(np.float32))
