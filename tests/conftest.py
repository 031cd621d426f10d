"""What tests share: one tiny bundle with random weights, made once per run by the real exporter."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from exporters.export import Contents, write_bundle
from nuclr_stream.binning import WindowRules, WindowSpec
from nuclr_stream.bundle import TrainedOn
from nuclr_stream.evidence import Calibration
from offline_training.encoder import Encoder, EncoderConfig
from offline_training.readout import Readout
from offline_training.regression import Linear

TINY_TASKS = {"cell_type": ("E", "PV", "SST", "VIP"), "brain_region": ("CTX", "HPF", "TH")}


def tiny_readout(classes: tuple[str, ...], dim: int) -> Readout:
    """A readout with random coefficients, large enough that probabilities differ between units."""
    rng = np.random.default_rng(len(classes))
    linear = Linear(
        weight=rng.normal(0.0, 2.0, (len(classes), dim)),
        bias=rng.normal(0.0, 0.1, len(classes)),
        mean=rng.normal(0.0, 0.1, dim),
        scale=rng.uniform(0.5, 1.5, dim),
    )
    calibration = Calibration(n=(1.0, 10.0), temperature=(2.0, 1.0), abstain_below=0.4)
    return Readout(
        classes=classes,
        linear=linear,
        calibration=calibration,
        c=1.0,
        grouped_by="subject",
        out_of_fold_f1=0.0,
        calibrated_on="nothing: random numbers",
    )


def tiny_contents(seed: int = 0) -> Contents:
    """A bundle to be: 10 s of 20 ms bins every second, 16 embedding channels, weights drawn from `seed`."""
    torch.manual_seed(seed)
    config = EncoderConfig(dim=16, heads=2, head_dim=8, ffn_hidden=32, temporal_blocks=1, spatiotemporal_blocks=1)
    return Contents(
        name="tiny",
        encoder=Encoder(config),
        spec=WindowSpec(Fraction(50), config.bins_per_patch, config.patches, 50),
        rules=WindowRules(),
        readouts={name: tiny_readout(classes, config.dim) for name, classes in TINY_TASKS.items()},
        trained_on=TrainedOn(description="Nothing: random weights.", subjects=(), recordings=()),
        training={"seed": seed},
        evaluation={},
        max_units=256,
    )


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a small, valid bundle with random weights. Copy it before you change it."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(tiny_contents(), folder)
    return folder
