"""The high-pass, forward and backward, and the median over channels."""

from __future__ import annotations

import numpy as np

from nuclr_stream.matching.kernels.compiling import Floats, compiled

BISECTIONS = 18
"""Halvings of the range of one sample when its median over channels is sought: to 4e-6 of the range."""


@compiled
def filter_forward(block: Floats, sections: Floats, state: Floats) -> None:
    """Filter `block` (T, C) in place by second-order `sections` (Q, 5: b0 b1 b2 a1 a2); `state` (Q, 2, C) goes on."""
    for t in range(block.shape[0]):
        row = block[t]
        for q in range(sections.shape[0]):
            b0, b1, b2, a1, a2 = sections[q]
            first, second = state[q, 0], state[q, 1]
            for c in range(row.shape[0]):
                x = row[c]
                y = b0 * x + first[c]
                first[c] = b1 * x - a1 * y + second[c]
                second[c] = b2 * x - a2 * y
                row[c] = y


@compiled
def filter_backward(block: Floats, sections: Floats, state: Floats) -> None:
    """The same from the last sample to the first."""
    for t in range(block.shape[0] - 1, -1, -1):
        row = block[t]
        for q in range(sections.shape[0]):
            b0, b1, b2, a1, a2 = sections[q]
            first, second = state[q, 0], state[q, 1]
            for c in range(row.shape[0]):
                x = row[c]
                y = b0 * x + first[c]
                first[c] = b1 * x - a1 * y + second[c]
                second[c] = b2 * x - a2 * y
                row[c] = y


@compiled
def subtract_median(block: Floats) -> None:
    """Subtract from every sample of `block` (T, C) the median over channels, found by halving the range it lies in."""
    channels = block.shape[1]
    half = channels // 2
    for t in range(block.shape[0]):
        row = block[t]
        low, high = row[0], row[0]
        for c in range(channels):
            low = min(low, row[c])
            high = max(high, row[c])
        for _ in range(BISECTIONS):
            middle = np.float32(0.5) * (low + high)
            below = np.int32(0)
            for c in range(channels):
                below += np.int32(row[c] < middle)
            if below > half:
                high = middle
            else:
                low = middle
        middle = np.float32(0.5) * (low + high)
        for c in range(channels):
            row[c] -= middle
