"""What an earlier sorting found: the mean waveform of every unit, and how its samples had been filtered."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]

CHANNELS_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Filtering:
    """How samples were prepared for the sorting: a zero-phase Butterworth high-pass, and a common reference.

    `highpass_hz` and `order` are those of the filter that runs forward and backward; `reference` is whether the median
    over channels is subtracted.
    """

    highpass_hz: float = 300.0
    order: int = 3
    reference: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Templates:
    """The units of an earlier sorting, U of them on C channels, in the filtered samples of its recording.

    Args:
        source: the folder they come from, for messages.
        unit_ids: U names.
        waveforms: (U, S, C) float32, in `unit_of_samples`.
        trough: the sample of a waveform that is the time of its spike.
        sample_rate: samples a second, exact.
        positions_um: (C, 2) x and depth of every channel.
        shanks: (C,) the shank of every channel, 0 where there is one.
        channels: (C,) which channel of the acquisition each is.
        unit_of_samples: "raw" for the integers of the acquisition, "uV".
        noise: (C,) standard deviation of the noise in the sorting's recording, None where the folder does not say.
        filtering: how the samples had been filtered.
        notes: what the reader left out and guessed, a line each.

    Raises RecordingError when they do not belong together.
    """

    source: str
    unit_ids: tuple[str, ...]
    waveforms: Float32Array
    trough: int
    sample_rate: Fraction
    positions_um: Float32Array
    shanks: Int32Array
    channels: Int32Array
    unit_of_samples: str
    noise: Float32Array | None = None
    filtering: Filtering = field(default_factory=Filtering)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, units, channels = self.waveforms.shape, len(self.unit_ids), len(self.channels)
        if len(shape) != 3 or shape[0] != units or shape[2] != channels:
            raise RecordingError(
                f"{self.source}: waveforms {shape} for {units} units on {channels} channels; templates and channel map "
                "must be of one sorting"
            )
        if not units:
            raise RecordingError(f"{self.source}: no unit is left to match; sort a longer stretch, or keep more units")
        if len(set(self.unit_ids)) != units:
            raise RecordingError(f"{self.source}: two units have one id; ids must differ")
        if not 0 < self.trough < shape[1]:
            raise RecordingError(f"{self.source}: the spike is at sample {self.trough} of waveforms of {shape[1]}")
        bad = np.flatnonzero(~np.isfinite(self.waveforms).all(axis=(1, 2)) | ~self.waveforms.any(axis=(1, 2)))
        if bad.size:
            raise RecordingError(
                f"{self.source}: the template of unit {self.unit_ids[bad[0]]} is empty or not finite; remove the unit"
            )
        if self.positions_um.shape != (channels, 2) or not np.isfinite(self.positions_um).all():
            raise RecordingError(f"{self.source}: positions of channels have shape {self.positions_um.shape}")

    @property
    def peak_channel(self) -> Int32Array:
        """The row (U,) of the channel on which each unit is largest, peak to peak."""
        return np.asarray(np.ptp(self.waveforms, axis=1).argmax(axis=1), dtype=np.int32)

    @property
    def unit_positions_um(self) -> Float32Array:
        """Where each unit lies (U, 2): x and depth, the mean over its largest channels weighted by their power."""
        height = np.ptp(self.waveforms, axis=1)
        weight = np.where(height >= 0.2 * height.max(axis=1, keepdims=True), height, 0.0).astype(np.float64) ** 2
        weight *= self.shanks[None, :] == self.shanks[self.peak_channel][:, None]
        return np.asarray((weight @ self.positions_um) / weight.sum(axis=1, keepdims=True), dtype=np.float32)
