"""How fast an encoder trains on this machine, by precision and threads, on simulated animals made in memory.

All ways to train take turns on the very same batches, so that whatever else the machine does slows them alike. A step
is what `pretrain` does: sample a batch of pairs of windows, forward, loss, backward, optimiser.

How well a device is used: `matmul_share` is the encoder's own arithmetic in a step (forward, and twice as much
backward; no padding) over what a large matrix product of the same precision and threads does on this device meanwhile.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import profile

from nuclr_stream.errors import ConfigError
from offline_training.config import TrainConfig
from offline_training.model.encoder import EncoderConfig
from offline_training.pretraining.steps import Training, new_training, train_step, uses_bf16
from offline_training.pretraining.views import Views, ViewSampler
from offline_training.simulation.animals import simulate

SEEDS, UNITS, SHORTEST_S = (1000, 1001, 1002), 120, 60.0
WARM_UP_STEPS = 3
THREADS = (1, 2)
RATE = 1e-5
"""Learning rate; it has no part in the time."""
MATMUL_SIZE = {"cuda": 8192, "cpu": 1024}
MATMUL_RUNS = 5


@dataclass
class _Way:
    """One way to train, with weights of its own, and what its steps took, the first WARM_UP_STEPS among them."""

    config: TrainConfig
    precision: str
    threads: int
    autocast: torch.autocast
    training: Training
    step_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def step(self, views: Views) -> None:
        """Train on one batch and note the seconds of the clock, and of all CPU threads. Waits for the device."""
        torch.set_num_threads(self.threads)
        began_s, cpu_s = time.perf_counter(), time.process_time()
        train_step(self.training, views, self.config, rate=RATE, autocast=self.autocast)
        self.step_s.append(time.perf_counter() - began_s)
        self.cpu_s.append(time.process_time() - cpu_s)

    def figures(self, sampled: list[tuple[int, float]]) -> dict[str, Any]:
        """Medians over the timed steps; `sampled` are the pairs in each batch and the seconds of sampling it."""
        timed = slice(WARM_UP_STEPS, len(sampled))
        step_s, cpu_s = self.step_s[timed], self.cpu_s[timed]
        sample_s = median(spent_s for _, spent_s in sampled[timed])
        rates = [pairs / (spent_s + s) for (pairs, spent_s), s in zip(sampled[timed], step_s, strict=True)]
        return {
            "precision": self.precision,
            "threads": self.threads,
            "windows_per_s": round(median(rates), 2),
            "step_s": round(median(step_s), 5),
            "step_s_range": [round(min(step_s), 5), round(max(step_s), 5)],
            "cpu_s": round(median(cpu_s), 5),
            "sample_s": round(sample_s, 5),
            "loader_workers_to_keep_up": math.ceil(sample_s / median(step_s)),
        }

    def use(self, forward: list[float], device: torch.device) -> dict[str, float]:
        """What the encoder computes in a second, in 10^12 operations, and the share of a large product's; `forward` are
        the operations of a run of the encoder on each batch."""
        torch.set_num_threads(self.threads)
        timed = slice(WARM_UP_STEPS, len(forward))
        rate = median(3 * flops / s for flops, s in zip(forward[timed], self.step_s[timed], strict=True))
        most = matmul_flops_per_s(device, torch.bfloat16 if self.precision.startswith("bf16") else torch.float32)
        return {"model_tflops_per_s": round(rate / 1e12, 4), "matmul_share": round(rate / most, 3)}

    def gpu_busy(self, views: Views, step_s: float) -> float:
        """Share of a step of `step_s` in which kernels run: their time in one more step, which a profiler watches."""
        with profile() as watched:
            self.step(views)
        kernels = [e for e in watched.key_averages() if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
        return round(float(sum(e.self_device_time_total for e in kernels)) / 1e6 / step_s, 3)


def run_bench(config: TrainConfig, *, steps: int, on_step: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Return the sizes and, for fp32 and bf16 (where the device has it) with 1 and 2 threads, medians over `steps`.

    `windows_per_s` counts pairs of windows, with their sampling; `step_s` and `cpu_s` (all threads) are without it.
    Raises ConfigError when the config leaves nothing of simulated spikes.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads_before = torch.get_num_threads()
    torch.set_flush_denormal(True)
    duration_s = max(SHORTEST_S, 6 * config.window.spec.window_s) + config.training.drop_last_s
    sampler = ViewSampler([simulate(seed, units=UNITS, duration_s=duration_s) for seed in SEEDS], config)
    ways = _ways(config, device)
    sampled, forward = [], []
    for number in range(WARM_UP_STEPS + steps):
        began_s = time.perf_counter()
        views = sampler.batch(*divmod(number, sampler.batches_per_epoch))
        if views is None:
            raise ConfigError(f"{config.name}: too few of {UNITS} units are active; raise training.unit_keep")
        sampled.append((len(views.units), time.perf_counter() - began_s))
        forward.append(forward_flops(ways[0].training.encoder.config, views))
        for way in ways:
            way.step(views)
        on_step(number + 1)
    runs, gpu = [way.figures(sampled) | way.use(forward, device) for way in ways], None
    if device.type == "cuda" and views is not None:
        gpu = {"name": torch.cuda.get_device_name(), "peak_bytes": torch.cuda.max_memory_allocated()}
        runs = [run | {"gpu_busy": way.gpu_busy(views, run["step_s"])} for way, run in zip(ways, runs, strict=True)]
    torch.set_num_threads(threads_before)
    return {
        "name": config.name,
        "parameters": sum(p.numel() for p in ways[0].training.encoder.parameters()),
        "config": config.model_dump(mode="json", include={"window", "encoder", "loss", "training"}),
        "recordings": {"simulated_seeds": list(SEEDS), "units": UNITS, "duration_s": duration_s},
        "steps": steps,
        "warm_up_steps": WARM_UP_STEPS,
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "runs": runs,
    }


def _ways(config: TrainConfig, device: torch.device) -> list[_Way]:
    precisions = (False, True) if uses_bf16(config.with_training(precision="auto"), device) else (False,)
    forms = (None, "encoder") if config.training.compile else (None,)
    ways = []
    for bf16, threads, compiled in itertools.product(precisions, THREADS, forms):
        torch.manual_seed(config.training.seed)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
        training = new_training(config.with_training(compile=compiled), device)
        name = ("bf16" if bf16 else "fp32") + (", compiled" if compiled else "")
        ways.append(_Way(config, name, threads, autocast, training))
    return ways


def forward_flops(config: EncoderConfig, views: Views) -> float:
    """Multiplications and additions of one run of the encoder on both views of a batch, of units that are present."""
    units = np.concatenate([views.present1.sum(axis=1), views.present2.sum(axis=1)]).astype(np.float64)  # (2N,)
    inner, spatial = config.heads * config.head_dim, config.spatiotemporal_blocks
    temporal = config.temporal_blocks + spatial
    attention, feed_forward = 8 * config.dim * inner, 6 * config.dim * config.ffn_hidden
    fixed = 2 * config.bins_per_patch * config.dim + (temporal + spatial) * (attention + feed_forward)
    per_token = fixed + temporal * 4 * config.patches * inner + spatial * 4 * units * inner
    return float((config.patches * units * per_token).sum())


def matmul_flops_per_s(device: torch.device, kind: torch.dtype) -> float:
    """What this device does in a product of two large square matrices of `kind`, at best of a few runs."""
    size = MATMUL_SIZE[device.type]
    one = torch.ones(size, size, dtype=kind, device=device)
    best = math.inf
    for _ in range(MATMUL_RUNS):
        began_s = time.perf_counter()
        (one @ one)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - began_s)
    return 2 * size**3 / best
