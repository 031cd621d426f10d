"""Published weights: a checkpoint of either public code base becomes a run without readouts.

nerdslab/nuclr and brainbench-org/ibl-bwb keep pickled checkpoints. They are converted once, offline: unpickling a file
runs whatever code it holds, so anything beyond plain tensors is an error unless the user trusts the file.
What comes out are safetensors, which hold numbers and nothing else.

The two code bases order the modules of a spatio-temporal block differently, with identical shapes: a file does not
show which one wrote it, so the caller names the layout, and only numbers that the authors' code computed can prove it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nuclr_stream.errors import NuclrStreamError
from offline_training.config import EncoderSizes, TrainConfig
from offline_training.model.encoder import LAYOUTS, Encoder, EncoderConfig, infer_config, load_layout
from offline_training.pretraining.runs import LAST, WEIGHTS, RunError, write_settings
from offline_training.pretraining.steps import build_encoder

REFERENCE_BAR = 1e-4
"""Largest difference from embeddings that the authors' code computed, on another machine and in another order."""

STATE_KEYS = ("model_state_dict", "state_dict")
UNKNOWN_ANIMALS = "unknown: the checkpoint does not say which animals it was trained on"

_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, KeyError, ImportError, AttributeError, TypeError)


class WeightsError(NuclrStreamError):
    """A checkpoint cannot be read, is not to be trusted, or is not what the caller named."""


@dataclass(frozen=True)
class Proof:
    """Whether the layout is proven: the largest difference from reference embeddings, None where there were none."""

    max_abs: float | None

    def __str__(self) -> str:
        if self.max_abs is None:
            return (
                "layout not provable: the other layout has the same shapes and would load as well. Give --reference, "
                "an .npz with counts and the embedding that the authors' code computed from them"
            )
        return f"layout proven: the reference embeddings are reproduced within {self.max_abs:.1e}"


