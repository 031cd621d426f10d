"""NEMO (ICLR 2025), from its description: waveform and autocorrelogram of a unit are brought together by contrast.

A 2-D ResNet sees the autocorrelogram image, a 1-D ResNet the mean waveform; linear + LayerNorm heads, CLIP loss. The
embedding of a unit is [image, waveform] before these heads. There is no population.

Where any recording lacks waveforms, the embedding is that of the image alone, and without any waveform at all the
contrast is between the images of the two halves of the recording. A task that measures the waveform must not be given
it: see `measures_waveform`.
Shapes: U units, D width of one embedding, S samples of a waveform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nuclr_stream.features.accumulator import FeatureSnapshot
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import BoolArray, Float32Array, WindowSpec
from offline_training.config import TaskSettings
from offline_training.evaluation.baselines.one_set import snapshot_of
from offline_training.evaluation.baselines.single_unit import CountedSteps, rate_steps
from offline_training.readouts.regression import ReadoutError
from offline_training.studies.budget import Budget, CpuClock, parameters_of
from offline_training.studies.rate_autocorrelogram import rate_autocorrelograms

WAVEFORM = "waveform_uv"
WAVEFORM_COLUMNS = (WAVEFORM, "peak_to_trough_ms", "amplitude_uv")
"""Columns of the unit table that are the waveform or measured on it."""

WAVEFORM_MS = np.arange(-6, 22) / 30
"""Times around the largest absolute value at which waveforms are read: recordings cut them at other lengths, which
would give away the recording."""

IMAGE_GAIN = 10.0


@dataclass(frozen=True)
class NemoSettings:
    """Sizes and length: a quarter of the published batch and of the 100 epochs, so about as many steps. The rate rises
    over a tenth of them and falls to nothing. Units with fewer than `min_spikes` spikes take no part in the contrast.
    """

    widths: tuple[int, ...] = (16, 32, 64, 64)
    image_blocks: tuple[int, ...] = (2, 2, 2, 3)
    waveform_blocks: tuple[int, ...] = (2, 3, 3, 3)
    temperature: float = 0.5
    batch: int = 256
    epochs: int = 25
    peak_rate: float = 5e-4
    min_spikes: int = 100

    def times_as_long(self, factor: float) -> NemoSettings:
        """The same with `factor` times as many epochs, one at least."""
        return replace(self, epochs=max(round(self.epochs * factor), 1))


def measures_waveform(task: TaskSettings) -> bool:
    """Whether the labels of a task are measured on the waveform, so that a waveform would give them away."""
    return task.column in WAVEFORM_COLUMNS


def waveforms(recording: Recording) -> Float32Array | None:
    """Mean waveforms (U, S) read at WAVEFORM_MS and divided by their absolute peak; zeros for a unit without one.

    None where the recording has no such column, or nothing but flat waveforms in it.
    """
    raw = recording.units.get(WAVEFORM)
    if raw is None:
        return None
    found = np.zeros((len(raw), len(WAVEFORM_MS)), dtype=np.float32)
    for unit in np.flatnonzero(np.isfinite(raw).all(axis=1) & raw.any(axis=1)):
        peak = int(np.abs(raw[unit]).argmax())
        at_ms = (np.arange(raw.shape[1]) - peak) * 1000 / float(recording.sample_rate)
        found[unit] = np.interp(WAVEFORM_MS, at_ms, raw[unit] / np.abs(raw[unit, peak]))
    return found if found.any() else None


class Block(nn.Module):
    """Two convolutions of width 3 and what came in, added; `convolution` and `norm` are of one or two dimensions."""

    def __init__(
        self, convolution: type[nn.Module], norm: type[nn.Module], before: int, after: int, *, stride: int
    ) -> None:
        super().__init__()
        self.change = nn.Sequential(
            convolution(before, after, 3, stride=stride, padding=1, bias=False),
            norm(after),
            nn.ReLU(),
            convolution(after, after, 3, padding=1, bias=False),
            norm(after),
        )
        same = before == after and stride == 1
        self.past = nn.Identity() if same else convolution(before, after, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same form, shorter by the stride."""
        return torch.relu(self.change(x) + self.past(x))


