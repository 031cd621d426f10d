"""A bundle without readouts: embeddings live, no predictions, and nothing breaks."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.client.replay import replay
from nuclr_stream.client.subscriber import Query
from nuclr_stream.commands.screen import Screen, headline
from nuclr_stream.inference.model import Model, check_bundle
from nuclr_stream.recordings.recording import Recording
from tests.conftest import change_manifest
from tests.nuclr_stream.conftest import running, where


@pytest.fixture
def silent_model(tiny_bundle: Path, tmp_path: Path) -> Model:
    """The tiny bundle with its readouts taken out."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    with np.load(folder / "sample.npz") as archive:
        kept = {name: archive[name] for name in ("counts", "mask", "embedding")}
    np.savez(folder / "sample.npz", **kept)
    hashes = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("encoder.onnx", "sample.npz", "MODEL_CARD.md")
    }
    change_manifest(folder, lambda manifest: manifest.update(tasks=[], files=hashes))
    bundle = load_bundle(folder)
    assert check_bundle(bundle).keys() == {"embedding"}
    return Model(bundle, provider="cpu", threads=1)


def test_a_daemon_without_readouts_gives_embeddings(
    silent_model: Model, tiny_model: Model, recording: Recording
) -> None:
    with running(silent_model) as daemon, running(tiny_model) as full:
        predicted = [one.predictions for one in replay(recording, stream="probe", **where(daemon))]
        list(replay(recording, stream="probe", **where(full)))
        with Query(daemon.endpoints["query"]) as ask, Query(full.endpoints["query"]) as other:
            found, expected = ask.embeddings("probe"), other.embeddings("probe")
            assert ask.status()["tasks"] == {}
    assert len(predicted) == 11
    assert all(one.tasks == () and one.state == "ready" for one in predicted)
    assert predicted[-1].windows.tolist() == [11] * 20
    assert found.mean.shape == (20, 16) and np.array_equal(found.mean, expected.mean)
    assert "20 units" in headline(predicted[-1])
    console = Console(force_terminal=True, width=100, record=True)
    with Screen(console) as screen:
        screen.show(predicted[-1])
    assert "windows" in console.export_text()