def read_checkpoint(path: Path, *, trust_pickle: bool) -> dict[str, Tensor]:
    """The state dict of a checkpoint, .safetensors or pickled. Raises WeightsError naming the file and the remedy.

    A pickle that holds more than tensors and plain values is opened with `trust_pickle` alone.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path}: not readable as safetensors ({error})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust_pickle:
            raise WeightsError(
                f"{path}: is a pickle that holds more than tensors ({_first_line(error)}). Opening it runs whatever "
                "code is in it: rejected. Where you trust its source, add --trust-pickle; it is opened this once, the "
                "run and the bundle hold numbers only"
            ) from None
        content = _unpickled(path)
    except _UNREADABLE as error:
        raise WeightsError(f"{path}: not a readable checkpoint ({_first_line(error)})") from error
    return _state_dict(content, path)


def import_weights(
    weights: Mapping[str, Tensor],
    *,
    layout: str,
    config: TrainConfig,
    reference: Path | None = None,
) -> tuple[Encoder, TrainConfig, Proof]:
    """The encoder of a published state dict, the settings that describe it, and whether its layout is proven.

    All sizes come from the weights; bins per second, hop, rules and tasks from `config`. Raises WeightsError when the
    weights are no such encoder, when `config` means a window of another length, or when the embeddings of `reference`
    (see `Proof`) are not reproduced.
    """
    if layout not in LAYOUTS:
        raise WeightsError(f"--layout {layout}: must be one of {', '.join(LAYOUTS)}")
    named = load_layout(weights, layout)
    sizes = _sizes(named, config)
    described = _described(config, sizes)
    encoder = build_encoder(described)
    try:
        encoder.load_state_dict(named)
    except RuntimeError as error:
        raise WeightsError(f"state dict: not an encoder of either code base ({_first_line(error)})") from error
    encoder.eval()
    if not all(torch.isfinite(value).all() for value in named.values()):
        raise WeightsError("state dict: holds NaN or infinity")
    if reference is None:
        return encoder, described, Proof(None)
    distance = _distance(encoder, reference)
    if not distance <= REFERENCE_BAR:
        raise WeightsError(_rejection(weights, layout, described, reference, distance))
    return encoder, described, Proof(distance)


def write_imported(
    run_dir: Path, encoder: Encoder, config: TrainConfig, *, source: Path, layout: str, proof: Proof
) -> dict[str, Any]:
    """Write a run that holds encoder.safetensors in place of a checkpoint, and return the content of its run.json.

    Raises RunError when `run_dir` is not empty.
    """
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise RunError(f"{run_dir}: is there already; name another --out")
    info = {
        "name": config.name,
        "kind": config.kind,
        "recordings": [],
        "subjects": [],
        "animals": UNKNOWN_ANIMALS,
        "selection": LAST | {"by": "unknown: the checkpoint does not say"},
        "imported": {
            "file": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "layout": layout,
            "reference_max_abs": proof.max_abs,
        },
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "seed": None,
        "step": None,
        "steps": None,
        "finished": True,
        "windows": None,
        "seconds": None,
        "machine": "unknown",
        "precision": "unknown",
        "torch": torch.__version__,
    }
    run_dir.mkdir(parents=True, exist_ok=True)
    write_settings(run_dir, config)
    save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, run_dir / WEIGHTS)
    (run_dir / "run.json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    return info


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except ImportError as error:
        raise WeightsError(
            f"{path}: was pickled with a package that is not here ({error}); install it, only for this conversion"
        ) from error
    except (*_UNREADABLE, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path}: not a readable checkpoint ({_first_line(error)})") from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in STATE_KEYS:
            content = content[key] if isinstance(content.get(key), Mapping) else content
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if any(name.endswith("read_in.weight") for name in tensors):
            return {name: value.detach().float() for name, value in tensors.items()}
    keys = ", ".join(sorted(map(str, content))[:8]) if isinstance(content, Mapping) else type(content).__name__
    raise WeightsError(f"{path}: no NuCLR state dict: neither {' nor '.join(STATE_KEYS)} nor read_in.weight in: {keys}")


def _sizes(named: Mapping[str, Tensor], config: TrainConfig) -> EncoderConfig:
    try:
        return infer_config(named, input_kind=config.window.input_kind, dropout=config.encoder.dropout)
    except (KeyError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(f"state dict: sizes cannot be read from it ({_first_line(error)})") from error


def _described(config: TrainConfig, sizes: EncoderConfig) -> TrainConfig:
    """`config` with the sizes of the weights. A patch of other bins than it means is another kind of input."""
    if sizes.bins_per_patch != config.window.bins_per_patch:
        raise WeightsError(
            f"weights: a patch has {sizes.bins_per_patch} bins, in config {config.name} it has "
            f"{config.window.bins_per_patch}; give the --config that says how these weights bin their input"
        )
    values = config.model_dump(exclude_none=True)
    values["window"]["patches"] = sizes.patches
    values["encoder"] = {field.name: getattr(sizes, field.name) for field in fields(EncoderSizes)}
    return TrainConfig.parse(values, config.name)


def _distance(encoder: Encoder, reference: Path) -> float:
    try:
        with np.load(reference, allow_pickle=False) as archive:
            counts, expected = archive["counts"], archive["embedding"]
            mask = archive["mask"] if "mask" in archive.files else np.ones(len(counts), dtype=bool)
            counts, mask = np.asarray(counts, dtype=np.float32), np.asarray(mask, dtype=bool)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{reference}: no reference: an .npz with counts (U, T) of one population and embedding (U, D) is needed "
            f"({error})"
        ) from error
    if counts.ndim != 2 or counts.shape[1] != encoder.config.bins or expected.shape != (mask.sum(), encoder.config.dim):
        raise WeightsError(
            f"{reference}: counts {counts.shape} and embedding {expected.shape} do not fit the weights, which take "
            f"(U, {encoder.config.bins}) and give (U, {encoder.config.dim})"
        )
    with torch.inference_mode():
        found = encoder(torch.from_numpy(counts[mask]), torch.ones(int(mask.sum()), dtype=torch.bool)).numpy()
    return float(np.abs(found - expected).max())


def _rejection(
    weights: Mapping[str, Tensor], layout: str, config: TrainConfig, reference: Path, distance: float
) -> str:
    (other,) = (each for each in LAYOUTS if each != layout)
    encoder = build_encoder(config)
    encoder.load_state_dict(load_layout(weights, other))
    swapped = _distance(encoder.eval(), reference)
    found = f"{reference}: in layout {layout} its embeddings differ by {distance:.3g}, the bar is {REFERENCE_BAR:g}"
    if swapped <= REFERENCE_BAR:
        return f"{found}; in layout {other} by {swapped:.1e}: import with --layout {other}"
    return f"{found}; in layout {other} by {swapped:.3g}: it was computed from other weights"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
