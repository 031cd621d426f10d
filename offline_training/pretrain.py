"""Train an encoder on pairs of views, from nothing or from a checkpoint, on one device. Read `pretrain` top to bottom.

A run is a directory: config.json (the settings), run.json (what was trained on, where, how fast), metrics.jsonl (one
line a step), checkpoint.pt (weights, optimiser and random state: training goes on with the very same next step) and
TensorBoard's event files.
"""

from __future__ import annotations

import json
import math
import pickle
import platform
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard.writer import SummaryWriter

from nuclr_stream.errors import ConfigError, NonFiniteError, NuclrStreamError
from nuclr_stream.recording import Recording
from offline_training.config import TrainConfig
from offline_training.encoder import Encoder, EncoderConfig
from offline_training.loss import LossConfig, LossTerms, build_loss
from offline_training.progress import TrainingProgress
from offline_training.views import Views, ViewSampler

TENSORBOARD_EVERY = 10


class RunError(NuclrStreamError):
    """A run directory is missing, incomplete, or already in use."""


@dataclass
class Training:
    """Everything that changes while training: what a checkpoint holds."""

    encoder: Encoder
    loss: nn.Module
    optimiser: torch.optim.AdamW
    step: int = 0
    windows: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write a checkpoint; it appears whole or not at all."""
        state = {
            "encoder": self.encoder.state_dict(),
            "loss": self.loss.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "windows": self.windows,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        temporary = path.with_name(path.name + ".part")
        torch.save(state, temporary)
        temporary.replace(path)

    def restore(self, path: Path) -> None:
        """Continue as if the training had never stopped: the next step is bitwise the same on the same machine."""
        state = _read_checkpoint(path)
        self.encoder.load_state_dict(state["encoder"])
        self.loss.load_state_dict(state["loss"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.windows, self.seconds = state["step"], state["windows"], state["seconds"]
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])


def pretrain(
    config: TrainConfig,
    recordings: Sequence[Recording],
    run_dir: Path,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    title: str = "pretrain",
) -> Path:
    """Train an encoder on `recordings` as `config` says and return `run_dir`, ready for `load_run`.

    Seeds torch's global generator and sets its number of threads. With `resume` an interrupted run goes on;
    `stop_after` leaves one at that step. Ctrl-C ends after the step at hand, with a checkpoint. Raises RunError,
    ConfigError, or NonFiniteError when the loss stops being a number.
    """
    settings = config.training
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(config, device))
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(settings.seed)

    sampler = ViewSampler(recordings, config)
    per_epoch = sampler.batches_per_epoch
    steps = settings.steps or per_epoch * (settings.epochs or 0)
    training = new_training(config, device)
    info: dict[str, Any] = {
        "name": config.name,
        "kind": config.kind,
        "recordings": [recording.recording_id for recording in recordings],
        "subjects": sorted({recording.subject_id for recording in recordings}),
        "seed": settings.seed,
        "steps": steps,
        "steps_per_epoch": per_epoch,
        "parameters": sum(p.numel() for p in training.encoder.parameters()),
        "device": device.type,
        "machine": _machine(device),
        "precision": "bf16" if uses_bf16(config, device) else "fp32",
        "threads": settings.threads,
        "torch": torch.__version__,
    }
    if resume:
        _resume_run(run_dir, config, training, info["recordings"])
    else:
        _open_run(run_dir, config)

    with (
        SummaryWriter(str(run_dir), purge_step=training.step) as board,
        (run_dir / "metrics.jsonl").open("a", encoding="utf-8", buffering=1) as metrics,
        TrainingProgress(title, steps=steps, done=training.step) as progress,
        _stop_signals() as stop,
    ):
        saved = time.monotonic()
        while training.step < min(steps, stop_after or steps) and not stop.is_set():
            began = time.monotonic()
            views = sampler.batch(*divmod(training.step, per_epoch))
            rate = learning_rate(config, step=training.step, steps=steps, per_epoch=per_epoch)
            training.step += 1
            if views is None:  # no pair of this batch had enough active units
                continue
            line = train_step(training, views, config, rate=rate, autocast=autocast)
            training.windows += len(views.units)
            training.seconds += time.monotonic() - began
            metrics.write(json.dumps(line) + "\n")
            if training.step % TENSORBOARD_EVERY == 0:
                for name, value in line.items():
                    board.add_scalar(name, value, training.step)
            progress.step(
                training.step,
                loss=line["loss"],
                numerator=line["numerator"],
                denominator=line["denominator"],
                windows_per_s=training.windows / training.seconds,
            )
            if time.monotonic() - saved > settings.checkpoint_every_s:
                _close_run(run_dir, training, info)
                saved = time.monotonic()
    _close_run(run_dir, training, info)
    return run_dir


def train_step(
    training: Training, views: Views, config: TrainConfig, *, rate: float, autocast: torch.autocast
) -> dict[str, float]:
    """One step of the optimiser on one batch; returns what metrics.jsonl says about it."""
    device = next(training.encoder.parameters()).device
    counts1, counts2, present1, present2 = (torch.from_numpy(v).to(device, non_blocking=True) for v in views[:4])
    for group in training.optimiser.param_groups:
        group["lr"] = rate
    training.encoder.train()
    training.loss.train()
    with autocast:
        terms: LossTerms = training.loss(
            *_embed_both(training.encoder, counts1, counts2, present1, present2), present1, present2
        )
    training.optimiser.zero_grad(set_to_none=True)
    terms.total.backward()
    encoder_norm = nn.utils.clip_grad_norm_(training.encoder.parameters(), config.training.clip_norm)
    projector_norm = nn.utils.clip_grad_norm_(training.loss.parameters(), config.training.clip_norm)
    if not math.isfinite(total := terms.total.item()):
        raise NonFiniteError(f"the loss is {total} at step {training.step}; lower training.peak_lr")
    training.optimiser.step()
    return {
        "step": training.step,
        "loss": total,
        "numerator": terms.numerator.item(),
        "denominator": terms.denominator.item(),
        "lr": rate,
        "encoder_norm": encoder_norm.item(),
        "projector_norm": projector_norm.item(),
        "windows": len(views.units),
        "units": int((views.present1 & views.present2).sum()),
    }


def _embed_both(
    encoder: Encoder, counts1: Tensor, counts2: Tensor, present1: Tensor, present2: Tensor
) -> tuple[Tensor, Tensor]:
    """Both views (N, U, T) in one run of the encoder: (N, U, D) each."""
    embeddings = encoder(torch.cat([counts1, counts2]), torch.cat([present1, present2]))
    return embeddings[: len(counts1)], embeddings[len(counts1) :]


def new_training(config: TrainConfig, device: torch.device) -> Training:
    """Fresh weights from torch's generator, and the optimiser in the published groups."""
    encoder = build_encoder(config).to(device)
    loss = build_loss(config.encoder.dim, _loss_config(config)).to(device)
    return Training(encoder, loss, build_optimiser([encoder, loss], config))


