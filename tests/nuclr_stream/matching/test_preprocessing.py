"""Live filtering is the filtering of the sorting: a zero-phase Butterworth filter, and the median over channels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from nuclr_stream.matching.matcher import load_kernels
from nuclr_stream.matching.preprocessing import Preprocessor
from nuclr_stream.matching.templates import Filtering


@pytest.mark.parametrize("order", [3, 5])
def test_blocks_are_those_of_the_offline_filter(order: int) -> None:
    raw = np.random.default_rng(0).normal(0, 10, (6_000, 5)) + 200.0
    live = Preprocessor(
        load_kernels(),
        filtering=Filtering(order=order, reference=False),
        sample_rate=30_000,
        channels=5,
        block_samples=300,
    )
    found = np.concatenate(live.push(raw))
    offline = sosfiltfilt(butter(order, 300, "highpass", fs=30_000, output="sos"), raw, axis=0)
    assert len(found) == 5_700
    assert found[300:] == pytest.approx(offline[300 : len(found)], abs=0.1)


@pytest.mark.parametrize("channels", [4, 7])
def test_the_reference_is_the_median_over_channels(channels: int) -> None:
    block = np.random.default_rng(1).normal(0, 10, (50, channels)).astype(np.float32)
    expected = block - np.median(block, axis=1, keepdims=True) if channels % 2 else None
    load_kernels().subtract_median(block)
    if expected is not None:
        assert block == pytest.approx(expected, abs=1e-2)
    assert (np.abs((block < 1e-2).sum(axis=1) - (block > -1e-2).sum(axis=1)) <= 1).all()
