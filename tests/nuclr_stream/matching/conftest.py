"""A folder of an earlier sorting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.nuclr_stream.matching.made import CHANNELS, NOISE, RATE, positions, templates


@pytest.fixture
def kilosort(tmp_path: Path) -> Path:
    """What Kilosort 4 leaves: templates in whitened samples; cluster 3 is noise, 0 and 1 were merged into 7 by hand."""
    mixing = NOISE * (np.eye(CHANNELS) + 0.3 * np.eye(CHANNELS, k=1))
    whitening = np.linalg.inv(mixing)
    arrays: dict[str, Any] = {
        "templates": (templates().waveforms @ whitening.T).astype(np.float32),
        "whitening_mat_dat": whitening.astype(np.float32),
        "whitening_mat": 0.005 * np.eye(CHANNELS),
        "channel_positions": positions(),
        "channel_map": np.arange(CHANNELS) + 5,
        "spike_times": np.arange(8),
        "spike_templates": np.array([0, 0, 0, 1, 2, 2, 3, 3]),
        "spike_clusters": np.array([7, 7, 7, 7, 2, 2, 3, 3]),
    }
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    (tmp_path / "params.py").write_text(f"dat_path = 'x.bin'\nsample_rate = {RATE}.0\n")
    (tmp_path / "cluster_group.tsv").write_text("cluster_id\tgroup\n2\tgood\n3\tnoise\n7\tmua\n")
    return tmp_path
