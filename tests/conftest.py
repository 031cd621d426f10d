"""What tests share: one tiny bundle with random weights, made once per run by the real exporter."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from exporters.export import Contents, write_bundle
from nuclr_stream.bundle.manifest import TrainedOn
from nuclr_stream.features.accumulator import FeatureSet, feature_count
from nuclr_stream.features.mean_embedding import Calibration
from nuclr_stream.features.spike_statistics import STATISTICS
from nuclr_stream.prediction.out_of_distribution import KnownUnits, OutOfDistribution
from nuclr_stream.prediction.pool import LogLinearPool
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from offline_training.model.encoder import Encoder, EncoderConfig
from offline_training.readouts.predictors import Predictors
from offline_training.readouts.readout import Readout
from offline_training.readouts.regression import Linear

# The same examples in every run of `make test`; `make test-slow` searches freely, with more of them.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, print_blob=True)

TINY_TASKS = {"cell_type": ("E", "PV", "SST", "VIP"), "brain_region": ("CTX", "HPF", "TH")}


def tiny_readout(classes: tuple[str, ...], dim: int) -> Readout:
    """A readout with random coefficients, large enough that probabilities differ between units."""
    rng = np.random.default_rng(len(classes))
    linear = Linear(
        weight=rng.normal(0.0, 2.0, (len(classes), dim)),
        bias=rng.normal(0.0, 0.1, len(classes)),
        mean=rng.normal(0.0, 0.1, (2, dim)),
        scale=rng.uniform(0.5, 1.5, (2, dim)),
        n=np.array([1.0, 6.0]),
        limit=2.0,
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


def tiny_predictors(classes: tuple[str, ...], dim: int) -> Predictors:
    """Four predictors with random coefficients that speak together in two ways."""
    rng = np.random.default_rng(len(classes))
    sets: tuple[FeatureSet, ...] = ("embedding", "embedding_neighbourhood", "statistics", "statistics_neighbourhood")
    linears = {"embedding": tiny_readout(classes, dim).linear}
    for name in sets[1:]:
        features = feature_count(name, dim)
        weight = rng.normal(0.0, 1 / np.sqrt(features), (len(classes), features))
        bias, scale = rng.normal(0.0, 0.1, len(classes)), rng.uniform(0.5, 1.5, (3, features))
        linears[name] = Linear(weight, bias, np.zeros((3, features)), scale, np.array([1.0, 3.0, 30.0]))
    common = {"n": (1.0, 6.0), "abstain_below": (0.6, 0.4), "set_above": (0.2, 0.25)}
    together = LogLinearPool(predictors=sets, weight=((0.3, 0.6), (0.2, 0.4), (0.9, 0.7), (0.4, 0.2)), **common)
    alone = LogLinearPool(predictors=("statistics",), weight=((0.5, 1.0),), **common)
    nothing = dict.fromkeys(sets, 0.0)
    return Predictors(dim, linears, nothing, nothing, (together, alone), 0.5, "nothing: random numbers")


def tiny_familiarity(dim: int) -> OutOfDistribution:
    """Everything is familiar but rates below 0.01 Hz or above 100 Hz, and units of short intervals mostly."""
    wide = {
        name: KnownUnits(np.zeros((1, features)), np.eye(features), np.ones(1), np.full(1, 1e3))
        for name, features in (("embedding", dim), ("statistics", STATISTICS))
    }
    return OutOfDistribution(wide, (0.01, 100.0), 0.5)


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


def pooled_contents() -> Contents:
    """The tiny bundle with predictors and out_of_distribution."""
    plain = tiny_contents()
    dim = plain.encoder.config.dim
    readouts = {
        name: replace(readout, predictors=tiny_predictors(readout.classes, dim))
        for name, readout in plain.readouts.items()
    }
    return replace(
        plain, name="tiny-predictors", readouts=readouts, out_of_distribution=tiny_familiarity(dim), max_units=32
    )


@pytest.fixture(scope="session")
def pooled_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the same with predictors, pools and out_of_distribution. Copy it before you change it."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny-predictors"
    write_bundle(pooled_contents(), folder)
    return folder
