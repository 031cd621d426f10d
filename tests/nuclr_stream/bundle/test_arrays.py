"""Arrays of a bundle, its sample and what is known of the units of training: checked before anything runs."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.bundle import manifest as bundle_module
from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.errors import BundleError
from nuclr_stream.inference.model import Model, check_bundle
from tests.conftest import replace_file

# -- the sample -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "spoiled"))


def with_arrays(folder: Path, name: str, edit: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Edit the arrays of a file of the bundle and give it its right hash."""
    with np.load(folder / name) as archive:
        arrays = dict(archive)
    edit(arrays)
    made = io.BytesIO()
    np.savez_compressed(made, allow_pickle=False, **arrays)
    replace_file(folder, name, made.getvalue())


def test_a_sample_without_the_output_of_a_task_is_rejected(folder: Path):
    with_arrays(folder, "sample.npz", lambda arrays: arrays.pop("readout_cell_type_embedding.onnx"))
    with pytest.raises(BundleError, match=r"sample\.npz: readout_cell_type_embedding\.onnx missing; export the bundle"):
        check_bundle(load_bundle(folder))


def test_a_sample_that_is_no_archive_of_arrays_or_a_bomb_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = load_bundle(folder)
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(BundleError, match=r"sample\.npz: unpacks to \d+ bytes"):
        check_bundle(bundle)
    monkeypatch.undo()
    replace_file(folder, "sample.npz", b"no archive")
    with pytest.raises(BundleError, match=r"sample\.npz: not a readable"):
        check_bundle(load_bundle(folder))


GRAPH = "readout_brain_region_embedding.onnx"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("counts", lambda a: a[:, :-1]),
        ("counts", lambda a: a[0]),
        ("counts", lambda a: a.astype(np.float64)),
        ("counts", lambda a: a[:0]),
        ("mask", lambda a: a[:-1]),
        ("mask", lambda a: a[0]),
        ("mask", lambda a: a.astype(np.uint8)),
        ("mask", lambda a: ~a),
        ("embedding", lambda a: a[:-1]),
        ("embedding", lambda a: a[:, :-1]),
        ("features_embedding", lambda a: a[:, :-1]),
        ("features_embedding", lambda a: a[:-1]),
        ("features_embedding", lambda a: a[None]),
        (GRAPH, lambda a: a[:, :-1]),
        (GRAPH, lambda a: a[:, 0]),
        (GRAPH, lambda a: a + 1),
        ("embedding", lambda a: a * np.float32(np.nan)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_sample_that_does_not_fit_the_manifest_is_rejected(
    folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]
):
    with_arrays(folder, "sample.npz", lambda arrays: arrays.update({name: change(arrays[name])}))
    with pytest.raises(BundleError, match=r"sample\.npz: "):
        check_bundle(load_bundle(folder))


def test_a_sample_in_which_no_unit_is_active_or_another_is_named_is_rejected(folder: Path):
    def nobody(arrays: dict[str, np.ndarray]) -> None:
        arrays.update(counts=np.zeros_like(arrays["counts"]), mask=np.zeros_like(arrays["mask"]))
        arrays["embedding"] = arrays["embedding"][:0]

    def another(arrays: dict[str, np.ndarray]) -> None:
        arrays["mask"] = arrays["mask"][::-1].copy()

    with_arrays(folder, "sample.npz", another)
    with pytest.raises(BundleError, match=r"sample\.npz: mask does not name the active units"):
        check_bundle(load_bundle(folder))
    with_arrays(folder, "sample.npz", nobody)
    with pytest.raises(BundleError, match=r"sample\.npz: embedding is float32 \(0, 16\)"):
        check_bundle(load_bundle(folder))


# -- what is known of the units of training ----------------------------------------------------------------------------


@pytest.fixture
def with_pools(pooled_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with an out-of-distribution score that a test may spoil."""
    return Path(shutil.copytree(pooled_bundle, tmp_path / "spoiled"))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"embedding.whiten": np.eye(15)}, "centres"),
        ({"embedding.whiten": np.ones((16, 16, 1))}, ""),
        ({"short_intervals": np.array(np.nan)}, "NaN"),
        ({"short_intervals": np.array([0.5])}, "short_intervals"),
        ({"statistics.limits": np.array([-1.0])}, "limits be positive"),
        ({"rate_hz": np.array([1.0])}, "rate_hz"),
        ({"rate_hz": np.array([[1.0, 2.0], [3.0, 4.0]])}, "rate_hz"),
        (
            {"embedding.whiten": np.eye(15), "embedding.centres": np.zeros((1, 15))},
            "embedding has 15 features, the bundle's has 16",
        ),
    ],
)
def test_a_broken_out_of_distribution_score_is_rejected_before_anything_runs(
    with_pools: Path, edit: dict[str, np.ndarray], says: str
):
    with_arrays(with_pools, "out_of_distribution.npz", lambda arrays: arrays.update(edit))
    with pytest.raises(BundleError, match=rf"out_of_distribution\.npz: .*{says}.*export the bundle again"):
        Model(load_bundle(with_pools), provider="cpu", threads=1)


def test_an_out_of_distribution_score_that_is_no_archive_is_rejected(with_pools: Path):
    replace_file(with_pools, "out_of_distribution.npz", b"PK but not really")
    with pytest.raises(BundleError, match=r"out_of_distribution\.npz: not a readable \.npz"):
        Model(load_bundle(with_pools), provider="cpu", threads=1)
