"""What tests share: one tiny bundle with random weights, made once per run by the real exporter."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings

from exporters.export import Contents, write_bundle
from nuclr_stream.bundle.manifest import TrainedOn, manifest_digest
from nuclr_stream.features.accumulator import SPIKE_SETS, FeatureSet, feature_count
from nuclr_stream.features.spike_statistics import STATISTICS
from nuclr_stream.prediction.out_of_distribution import KnownUnits, OutOfDistribution
from nuclr_stream.prediction.pool import LogLinearPool
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from offline_training.model.encoder import Encoder, EncoderConfig
from offline_training.readouts.predictor import Predictor
from offline_training.readouts.task_model import TaskModel

# One thread per test process: `make test` runs a process per core, and their threads must not compete for the cores.
# The variable is for the processes that tests start; this one has loaded its libraries already.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# The same examples in every run of `make test`; `make test-slow` searches freely, with more of them.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, print_blob=True)

TINY_TASKS = {"cell_type": ("E", "PV", "SST", "VIP"), "brain_region": ("CTX", "HPF", "TH")}


def change_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit manifest.json as plain values and give it the digest that belongs to it: consistent, right or wrong."""
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    edit(content)
    content["digest"] = manifest_digest(content)
    (folder / "manifest.json").write_text(json.dumps(content), encoding="utf-8")


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put another file into a bundle, with its right hash."""
    (folder / name).write_bytes(content)
    change_manifest(folder, lambda manifest: manifest["files"].update({name: hashlib.sha256(content).hexdigest()}))


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> None:
    """Some libraries that tests open turn on flush-to-zero for the whole thread, which hypothesis does not expect."""
    torch.set_flush_denormal(False)


def tiny_predictor(name: FeatureSet, classes: int, dim: int) -> Predictor:
    """A predictor with random coefficients, large enough that probabilities differ between units."""
    rng = np.random.default_rng([classes, len(name)])
    features = feature_count(name, dim)
    return Predictor(
        n=np.array([1.0, 6.0]),
        weight=rng.normal(0.0, 2 / np.sqrt(features), (2, classes, features)),
        bias=rng.normal(0.0, 0.1, (2, classes)),
        mean=rng.normal(0.0, 0.1, features),
        scale=rng.uniform(0.5, 1.5, features),
    )


def tiny_task(classes: tuple[str, ...], dim: int, *pools: tuple[FeatureSet, ...]) -> TaskModel:
    """A task with random predictors, pooled in the given ways (the embedding alone if none is given)."""
    ways = pools or (("embedding",),)
    names = {name for way in ways for name in way}
    settings = {"n": (1.0, 6.0), "temperature": (2.0, 1.0), "abstain_below": (0.6, 0.4), "set_above": (0.2, 0.25)}
    return TaskModel(
        classes=classes,
        predictors={name: tiny_predictor(name, len(classes), dim) for name in SPIKE_SETS if name in names},
        pools=tuple(LogLinearPool.equal(way, **settings) for way in ways),
        single={name: LogLinearPool.equal((name,), **settings) for name in names},
        c=dict.fromkeys(names, (0.1,)),
        scores={},
        calibrated_on="nothing: random numbers",
        threshold_promise="nothing: random numbers",
        sets_promise="nothing: random numbers",
    )


def tiny_out_of_distribution(dim: int) -> OutOfDistribution:
    """Everything is in distribution but rates below 0.01 Hz or above 100 Hz, and units of short intervals mostly."""
    wide = {
        name: KnownUnits(np.zeros((1, features)), np.eye(features), np.ones(1), np.full(1, 1e3))
        for name, features in (("embedding", dim), ("statistics", STATISTICS))
    }
    return OutOfDistribution(wide, (0.01, 100.0), 0.5, None)


def tiny_contents(seed: int = 0) -> Contents:
    """A bundle to be: 10 s of 20 ms bins every second, 16 embedding channels, weights drawn from `seed`."""
    torch.manual_seed(seed)
    config = EncoderConfig(dim=16, heads=2, head_dim=8, ffn_hidden=32, temporal_blocks=1, spatiotemporal_blocks=1)
    return Contents(
        name="tiny",
        encoder=Encoder(config),
        spec=WindowSpec(Fraction(50), config.bins_per_patch, config.patches, 50),
        rules=WindowRules(),
        tasks={name: tiny_task(classes, config.dim) for name, classes in TINY_TASKS.items()},
        trained_on=TrainedOn(description="Nothing: random weights.", subjects=(), recordings=()),
        training={"seed": seed},
        evaluation={},
        max_units=256,
    )


def made_once(tmp_path_factory: pytest.TempPathFactory, contents: Callable[[], Contents]) -> Path:
    """Directory of a bundle that the first test process to need it exports; the others wait for it.

    Processes of one run (pytest-xdist) have their temporary directories side by side.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / contents.__name__
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            made = tmp_path_factory.mktemp("bundles") / "bundle"
            write_bundle(contents(), made)
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a small, valid bundle with random weights. Copy it before you change it."""
    return made_once(tmp_path_factory, tiny_contents)


def pooled_contents() -> Contents:
    """The tiny bundle with pools of several predictors and an out-of-distribution score."""
    plain = tiny_contents()
    dim = plain.encoder.config.dim
    tasks = {name: tiny_task(classes, dim, SPIKE_SETS, ("statistics",)) for name, classes in TINY_TASKS.items()}
    return replace(
        plain, name="tiny-pools", tasks=tasks, out_of_distribution=tiny_out_of_distribution(dim), max_units=32
    )


@pytest.fixture(scope="session")
def pooled_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the same with pools and an out-of-distribution score. Copy it before you change it."""
    return made_once(tmp_path_factory, pooled_contents)
