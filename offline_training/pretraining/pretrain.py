"""Train an encoder on pairs of views, from nothing or from a checkpoint. Read `pretrain` top to bottom.

One process trains on one device; torchrun makes several share every batch, see `distributed`, and then the
first of them keeps the run directory, see `runs`.
"""

from __future__ import annotations

import json
import platform
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch.utils.tensorboard.writer import SummaryWriter

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.readers import AnyRecording
from offline_training.config import TrainConfig
from offline_training.pretraining.checkpoint_choice import Score, keep_the_better, without_validation
from offline_training.pretraining.distributed import Processes, join
from offline_training.pretraining.loader import batches
from offline_training.pretraining.progress import TrainingProgress
from offline_training.pretraining.runs import LAST, begin_run, resume_run, save_run
from offline_training.pretraining.steps import Training, learning_rate, new_training, train_step, uses_bf16
from offline_training.pretraining.views import ViewSampler

TENSORBOARD_EVERY = 10


def pretrain(
    config: TrainConfig,
    recordings: Sequence[AnyRecording],
    run_dir: Path,
    *,
    score: Score | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    title: str = "pretrain",
) -> Path:
    """Train an encoder on `recordings` as `config` says and return `run_dir`, ready for `Run.open`.

    Seeds torch's global generator and sets its number of threads. Ctrl-C ends after the step at hand, with a checkpoint
    to resume from.

    Args:
        config: all settings.
        recordings: those of validation animals included, where the config names some.
        run_dir: where the run is kept; made by the first of several processes.
        score: what chooses the checkpoint; given exactly where `config.selection` is,
            see `offline_training.readouts.validation.validation_score`.
        resume: go on with an interrupted run.
        stop_after: leave the run at that step.
        title: the name of the progress bar.

    Raises:
        RunError: the directory holds another run, or none to resume.
        ConfigError: the settings do not fit the recordings, the processes or `score`.
        NonFiniteError: the loss stopped being a number.
    """
    settings = config.training
    if (score is None) != (config.selection is None):
        raise ConfigError(f"{config.name}: [selection] and what scores a checkpoint belong together; one is missing")

    # The machine: denormal numbers appear late in training and make CPUs many times slower.
    torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(settings.seed)
    processes = join()
    _check_shares(config, processes)
    device = processes.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(config, device))

    # What is trained, on what, and for how long.
    sampler = ViewSampler(without_validation(config, recordings), config, rank=processes.rank, processes=processes.size)
    per_epoch = sampler.batches_per_epoch
    steps = settings.steps or per_epoch * (settings.epochs or 0)
    training = new_training(config, device)
    info = _facts(config, recordings, processes) | {
        "steps": steps,
        "steps_per_epoch": per_epoch,
        "parameters": sum(p.numel() for p in training.encoder.parameters()),
    }
    if resume:
        training.restore(_checkpoint(run_dir, config, recordings, processes))
    elif processes.first:
        begin_run(run_dir, config)

    # Step by step, until the last one or a signal.
    last = min(steps, stop_after or steps)
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        report = stack.enter_context(_Report(run_dir, title, training, steps)) if processes.first else None
        ahead = batches(sampler, first=training.step, last=last, workers=settings.loader_workers)
        stack.enter_context(closing(ahead))
        saved = time.monotonic()
        while training.step < last and not processes.any(stop.is_set()):
            began = time.monotonic()
            views = next(ahead)
            rate = learning_rate(config, step=training.step, steps=steps, per_epoch=per_epoch)
            processes.seed(settings.seed, training.step)
            training.step += 1  # before the step, so that its line and its errors carry its own number
            line = train_step(training, views, config, rate=rate, autocast=autocast, processes=processes)
            if line is not None:  # otherwise no pair of this batch had enough active units
                training.windows += int(line["windows"])
                training.seconds += time.monotonic() - began
            if report is None:  # only the first process writes
                continue
            if line is not None:
                report.write(line)
            if score is not None and _is_due(config, training.step, steps=steps, per_epoch=per_epoch):
                keep_the_better(training, score(training.encoder))
            if time.monotonic() - saved > settings.checkpoint_every_s:
                save_run(run_dir, training, info)
                saved = time.monotonic()
    if processes.first:
        save_run(run_dir, training, info)
    processes.wait()
    return run_dir


def _checkpoint(
    run_dir: Path, config: TrainConfig, recordings: Sequence[AnyRecording], processes: Processes
) -> Mapping[str, Any]:
    """The checkpoint that the first process reads, in all of them: the others need not see its files."""
    state = processes.from_first(resume_run(run_dir, config, recordings) if processes.first else None)
    assert state is not None, "the first process has read it"
    return state


def _check_shares(config: TrainConfig, processes: Processes) -> None:
    if config.training.batch_windows < processes.size:
        raise ConfigError(
            f"training.batch_windows = {config.training.batch_windows}: every one of {processes.size} processes "
            "needs a pair of windows; start fewer"
        )
    if config.loss.kind == "vicreg" and processes.size > 1:
        raise ConfigError(
            f"loss.kind = vicreg pools all units of a batch and trains in one process, not in {processes.size}"
        )


def _facts(config: TrainConfig, recordings: Sequence[AnyRecording], processes: Processes) -> dict[str, Any]:
    """What run.json holds from the start. Validation animals count as subjects too: they choose the checkpoint."""
    chosen = config.selection
    return {
        "name": config.name,
        "kind": config.kind,
        "recordings": [recording.recording_id for recording in recordings],
        "subjects": sorted({recording.subject_id for recording in recordings}),
        "selection": {"by": chosen.by, "subjects": sorted(chosen.subjects)} if chosen else LAST,
        "seed": config.training.seed,
        "device": processes.device.type,
        "processes": processes.size,
        "machine": _machine(processes.device),
        "precision": "bf16" if uses_bf16(config, processes.device) else "fp32",
        "threads": config.training.threads,
        "torch": torch.__version__,
    }


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"


def _is_due(config: TrainConfig, step: int, *, steps: int, per_epoch: int) -> bool:
    every = config.selection.every_steps if config.selection else None
    return step == steps or step % (every or per_epoch) == 0


class _Report:
    """What a training reports while it runs: metrics.jsonl, TensorBoard's files, and a progress bar or lines."""

    def __init__(self, run_dir: Path, title: str, training: Training, steps: int) -> None:
        self._training = training
        self._stack = ExitStack()
        self._board = self._stack.enter_context(SummaryWriter(str(run_dir), purge_step=training.step))
        metrics = (run_dir / "metrics.jsonl").open("a", encoding="utf-8", buffering=1)
        self._metrics = self._stack.enter_context(metrics)
        self._progress = self._stack.enter_context(TrainingProgress(title, steps=steps, done=training.step))

    def __enter__(self) -> _Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, line: dict[str, float]) -> None:
        """Note one step."""
        step = int(line["step"])
        self._metrics.write(json.dumps(line) + "\n")
        if step % TENSORBOARD_EVERY == 0:
            for name, value in line.items():
                self._board.add_scalar(name, value, step)
        self._progress.step(
            step,
            loss=line["loss"],
            numerator=line["numerator"],
            denominator=line["denominator"],
            windows_per_s=self._training.windows / self._training.seconds,
        )


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, so that a step is never torn; the second one acts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
