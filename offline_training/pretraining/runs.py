"""The directory of a run: what a training leaves, and how it is read back.

config.json (the settings), run.json (what was trained on, where, how fast, and which checkpoint counts), metrics.jsonl
(one line a step), checkpoint.pt (weights, optimiser and random state) and TensorBoard's event files. Weights that came
from elsewhere have encoder.safetensors in place of a checkpoint, see `offline_training.pretraining.weights`.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recordings.readers import AnyRecording
from offline_training.config import TrainConfig
from offline_training.model.encoder import Encoder
from offline_training.pretraining.steps import Training, build_encoder

LAST: dict[str, Any] = {"by": "last"}
"""Which checkpoint counts where no validation animals choose one."""

WEIGHTS = "encoder.safetensors"


class RunError(NuclrStreamError):
    """A run directory is missing, incomplete, or already in use."""


def begin_run(run_dir: Path, config: TrainConfig) -> None:
    """Begin a run. Raises RunError when there is one."""
    if any((run_dir / name).exists() for name in ("checkpoint.pt", WEIGHTS)):
        raise RunError(f"{run_dir}: holds a training already; resume it or name another directory")
    run_dir.mkdir(parents=True, exist_ok=True)
    write_settings(run_dir, config)
    (run_dir / "metrics.jsonl").write_text("", encoding="utf-8")


def write_settings(run_dir: Path, config: TrainConfig) -> None:
    """Write config.json."""
    settings = json.dumps(config.model_dump(mode="json", exclude_none=True), indent=1)
    (run_dir / "config.json").write_text(settings + "\n", encoding="utf-8")


def resume_run(run_dir: Path, config: TrainConfig, recordings: Sequence[AnyRecording]) -> dict[str, Any]:
    """Return the checkpoint of a run and forget what was noted after it. Raises RunError for other settings."""
    run = Run.open(run_dir)
    if run.config != config:
        raise RunError(
            f"{run_dir / 'config.json'}: differs from the settings given; a run is resumed with the settings it began "
            "with"
        )
    if not run.is_of(config, recordings):
        raise RunError(f"{run_dir}: was trained on other recordings; a run is resumed with the ones it began with")
    state = _read_checkpoint(run_dir / "checkpoint.pt")
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    # A line that was being written when the process died has no end; steps after the checkpoint are done again.
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= state["step"]]
    (run_dir / "metrics.jsonl").write_text("".join(kept), encoding="utf-8")
    return state


def save_run(run_dir: Path, training: Training, info: dict[str, Any]) -> None:
    """Write the checkpoint and what is known of the run so far."""
    training.save(run_dir / "checkpoint.pt")
    done = {
        "step": training.step,
        "finished": training.step >= info["steps"],
        "windows": training.windows,
        "seconds": round(training.seconds, 1),
        "windows_per_s": round(training.windows / max(training.seconds, 1e-9), 1),
    }
    if training.selected is not None:
        chosen = {name: value for name, value in training.selected.items() if name != "encoder"}
        done["selection"] = info["selection"] | chosen
    (run_dir / "run.json").write_text(json.dumps(info | done, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """A run directory, read back: settings and facts at once, the encoder when it is first used, and only once."""

    path: Path
    config: TrainConfig
    info: dict[str, Any]
    """The content of run.json."""

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read config.json and run.json. Raises RunError, or ConfigError for settings that are none."""
        settings = path / "config.json"
        config = TrainConfig.parse(_read_json(settings), str(settings))
        return cls(path, config, {"selection": LAST} | _read_json(path / "run.json"))

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder on the CPU, ready to embed: that of the last step, or the one that validation animals chose, see
        `info["selection"]`. Raises RunError when its weights are missing, damaged or of other sizes."""
        encoder = build_encoder(self.config)
        try:
            encoder.load_state_dict(_encoder_weights(self.path))
        except RuntimeError as error:
            raise RunError(f"{self.path}: the weights are not those of an encoder of config.json ({error})") from error
        return encoder.eval()

    @property
    def subjects(self) -> tuple[str, ...]:
        """The animals whose activity the encoder saw, validation animals among them; none are known for imported
        weights."""
        return tuple(self.info["subjects"])

    @property
    def recordings(self) -> tuple[str, ...]:
        """The recordings that it was trained on."""
        return tuple(self.info["recordings"])

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return bool(self.info["finished"])

    @property
    def imported(self) -> dict[str, Any] | None:
        """Where weights that came from elsewhere are from; None for a training of our own."""
        found: dict[str, Any] | None = self.info.get("imported")
        return found

    def is_of(self, config: TrainConfig, recordings: Sequence[AnyRecording]) -> bool:
        """Whether it was trained with these settings on these recordings, in this order."""
        return self.config == config and list(self.recordings) == [each.recording_id for each in recordings]


def _encoder_weights(run_dir: Path) -> dict[str, Tensor]:
    if (run_dir / WEIGHTS).is_file():
        try:
            return load_file(run_dir / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{run_dir / WEIGHTS}: not readable as safetensors ({error})") from error
    state = _read_checkpoint(run_dir / "checkpoint.pt")
    return dict((state.get("selected") or state)["encoder"])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not readable ({error}); is this the --out of `nuclr-train pretrain`?") from error
    return dict(values)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise RunError(f"{path}: not a readable checkpoint ({error})") from error
