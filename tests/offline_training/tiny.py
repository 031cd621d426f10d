"""The smallest settings that go all the way from spikes to scores, for the tests of evaluation."""

from offline_training.config import TrainConfig

CONFIG = TrainConfig.parse(
    {
        "name": "tiny",
        "kind": "simulated animals",
        "window": {"bins_per_patch": 25, "patches": 4, "hop_s": 1.0},
        "encoder": {"dim": 8, "heads": 2, "head_dim": 4, "ffn_hidden": 8, "temporal_blocks": 1},
        "training": {"steps": 1, "batch_windows": 1},
        "tasks": {
            "cell_type": {"column": "cell_type", "classes": {c: [c] for c in ("E", "PV")}, "min_spikes": 5},
        },
    }
)

CONFIG_TOML = """\
name = "tiny"
kind = "simulated animals"
window = { bins_per_patch = 25, patches = 4, hop_s = 1.0 }
encoder = { dim = 8, heads = 2, head_dim = 4, ffn_hidden = 8, temporal_blocks = 1 }
training = { steps = 2, batch_windows = 1 }
tasks.cell_type = { column = "cell_type", classes = { E = ["E"], PV = ["PV"] }, min_spikes = 5 }
"""