def build_encoder(config: TrainConfig) -> Encoder:
    """An encoder of the sizes that `config` gives. Raises ConfigError when they do not fit together."""
    window, sizes = config.window, config.encoder
    try:
        return Encoder(
            EncoderConfig(
                input_kind=window.input_kind,
                bins_per_patch=window.bins_per_patch,
                patches=window.patches,
                dim=sizes.dim,
                heads=sizes.heads,
                head_dim=sizes.head_dim,
                ffn_hidden=sizes.ffn_hidden,
                temporal_blocks=sizes.temporal_blocks,
                spatiotemporal_blocks=sizes.spatiotemporal_blocks,
                dropout=sizes.dropout,
                rope_ratio=sizes.rope_ratio,
                rope_max_period_factor=sizes.rope_max_period_factor,
            )
        )
    except ValueError as error:
        raise ConfigError(f"{config.name}: {error}") from error


def build_optimiser(modules: Sequence[nn.Module], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; parameters whose NAME holds 'norm' or 'bias' are not decayed (so the projector's LayerNorm weight is)."""
    named = [pair for module in modules for pair in module.named_parameters()]
    plain = [p for name, p in named if "norm" in name or "bias" in name]
    decayed = [p for name, p in named if not ("norm" in name or "bias" in name)]
    groups = [{"params": decayed, "weight_decay": config.training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.training.peak_lr, fused=True)


def learning_rate(config: TrainConfig, *, step: int, steps: int, per_epoch: int) -> float:
    """Linear rise over the warm-up, then a cosine to `final_lr_share` of the peak at the last step."""
    settings = config.training
    warmup = min(per_epoch if settings.warmup_steps is None else settings.warmup_steps, steps // 2)
    if step < warmup:
        return settings.peak_lr * (step + 1) / warmup
    fall = (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2
    return settings.peak_lr * (settings.final_lr_share + (1 - settings.final_lr_share) * fall)


def load_run(run_dir: Path) -> tuple[Encoder, TrainConfig, dict[str, Any]]:
    """Read a run: its encoder on the CPU, ready to embed, its settings, and run.json. Raises RunError."""
    config = TrainConfig.parse(_read_json(run_dir / "config.json"), str(run_dir / "config.json"))
    info = _read_json(run_dir / "run.json")
    encoder = build_encoder(config)
    encoder.load_state_dict(_read_checkpoint(run_dir / "checkpoint.pt")["encoder"])
    return encoder.eval(), config, info


def _loss_config(config: TrainConfig) -> LossConfig:
    if config.loss.kind == "vicreg":
        return LossConfig(kind="vicreg")
    return LossConfig(kind="contrastive", temperature=config.loss.temperature, within_view=config.loss.kind)


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the encoder runs in bf16: as the config says, or with "auto" where `device` computes in it."""
    if config.training.precision != "auto":
        return config.training.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # Elsewhere bf16 is emulated and slow; these instructions make steps faster (docs/performance.md).
    return bool(torch.cpu._is_avx512_bf16_supported())


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"


def _open_run(run_dir: Path, config: TrainConfig) -> None:
    if (run_dir / "checkpoint.pt").exists():
        raise RunError(f"{run_dir}: holds a training already; resume it or name another directory")
    run_dir.mkdir(parents=True, exist_ok=True)
    settings = json.dumps(config.model_dump(mode="json", exclude_none=True), indent=1)
    (run_dir / "config.json").write_text(settings + "\n", encoding="utf-8")
    (run_dir / "metrics.jsonl").write_text("", encoding="utf-8")


def _resume_run(run_dir: Path, config: TrainConfig, training: Training, recordings: list[str]) -> None:
    settings = run_dir / "config.json"
    if TrainConfig.parse(_read_json(settings), str(settings)) != config:
        raise RunError(f"{settings}: differs from the settings given; a run is resumed with the settings it began with")
    if _read_json(run_dir / "run.json")["recordings"] != recordings:
        raise RunError(f"{run_dir}: was trained on other recordings; a run is resumed with the ones it began with")
    training.restore(run_dir / "checkpoint.pt")
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= training.step]
    (run_dir / "metrics.jsonl").write_text("".join(kept), encoding="utf-8")


def _close_run(run_dir: Path, training: Training, info: dict[str, Any]) -> None:
    training.save(run_dir / "checkpoint.pt")
    done = {
        "step": training.step,
        "finished": training.step >= info["steps"],
        "windows": training.windows,
        "seconds": round(training.seconds, 1),
        "windows_per_s": round(training.windows / max(training.seconds, 1e-9), 1),
    }
    (run_dir / "run.json").write_text(json.dumps(info | done, indent=1) + "\n", encoding="utf-8")


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


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, so that a step is never torn; the second one acts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def asked(number: int, frame: FrameType | None) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, asked)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
