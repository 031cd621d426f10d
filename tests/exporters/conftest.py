"""One tiny encoder and its graph for every test of the exporters: exporting is what takes time."""

import onnx
import pytest
import torch

from exporters.graphs import encoder_graph
from offline_training.model.encoder import Encoder, EncoderConfig


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """An encoder with random weights, in training when it is exported."""
    torch.manual_seed(0)
    sizes = {"bins_per_patch": 5, "patches": 4, "dim": 16, "heads": 2, "head_dim": 8, "ffn_hidden": 24}
    return Encoder(EncoderConfig(**sizes, temporal_blocks=1, spatiotemporal_blocks=1))


@pytest.fixture(scope="session")
def graph(encoder: Encoder) -> onnx.ModelProto:
    """The encoder's graph."""
    return encoder_graph(encoder)
