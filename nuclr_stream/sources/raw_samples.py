"""Raw samples of one probe on their way to the daemon: spikes are found in them here, matched or as crossings.

What was not recorded, what has to be given up around it, and what was recorded while the templates did not fit is
declared as missing. A sample number that goes back is a new epoch.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy.typing as npt

from nuclr_stream.errors import ConfigError
from nuclr_stream.matching.crossings import ThresholdCrossings
from nuclr_stream.matching.fit import FitMonitor, unlike_the_sorting
from nuclr_stream.matching.matcher import Matched, Matcher
from nuclr_stream.matching.templates import Templates
from nuclr_stream.sources.writer import StreamWriter, UnitPlace

RATE_TOLERANCE = 1e-3


class RawSamples:
    """One probe: `take` samples in order, `close` in the end.

    Args:
        endpoint: where the daemon takes data.
        stream: name of the probe there.
        sample_rate: of the device, exact.
        templates: of an earlier sorting; None for threshold crossings.
        positions_um: (C, 2) of the channels, for crossings; those of the templates otherwise.
        scale: what one step of the samples is in the unit of the templates.

    `state` is "calibrating", "matching", "crossings" or "degraded", `reason` says why it is degraded.
    Raises ConfigError when the templates are of another sample rate.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        stream: str,
        sample_rate: Fraction,
        templates: Templates | None,
        positions_um: npt.NDArray[Any] | None = None,
        scale: float = 1.0,
    ) -> None:
        if templates is not None and abs(float(sample_rate / templates.sample_rate) - 1) > RATE_TOLERANCE:
            raise ConfigError(
                f"stream {stream!r} has {float(sample_rate):g} samples a second, the sorting {templates.source} "
                f"{float(templates.sample_rate):g}; sort a recording of this device"
            )
        if templates is None and positions_um is None:
            raise ConfigError(f"stream {stream!r}: without templates the positions of its channels must be known")
        self.counters: Counter[str] = Counter()
        self.pending_notes: list[str] = []
        self.writer: StreamWriter | None = None
        self.sample_rate = sample_rate
        self._endpoint, self._stream = endpoint, stream
        self._templates, self._scale = templates, scale
        self._finder: Matcher | ThresholdCrossings
        if templates is not None:
            self._finder = Matcher(templates, scale=scale)
            self._fit: FitMonitor | None = FitMonitor(templates)
            self._names = list(templates.unit_ids)
        else:
            assert positions_um is not None
            self._finder = ThresholdCrossings(positions_um, sample_rate=sample_rate)
            self._fit = None
            self._names = [f"ch{channel}-unsorted" for channel in range(len(positions_um))]
            self.pending_notes.append(
                f"{stream}: no templates: threshold crossings of every channel, marked unsorted; predictions of them "
                "are out of distribution"
            )
        self._places = _places(templates, positions_um)
        self._checked_noise = False

    @property
    def next_sample(self) -> int | None:
        """The sample that continues the stream, None before the first."""
        return self._finder.next_sample

    @property
    def state(self) -> str:
        """What it is doing."""
        if self._finder.noise is None:
            return "calibrating"
        if self._fit is None:
            return "crossings"
        return "degraded" if self._fit.reason else "matching"

    @property
    def reason(self) -> str:
        """Why what comes now is declared as missing; empty while it is not."""
        return self._fit.reason if self._fit is not None else ""

    def take(self, samples: npt.NDArray[Any], *, first_sample: int) -> None:
        """Take samples (T, C) from `first_sample` on, and send what is complete.

        Raises ConfigError when the noise is not that of the sorting's recording: the gain is wrong, and so would be
        every spike.
        """
        writer = self._writer_at(first_sample)
        expected = self._finder.next_sample
        if expected is not None and first_sample < expected:
            self._end_epoch(writer, f"sample number {first_sample} after {expected}: the device started again")
            writer.begin(first_sample)
            self._declare_units(writer)
        elif expected is not None and first_sample > expected:
            self.counters["samples_missing"] += first_sample - expected
            self.pending_notes.append(
                f"{self._stream}: {first_sample - expected} samples are missing before sample {first_sample}"
            )
        found = self._finder.push(samples, first_sample=first_sample)
        self._check_noise()  # before a spike leaves
        for matched in found:
            self._send(writer, matched)

    def _send(self, writer: StreamWriter, matched: Matched) -> None:
        if matched.start > writer.watermark:  # between two stretches
            writer.lost(writer.watermark, matched.start)
        if self._fit is not None and self._fit.take(matched):
            self.pending_notes.append(f"{self._stream}: {self._fit.reason or 'the templates fit again'}")
        for unit, sample in zip(matched.units.tolist(), matched.samples.tolist(), strict=True):
            writer.spike(self._names[unit], sample)
        if self.reason:
            writer.lost(matched.start, matched.stop)
            self.counters["samples_degraded"] += matched.stop - matched.start
        writer.advance(matched.stop)

    def _check_noise(self) -> None:
        if self._checked_noise or self._finder.noise is None or self._templates is None:
            return
        self._checked_noise = True
        unlike = unlike_the_sorting(self._templates, self._finder.noise, scale=self._scale)
        if unlike:
            raise ConfigError(f"stream {self._stream!r}: {unlike}")

    def close(self) -> None:
        """Send what is held and end the stream."""
        if self.writer is not None:
            self._end_epoch(self.writer, "")
            self.writer.close()

    def notes(self) -> list[str]:
        """Return what there is to say since it was asked last."""
        notes, self.pending_notes = self.pending_notes, []
        return notes

    def report(self) -> dict[str, Any]:
        """Return what came and what became of it, as plain values."""
        sent = dict(self.writer.counters) if self.writer is not None else {}
        found: dict[str, Any] = (
            {"state": self.state, "reason": self.reason} | dict(self._finder.counters) | dict(self.counters) | sent
        )
        if self._fit is not None:
            found |= {"drift_um": self._fit.drift_um, "unassigned_share": self._fit.unassigned_share}
        return found

    def _writer_at(self, first_sample: int) -> StreamWriter:
        if self.writer is None:
            self.writer = StreamWriter(
                self._endpoint, stream=self._stream, sample_rate=self.sample_rate, start=first_sample
            )
            self._declare_units(self.writer)
        return self.writer

    def _declare_units(self, writer: StreamWriter) -> None:
        for name, place in zip(self._names, self._places, strict=True):
            writer.add_unit(name, place)

    def _end_epoch(self, writer: StreamWriter, why: str) -> None:
        if why:
            self.counters["restarts"] += 1
            self.pending_notes.append(f"{self._stream}: {why}; a new epoch begins")
        writer.finish()


def _places(templates: Templates | None, positions_um: npt.NDArray[Any] | None) -> list[UnitPlace]:
    """Return where every unit lies, matched units by their templates and crossings by their channel."""
    if templates is None:
        assert positions_um is not None
        return [UnitPlace(channel=c, x_um=float(x), depth_um=float(y)) for c, (x, y) in enumerate(positions_um)]
    peaks, positions = templates.peak_channel, templates.unit_positions_um
    return [
        UnitPlace(
            channel=int(templates.channels[peak]), shank=int(templates.shanks[peak]), x_um=float(x), depth_um=float(y)
        )
        for peak, (x, y) in zip(peaks.tolist(), positions.tolist(), strict=True)
    ]
