"""Rows about what safety costs: how long the daemon copies for a snapshot, and how much is written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from nuclr_stream.daemon.saving import MAX_WRITE_BYTES_PER_S
from nuclr_stream.features.accumulator import FeatureAccumulator
from nuclr_stream.features.coupling import COUPLING_SUMS
from nuclr_stream.features.isi import INTERVAL_BINS
from nuclr_stream.snapshots import pack
from tests.faults.rig import model
from tests.faults.row import Outcome, Row, Size

UNITS = 1_000
WINDOWS = 3
COPY_MS = 100.0


def snapshot_cost(seed: int, size: Size, folder: Path) -> Outcome:
    """Copy and pack what a stream of 1,000 units gathers: CPU time of the thread, and bytes."""
    features = _gathered(seed)
    copies = []
    for _ in range({"test": 2, "ci": 20, "long": 50}[size]):
        start = time.thread_time()
        state = features.dump()
        copies.append((time.thread_time() - start) * 1e3)
    start = time.thread_time()
    written = sum(map(len, pack.pack(state)))
    pack_ms = (time.thread_time() - start) * 1e3
    with mock.patch.object(pack, "_narrow", lambda values: values):  # sums over pairs of units as they are in memory
        wide = sum(map(len, pack.pack(state | {"again": _uneven(state)})))
    copy_ms = float(np.median(copies))
    return Outcome(
        held=written <= MAX_WRITE_BYTES_PER_S and (size == "test" or copy_ms <= COPY_MS),
        caught=wide > MAX_WRITE_BYTES_PER_S,
        figures={
            "units": UNITS,
            "copy_cpu_ms_p50": round(copy_ms, 1),
            "pack_cpu_ms": round(pack_ms, 1),
            "bytes": written,
            "bytes_a_second_at_most": MAX_WRITE_BYTES_PER_S,
            "planted_bytes": wide,
        },
    )


def _gathered(seed: int) -> FeatureAccumulator:
    """What some windows of 1,000 units add up to."""
    rng, manifest = np.random.default_rng(seed), model().manifest
    spec, index = manifest.spec, np.arange(UNITS)
    features = FeatureAccumulator(spec, manifest.embedding_dim)
    for step in range(WINDOWS):
        features.add_activity(
            index,
            rng.poisson(0.1, (UNITS, spec.bins)).astype(np.float32),
            end_bin=spec.bins + step * spec.hop_bins,
            eligible=np.ones(UNITS, dtype=np.bool_),
            intervals=rng.poisson(1.0, (UNITS, INTERVAL_BINS)).astype(np.int32),
            coupling=rng.poisson(3.0, (UNITS, COUPLING_SUMS)),
        )
        embeddings = rng.normal(size=(UNITS, manifest.embedding_dim)).astype(np.float32)
        features.add_embeddings(index, embeddings)
    return features


def _uneven(state: dict[str, Any]) -> list[Any]:
    """The sums over pairs as they are once units came and went: no two columns alike."""
    return [sums + np.arange(UNITS) for sums in state["coactivity"]["sums"]]


ROWS = (
    Row(
        id="R15-cost",
        promise="a snapshot of 1,000 units delays no step noticeably and is written at a bounded rate",
        bar="copied in <= 100 ms of CPU time; bytes within a second's worth of the bound",
        planted="arrays written as wide as they are in memory",
        run=snapshot_cost,
    ),
)
