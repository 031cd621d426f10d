"""Published checkpoints: opened only when trusted, right in both layouts and lengths, and proven where they can be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from offline_training.config import TrainConfig
from offline_training.data.splits import Fold
from offline_training.evaluation.nested import UNKNOWN_ANIMALS, setting_of_run
from offline_training.pretraining import weights as module
from offline_training.pretraining.runs import Run, RunError
from offline_training.pretraining.weights import Proof, WeightsError, import_weights, read_checkpoint, write_imported
from tests.exporters.published_numpy import embed
from tests.offline_training.published import HEADS, save_checkpoint, save_reference, spikes, weights_of

SPIKES = TrainConfig.parse({"name": "published", "training": {"steps": 1}})
LAYOUTS = ("nuclr", "brainwidebench")
FORMS = ((10, 2), (20, 4))


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["spikes_small.npz", "calcium_small.npz"])
def test_the_independent_path_gives_the_published_numbers(name: str) -> None:
    path = Path(__file__).parents[4] / "shared" / "data" / "reference_vectors" / name
    if not path.exists():
        pytest.skip(f"{name}: the reference numbers are not part of the repository")
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    published = {key: value for key, value in arrays.items() if key.startswith("model.")}
    units = arrays["population_sizes"][0]
    found = embed(published, arrays["view1"][:units].astype(np.float64), layout="nuclr", heads=2)
    assert np.abs(found - arrays["embedding1"][:units]).max() <= 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("patches", "blocks"), FORMS)
def test_an_imported_encoder_computes_what_the_description_says(
    tmp_path: Path, layout: str, patches: int, blocks: int
) -> None:
    path = save_checkpoint(tmp_path / "published.pt", weights_of(patches, blocks))
    encoder, config, proof = import_weights(read_checkpoint(path, trust_pickle=True), layout=layout, config=SPIKES)
    assert (config.window.spec.window_s, config.encoder.spatiotemporal_blocks) == (patches, blocks)
    assert encoder.config.rope_max_period_factor == pytest.approx(8) and encoder.config.rope_ratio == 0.5
    counts = spikes(patches)
    with torch.inference_mode():
        found = encoder(torch.from_numpy(counts), torch.ones(len(counts), dtype=torch.bool)).numpy()
    expected = embed(weights_of(patches, blocks), counts.astype(np.float64), layout=layout, heads=HEADS)
    assert np.abs(found - expected).max() <= 1e-4
    assert proof.max_abs is None and "layout not provable" in str(proof) and "--reference" in str(proof)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("patches", "blocks"), FORMS)
def test_a_reference_proves_the_layout_and_catches_the_wrong_one(
    tmp_path: Path, layout: str, patches: int, blocks: int
) -> None:
    published = weights_of(patches, blocks)
    state = {name: torch.from_numpy(value) for name, value in published.items()}
    reference = save_reference(tmp_path / "reference.npz", published, spikes(patches), layout)
    proof = import_weights(state, layout=layout, config=SPIKES, reference=reference)[2]
    assert proof.max_abs <= 1e-4 and "layout proven" in str(proof)
    (other,) = set(LAYOUTS) - {layout}
    with pytest.raises(WeightsError, match=rf"in layout {other} its.*import with --layout {layout}"):
        import_weights(state, layout=other, config=SPIKES, reference=reference)


def test_the_sample_of_a_bundle_is_a_reference_too(tmp_path: Path) -> None:
    published, counts = weights_of(10, 2), spikes(10)
    embedding = embed(published, counts[1:].astype(np.float64), layout="nuclr", heads=HEADS)
    np.savez(tmp_path / "sample.npz", counts=counts, mask=np.arange(len(counts)) > 0, embedding=embedding)
    state = {name: torch.from_numpy(value) for name, value in published.items()}
    proof = import_weights(state, layout="nuclr", config=SPIKES, reference=tmp_path / "sample.npz")[2]
    assert proof.max_abs <= 1e-4


def test_a_reference_of_other_weights_names_neither_layout(tmp_path: Path) -> None:
    reference = save_reference(tmp_path / "reference.npz", weights_of(10, 2, seed=1), spikes(10), "nuclr")
    state = {name: torch.from_numpy(value) for name, value in weights_of(10, 2).items()}
    with pytest.raises(WeightsError, match="computed from other weights"):
        import_weights(state, layout="nuclr", config=SPIKES, reference=reference)


def test_a_pickle_of_more_than_tensors_is_not_opened_unless_trusted(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    path = save_checkpoint(tmp_path / "published.pt", weights_of(10, 2), trap=Trap(touched))
    with pytest.raises(WeightsError, match=r"published\.pt: is a pickle.*rejected.*--trust-pickle"):
        read_checkpoint(path, trust_pickle=False)
    assert not touched.exists()
    assert "model.read_in.weight" in read_checkpoint(path, trust_pickle=True)
    assert touched.exists()


def test_plain_tensors_and_safetensors_need_no_trust(tmp_path: Path) -> None:
    state = {name: torch.from_numpy(value) for name, value in weights_of(10, 2).items()}
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": state}, tmp_path / "lightning.ckpt")
    save_file(state, tmp_path / "published.safetensors")
    for name in ("plain.pt", "lightning.ckpt", "published.safetensors"):
        assert read_checkpoint(tmp_path / name, trust_pickle=False).keys() == state.keys()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pt", None, r"absent\.pt: not a readable checkpoint"),
        ("torn.pt", b"PK\x03\x04", r"torn\.pt: (not a readable checkpoint|is a pickle)"),
        ("torn.safetensors", b"12345", r"torn\.safetensors: not readable as safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / name, trust_pickle=False)


def test_a_checkpoint_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "net": {"w": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"no NuCLR state dict.*epoch, net"):
        read_checkpoint(tmp_path / "other.pt", trust_pickle=False)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(tmp_path / "published.pt", weights_of(10, 2))
    load = torch.load

    def without_package(*given: object, weights_only: bool, **named: object) -> object:
        if not weights_only:
            raise ModuleNotFoundError("No module named 'omegaconf'")
        return load(*given, weights_only=weights_only, **named)

    monkeypatch.setattr(module.torch, "load", without_package)
    with pytest.raises(WeightsError, match=r"a package that is not here .*omegaconf.*install it"):
        read_checkpoint(path, trust_pickle=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.st_blocks.0.0.norm.weight": None}, "not an encoder of either code base"),
        ({"model.rotary_emb.omega": None}, "sizes cannot be read"),
        ({"model.read_in.bias": np.full(24, np.nan, np.float32)}, "NaN or infinity"),
    ],
)
def test_weights_that_are_no_encoder_are_rejected(change: dict[str, object], message: str) -> None:
    changed = {name: value for name, value in (weights_of(10, 2) | change).items() if value is not None}
    state = {name: torch.from_numpy(value) for name, value in changed.items()}
    with pytest.raises(WeightsError, match=message):
        import_weights(state, layout="nuclr", config=SPIKES)


def test_weights_of_another_kind_of_input_ask_for_their_config() -> None:
    state = {name: torch.from_numpy(value) for name, value in weights_of(32, 2, bins=4).items()}
    with pytest.raises(WeightsError, match=r"a patch has 4 bins, in config published it has 50.*--config"):
        import_weights(state, layout="nuclr", config=SPIKES)
    calcium = TrainConfig.load(Path(__file__).parents[3] / "configs" / "pretrain_paper_calcium.toml")
    encoder, config, _ = import_weights(state, layout="nuclr", config=calcium)
    assert encoder.config.input_kind == "traces" and config.window.spec.bins == 128


def test_an_unknown_layout_and_an_unfit_reference_are_rejected(tmp_path: Path) -> None:
    state = {name: torch.from_numpy(value) for name, value in weights_of(10, 2).items()}
    with pytest.raises(WeightsError, match="--layout paper: must be one of nuclr, brainwidebench"):
        import_weights(state, layout="paper", config=SPIKES)  # type: ignore[arg-type]
    np.savez(tmp_path / "short.npz", counts=spikes(9), embedding=np.zeros((13, 24)))
    with pytest.raises(WeightsError, match=r"short\.npz: counts \(13, 450\).*do not fit"):
        import_weights(state, layout="nuclr", config=SPIKES, reference=tmp_path / "short.npz")
    np.savez(tmp_path / "empty.npz", counts=spikes(10))
    with pytest.raises(WeightsError, match=r"empty\.npz: no reference"):
        import_weights(state, layout="nuclr", config=SPIKES, reference=tmp_path / "empty.npz")


def test_an_imported_run_holds_numbers_only_and_claims_nothing(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "published.pt", weights_of(10, 2))
    state = read_checkpoint(path, trust_pickle=True)
    encoder, config, proof = import_weights(state, layout="nuclr", config=SPIKES)
    run = tmp_path / "run"
    write_imported(run, encoder, config, source=path, layout="nuclr", proof=proof)
    assert sorted(file.name for file in run.iterdir()) == ["config.json", "encoder.safetensors", "run.json"]
    read = Run.open(run)
    assert read.config == config and read.imported is not None and read.subjects == ()
    assert all(torch.equal(value, read.encoder.state_dict()[name]) for name, value in encoder.state_dict().items())
    assert read.imported["layout"] == "nuclr" and read.imported["reference_max_abs"] is None
    with pytest.raises(RunError, match="is there already"):
        write_imported(run, encoder, config, source=path, layout="nuclr", proof=Proof(None))
    assert setting_of_run(run, Fold(("s",))) == UNKNOWN_ANIMALS
    (run / "encoder.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match="not readable as safetensors"):
        _ = Run.open(run).encoder
