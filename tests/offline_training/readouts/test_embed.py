"""Embedding of recordings: the windows, members and means of the daemon, whatever the batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from exporters.graphs import encoder_graph
from nuclr_stream.features.coupling import COUPLING_SUMS
from nuclr_stream.features.mean_embedding import MeanEmbedding
from nuclr_stream.recordings.recording import Recording, recorded_windows
from nuclr_stream.windows.binning import WindowRules, WindowSpec, rational
from offline_training.model.encoder import Encoder, EncoderConfig
from offline_training.readouts.embed import Embedded, embed_recording, one_by_one, through_torch
from offline_training.simulation.animals import simulate

SPEC = WindowSpec(rational(50), bins_per_patch=25, patches=4, hop_bins=50)  # 2 s windows, 1 s hop
RULES = WindowRules()


@pytest.fixture(scope="module")
def recording() -> Recording:
    return simulate(7, units=24, duration_s=12.0)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(
        EncoderConfig(
            bins_per_patch=25, patches=4, dim=8, heads=2, head_dim=4, ffn_hidden=8, temporal_blocks=1, dropout=0.5
        )
    )


def unit_means(embedded: Embedded) -> tuple[np.ndarray, np.ndarray]:
    """Mean embeddings (U, D) and exposure (U,) over the whole recording."""
    whole = embedded.snapshot(0, len(embedded.end_bin))
    return whole.features["embedding"], whole.exposure


def test_unit_means_are_those_of_single_windows_of_active_units(recording: Recording, encoder: Encoder):
    exposure = MeanEmbedding(8)
    encoder.eval()
    for window in recorded_windows(recording, SPEC, RULES):
        active = np.flatnonzero(window.active)
        with torch.no_grad():
            found = encoder(torch.from_numpy(window.counts[active]), torch.ones(len(active), dtype=torch.bool))
        exposure.add(active, found.numpy())
    everyone = np.arange(24)
    means, n = unit_means(embed_recording(through_torch(encoder), recording, SPEC, RULES))
    np.testing.assert_allclose(means, exposure.mean(everyone), atol=1e-5)
    np.testing.assert_allclose(n, np.where(exposure.windows(everyone) > 0, 1 + (exposure.windows(everyone) - 1) / 2, 0))


def test_the_size_of_a_batch_changes_nothing(recording: Recording, encoder: Encoder):
    single = embed_recording(through_torch(encoder), recording, SPEC, RULES, batch_windows=1)
    batched = embed_recording(through_torch(encoder), recording, SPEC, RULES, batch_windows=5)
    np.testing.assert_array_equal(single.embedded, batched.embedded)
    np.testing.assert_allclose(single.embeddings, batched.embeddings, atol=1e-5)


def test_the_exported_graph_gives_the_same_means(recording: Recording, encoder: Encoder):
    session = onnxruntime.InferenceSession(
        encoder_graph(encoder).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    through_graph = one_by_one(lambda counts, mask: session.run(None, {"counts": counts, "mask": mask})[0])
    ours, _ = unit_means(embed_recording(through_torch(encoder), recording, SPEC, RULES))
    theirs, _ = unit_means(embed_recording(through_graph, recording, SPEC, RULES))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_only_units_that_fired_enter_the_encoder(recording: Recording):
    seen = []

    def encode(counts: np.ndarray, mask: np.ndarray) -> np.ndarray:
        seen.append(counts[mask].any(axis=1).all() and not counts[~mask].any())
        return np.ones((*mask.shape, 3), dtype=np.float32)

    found = embed_recording(encode, recording, SPEC, RULES)
    assert seen and all(seen)
    np.testing.assert_array_equal(found.embeddings[..., 0] == 1, found.embedded)


def test_a_masked_window_is_not_embedded(recording: Recording, encoder: Encoder):
    masked = replace(recording, mask_samples=np.array([[5 * 30000, 5 * 30000 + 1]]))
    found = embed_recording(through_torch(encoder), masked, SPEC, RULES)
    touched = (found.end_s > 5) & (found.end_s - 2 <= 5)
    assert [exclusion == "mask" for exclusion in found.exclusions] == touched.tolist()
    assert not found.embedded[touched].any()
    assert not found.embeddings[touched].any()
    assert found.embedded[~touched].any(axis=1).all()


def test_a_small_population_is_embedded_and_flagged(recording: Recording, encoder: Encoder):
    found = embed_recording(through_torch(encoder), recording, SPEC, WindowRules(min_population=25))
    assert not found.in_distribution.any()
    assert found.embedded.any()
    assert embed_recording(through_torch(encoder), recording, SPEC, WindowRules(min_population=1)).in_distribution.all()


def test_a_recording_shorter_than_a_window_has_no_exposure(encoder: Encoder):
    found = embed_recording(through_torch(encoder), simulate(7, units=16, duration_s=1.0), SPEC, RULES)
    means, n = unit_means(found)
    assert len(found.end_bin) == 0
    assert len(means) == 16
    assert not n.any()


def test_a_stretch_holds_its_own_windows_only():
    embedded = np.array([[True, False], [True, True], [False, True]])
    found = Embedded(
        recording_id="a",
        subject_id="A",
        spec=SPEC,
        end_bin=np.array([100, 150, 200]),
        exclusions=("", "", ""),
        in_distribution=np.ones(3, dtype=bool),
        embedded=embedded,
        embeddings=np.arange(6, dtype=np.float32).reshape(3, 2, 1),
        counts=(np.zeros((2, 100), np.uint8),) * 3,
        intervals=np.zeros((3, 2, 17), np.int32),
        coupling=np.zeros((3, 2, COUPLING_SUMS), np.int64),
        missing=np.zeros(3),
    )
    stretch = found.snapshot(1, 3)
    assert stretch.features["embedding"][:, 0].tolist() == [2.0, 4.0]
    assert stretch.exposure.tolist() == [1.0, 1.5]
    assert found.end_s.tolist() == [2.0, 3.0, 4.0]
    assert found.steps_per_window == 2
    for last, growing in zip((1, 3), found.snapshots(0, (1, 3)), strict=True):
        assert np.array_equal(growing.features["embedding"], found.snapshot(0, last).features["embedding"])