def image_network(settings: NemoSettings) -> nn.Sequential:
    """2-D ResNet: images (U, 1, R, L) -> (U, D)."""
    stem: list[nn.Module] = [nn.Conv2d(1, settings.widths[0], 3, stride=(1, 2), padding=1, bias=False)]
    stem += [nn.BatchNorm2d(settings.widths[0]), nn.ReLU()]
    blocks = _stages(nn.Conv2d, nn.BatchNorm2d, settings.widths, settings.image_blocks)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def waveform_network(settings: NemoSettings) -> nn.Sequential:
    """1-D ResNet with a stem of width 7: waveforms (U, 1, S) -> (U, D)."""
    stem: list[nn.Module] = [nn.Conv1d(1, settings.widths[0], 7, padding=3, bias=False)]
    stem += [nn.BatchNorm1d(settings.widths[0]), nn.ReLU()]
    blocks = _stages(nn.Conv1d, nn.BatchNorm1d, settings.widths, settings.waveform_blocks)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten())


def _stages(
    convolution: type[nn.Module], norm: type[nn.Module], widths: Sequence[int], blocks: Sequence[int]
) -> list[Block]:
    """Every stage but the first halves the resolution."""
    stages: list[Block] = []
    before = widths[0]
    for stage, (width, number) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(number):
            stages.append(Block(convolution, norm, before, width, stride=2 if stage and not block else 1))
            before = width
    return stages


class Nemo(nn.Module):
    """Both networks and their projections; `other` sees waveforms, or images where there is no waveform at all."""

    def __init__(self, settings: NemoSettings, *, other: nn.Module) -> None:
        super().__init__()
        width = settings.widths[-1]
        self.image = image_network(settings)
        self.other = other
        self.image_head = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.other_head = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, images: Tensor, others: Tensor, temperature: float) -> Tensor:
        """CLIP loss of a batch in which row i of both is the same unit."""
        a = nn.functional.normalize(self.image_head(self.image(images)), dim=1)
        b = nn.functional.normalize(self.other_head(self.other(others)), dim=1)
        similarity = a @ b.T / temperature
        same = torch.arange(len(a))
        cross = nn.functional.cross_entropy
        return (cross(similarity, same) + cross(similarity.T, same)) / 2


@dataclass(frozen=True)
class NemoInput:
    """What NEMO sees of one recording: images of any stretch, computed once, and waveforms if there are any."""

    recording: Recording
    steps: CountedSteps
    waveforms: Float32Array | None
    _images: dict[tuple[float, float], Float32Array] = field(default_factory=dict)

    @classmethod
    def of(cls, recording: Recording, spec: WindowSpec) -> NemoInput:
        """Exposure is counted in the windows of `spec`, as for every other feature."""
        return cls(recording, rate_steps(recording, spec), waveforms(recording))

    def images(self, start_s: float, stop_s: float) -> Float32Array:
        """Images (U, 1, R, L) from the spikes in [start_s, stop_s)."""
        key = (start_s, stop_s)
        if key not in self._images:
            self._images[key] = IMAGE_GAIN * rate_autocorrelograms(self.recording, start_s, stop_s)[:, None]
        return self._images[key]


