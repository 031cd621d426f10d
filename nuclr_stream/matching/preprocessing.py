"""Live samples filtered as those of the sorting were: a zero-phase high-pass with bounded lookahead, and a reference.

The forward filter goes on for ever. The backward one begins `lookahead` samples after the block that it is for, where
what it has forgotten is below a thousandth. Blocks lie on a grid that begins with the first sample: the same samples
give the same blocks bit by bit, however they arrive.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfilt_zi

from nuclr_stream.matching.templates import Filtering, Float32Array

LOOKAHEAD_PERIODS = 0.5
"""Periods of the high-pass frequency, for every order, after which a Butterworth filter has forgotten."""


class Preprocessor:
    """Filters a stream of samples block by block; make a new one after a gap.

    `push` takes samples (T, C) of any length and returns the blocks (B, C) float32 that are complete, each
    `lookahead` samples late.
    """

    def __init__(
        self, kernels: Any, *, filtering: Filtering, sample_rate: float, channels: int, block_samples: int
    ) -> None:
        self.lookahead = math.ceil(LOOKAHEAD_PERIODS * filtering.order * sample_rate / filtering.highpass_hz)
        self.block_samples = block_samples
        self._kernels = kernels
        self._reference = filtering.reference
        sections = butter(filtering.order, filtering.highpass_hz, "highpass", fs=sample_rate, output="sos")
        self._sections = np.ascontiguousarray(sections[:, [0, 1, 2, 4, 5]], dtype=np.float32)
        self._rest = sosfilt_zi(sections)  # (Q, 2): the state after a constant 1
        self._state: Float32Array | None = None
        self._pending = np.empty((block_samples + self.lookahead, channels), dtype=np.float32)
        self._filled = 0

    def push(self, samples: npt.NDArray[Any]) -> list[Float32Array]:
        """Take samples (T, C) of any real type; return the filtered blocks that they complete."""
        if self._state is None and len(samples):
            # a filter that has seen the first sample for ever does not ring with the channels' offsets
            start = samples[0].astype(np.float64)
            self._state = np.ascontiguousarray(self._rest[:, :, None] * start, dtype=np.float32)
        blocks, taken = [], 0
        while taken < len(samples):
            part = samples[taken : taken + len(self._pending) - self._filled]
            new = self._pending[self._filled : self._filled + len(part)]
            new[:] = part
            self._kernels.filter_forward(new, self._sections, self._state)
            self._filled += len(part)
            taken += len(part)
            if self._filled == len(self._pending):
                blocks.append(self._block())
        return blocks

    def _block(self) -> Float32Array:
        work = self._pending.copy()
        self._kernels.filter_backward(work, self._sections, np.zeros_like(self._state))
        block = np.ascontiguousarray(work[: self.block_samples])
        if self._reference:
            self._kernels.subtract_median(block)
        self._pending[: self.lookahead] = self._pending[self.block_samples :]
        self._filled = self.lookahead
        return block
