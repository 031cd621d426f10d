"""The published numbers, reproduced; and proof that the check notices a model that is not the published one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from exporters.parity import graph_embedder
from offline_training.model.encoder import Encoder
from offline_training.studies import reference
from offline_training.studies.reference import Embed, ReferenceFileError, ReferenceReport, check_reference

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "reference_vectors"
FILES = ("spikes_small.npz", "calcium_small.npz")


def through_torch(encoder: Encoder) -> Embed:
    """Stands for the exported graph where a test is not about it."""
    return lambda counts, mask: encoder(torch.from_numpy(counts), torch.from_numpy(mask)).detach().numpy()


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> Path:
    path = FOLDER / request.param
    if not path.exists():
        pytest.skip(f"{request.param}: the reference numbers are not part of the repository")
    return path


def altered(file: Path, out: Path, **changes: np.ndarray) -> Path:
    with np.load(file) as archive:
        np.savez(out, **{**archive, **changes})
    return out


def test_encoder_losses_and_graph_give_the_published_numbers(file: Path) -> None:
    report = check_reference(file, graph_embedder)
    assert report.passed
    assert report.layout == "nuclr"
    assert report.embedding_max_abs <= 1e-5
    assert report.loss_max_abs <= 1e-5
    assert report.onnx_max_abs <= 1e-4


def test_the_same_model_in_the_other_layout_gives_the_same_numbers(file: Path, tmp_path: Path) -> None:
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    names = {name: name.split(".") for name in arrays}
    for parts in names.values():
        if parts[1:2] == ["st_blocks"]:
            parts[3] = str((int(parts[3]) + 2) % 4)
    np.savez(tmp_path / "swapped.npz", **{".".join(names[name]): value for name, value in arrays.items()})
    report = check_reference(tmp_path / "swapped.npz", through_torch)
    assert report.passed
    assert report.layout == "brainwidebench"


@pytest.mark.parametrize("weight", ["model.read_in.bias", "model.st_blocks.1.3.out_proj.weight", "projector.1.bias"])
def test_a_changed_weight_is_noticed(file: Path, tmp_path: Path, weight: str) -> None:
    changed = np.load(file)[weight] + np.float32(0.01)
    assert not check_reference(altered(file, tmp_path / "a.npz", **{weight: changed}), through_torch).passed


def test_a_changed_loss_is_noticed(file: Path, tmp_path: Path) -> None:
    changed = np.load(file)["loss_dcl0_full0"] + 2e-5
    report = check_reference(altered(file, tmp_path / "a.npz", loss_dcl0_full0=changed), through_torch)
    assert not report.passed
    assert report.embedding_max_abs <= 1e-5


def test_a_graph_that_computes_something_else_is_noticed(file: Path) -> None:
    def off_by_a_little(encoder: Encoder) -> Embed:
        exact = through_torch(encoder)
        return lambda counts, mask: exact(counts, mask) + np.float32(2e-4)

    report = check_reference(file, off_by_a_little)
    assert not report.passed
    assert report.onnx_max_abs == pytest.approx(2e-4, rel=0.1)


def test_a_missing_field_is_named(file: Path, tmp_path: Path) -> None:
    with np.load(file) as archive:
        np.savez(tmp_path / "short.npz", **{name: archive[name] for name in archive.files if name != "view2_units"})
    with pytest.raises(ReferenceFileError, match=r"short\.npz: lacks view2_units"):
        check_reference(tmp_path / "short.npz", through_torch)


@pytest.mark.parametrize("content", [None, b"not a zip"])
def test_a_file_that_is_none_is_rejected_with_its_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ReferenceFileError, match=r"broken\.npz: cannot be read"):
        check_reference(path, through_torch)


def test_not_a_number_never_passes() -> None:
    within = {"embedding_max_abs": 0.0, "loss_max_abs": 0.0, "onnx_max_abs": 0.0}
    assert ReferenceReport(layout="nuclr", **within).passed
    for figure in within:
        assert not ReferenceReport(layout="nuclr", **{**within, figure: float("nan")}).passed


def test_the_bars_are_the_published_ones() -> None:
    assert (reference.EMBEDDING_BAR, reference.LOSS_BAR, reference.ONNX_BAR) == (1e-5, 1e-5, 1e-4)