@dataclass(frozen=True)
class NemoFeatures:
    """Embeddings of the units of one recording over any stretch: [image, waveform], or the image alone."""

    network: Nemo
    source: NemoInput
    with_waveform: bool = True
    steps_per_window: int = 1
    _embedded: dict[tuple[int, int], Float32Array] = field(default_factory=dict)

    def image_alone(self) -> NemoFeatures:
        """The same without the waveform; what is computed once serves both."""
        return replace(self, with_waveform=False)

    @property
    def name(self) -> str:
        """The feature set."""
        return "nemo" if self.with_waveform else "nemo_acg"

    @property
    def recording_id(self) -> str:
        """The recording."""
        return self.source.recording.recording_id

    @property
    def subject_id(self) -> str:
        """The animal."""
        return self.source.recording.subject_id

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """When each window (W,) is over."""
        return self.source.steps.end_s

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """Embeddings (U, D or 2 D) from windows [first, last); the exposure is in how many of them the unit fired."""
        if (first, last) not in self._embedded:
            start_s = float(self.end_s[first - 1]) if first else 0.0
            images = self.source.images(start_s, float(self.end_s[last - 1]))
            self._embedded[first, last] = _through(self.network.image, images)
        parts = [self._embedded[first, last]]
        if self.with_waveform and self.source.waveforms is not None:
            parts.append(_through(self.network.other, self.source.waveforms[:, None]))
        return snapshot_of(self.name, np.hstack(parts), self.source.steps.snapshot(first, last).exposure)


def train_nemo(
    inputs: Sequence[NemoInput],
    chosen: Sequence[BoolArray],
    *,
    seed: int,
    settings: NemoSettings = NemoSettings(),
    bf16: bool = False,
) -> tuple[Nemo, Budget]:
    """Train on the chosen units (U,) of every recording, without labels; `bf16` is the precision of the forward pass.

    Raises ReadoutError when fewer than two units can take part in the contrast.
    """
    clock = CpuClock()
    torch.manual_seed(seed)
    images, others, modality = _pairs(inputs, chosen, settings)
    waveform = modality == "waveform"
    network = Nemo(settings, other=waveform_network(settings) if waveform else image_network(settings))
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.peak_rate)
    batches = max(len(images) // settings.batch, 1)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.peak_rate, total_steps=settings.epochs * batches, pct_start=0.1, cycle_momentum=False
    )
    network.train()
    losses = []
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(images)).tensor_split(batches):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):  # anew each step: it keeps copies of the weights
                loss = network(images[rows], others[rows], settings.temperature)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            rate.step()
            losses.append(loss.item())
    network.eval()
    half, end = (np.mean(losses[at : at + batches]) for at in (len(losses) // 2, len(losses) - batches))
    how = (
        f"{settings.epochs} epochs of {len(images)} units in batches of about {len(images) // batches}, image against "
        f"{modality}; loss {half:.3f} half-way, {end:.3f} at the end (chance {np.log(len(images) / batches):.3f})"
    )
    return network, Budget(settings.epochs * batches, clock.cpu_s, parameters_of(network), how)


def have_waveforms(inputs: Sequence[NemoInput]) -> bool:
    """Whether every recording has waveforms, so that they may be part of the embedding."""
    return all(source.waveforms is not None for source in inputs)


def _pairs(
    inputs: Sequence[NemoInput], chosen: Sequence[BoolArray], settings: NemoSettings
) -> tuple[Tensor, Tensor, str]:
    """Images and what each is contrasted with, of the chosen units that have both, and what that is."""
    any_waveform = any(source.waveforms is not None for source in inputs)
    images, others = [], []
    for source, own in zip(inputs, chosen, strict=True):
        enough = own & (source.recording.spikes_per_unit >= settings.min_spikes)
        end_s = source.recording.duration_s
        if not any_waveform:
            images.append(source.images(0.0, end_s / 2)[enough])
            others.append(source.images(end_s / 2, end_s)[enough])
        elif source.waveforms is not None:
            enough &= source.waveforms.any(axis=1)
            images.append(source.images(0.0, float(source.steps.end_s[-1]))[enough])
            others.append(source.waveforms[enough][:, None])
    if sum(map(len, images)) < 2:
        raise ReadoutError(f"fewer than two units with {settings.min_spikes} spikes to contrast")
    modality = "waveform" if any_waveform else "the image of the other half"
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(others)), modality


def _through(network: nn.Module, values: Float32Array) -> Float32Array:
    network.eval()
    with torch.inference_mode():
        return np.concatenate([network(part).numpy() for part in torch.split(torch.from_numpy(values), 1024)])
