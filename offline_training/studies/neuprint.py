"""NeuPRINT (NeurIPS 2023), from its description: a free vector per unit that helps to predict its own activity.

A shared transformer of one layer sees 200 bins of a unit: its own counts, but for the bins held out, mean and standard
deviation of the counts of the other units, and in every bin the unit's vector; it predicts the counts held out (mean
squared error). The vectors are the embeddings. Behaviour is joined where there is some: these recordings have none, and
neighbours by distance are left out because positions are inputs of nothing here.

TRANSDUCTIVE ONLY: a unit has a vector only after gradient descent on its own activity, so nothing can be claimed for
animals that were not part of the training.
Shapes: U units, T bins, B batch, W bins of a window, V width of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nuclr_stream.features.accumulator import FeatureSnapshot
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Float32Array, Grid, Int64Array, WindowSpec
from offline_training.evaluation.baselines.one_set import snapshot_of
from offline_training.evaluation.baselines.single_unit import rate_steps
from offline_training.readouts.regression import ReadoutError
from offline_training.studies.budget import Budget, CpuClock, parameters_of


@dataclass(frozen=True)
class NeuprintSettings:
    """Sizes and length. `held_out` of the `bins` of a window are predicted, drawn at random."""

    vector: int = 64
    width: int = 64
    heads: int = 4
    feed_forward: int = 128
    bins: int = 200
    held_out: int = 20
    batch: int = 128
    steps: int = 1500
    vector_rate: float = 2e-2
    network_rate: float = 3e-3

    def times_as_long(self, factor: float) -> NeuprintSettings:
        """The same with `factor` times as many steps, one at least."""
        return replace(self, steps=max(round(self.steps * factor), 1))


class Neuprint(nn.Module):
    """The vectors (U, V) of the units of all recordings, and the transformer that they share."""

    def __init__(self, units: int, settings: NeuprintSettings) -> None:
        super().__init__()
        wide = settings.width
        self.vectors = nn.Parameter(0.1 * torch.randn(units, settings.vector))
        self.read_in = nn.Linear(4 + settings.vector, wide)
        self.position = nn.Parameter(0.02 * torch.randn(settings.bins, wide))
        self.layer = nn.TransformerEncoderLayer(
            wide, settings.heads, settings.feed_forward, dropout=0.0, batch_first=True, norm_first=True
        )
        self.predict = nn.Linear(wide, 1)

    def forward(self, own: Tensor, others: Tensor, hidden: Tensor, unit: Tensor) -> Tensor:
        """Predicted counts (B, W) from own counts (B, W), mean and deviation of the others (B, W, 2), which bins are
        hidden (B, W) and the number (B,) of the unit."""
        shown = torch.stack([own.masked_fill(hidden, 0.0), hidden.float()], dim=2)
        vectors = self.vectors[unit][:, None].expand(-1, own.shape[1], -1)
        frames = torch.cat([shown, others, vectors], dim=2)
        predicted: Tensor = self.predict(self.layer(self.read_in(frames) + self.position))[..., 0]
        return predicted


@dataclass(frozen=True)
class CountedPopulation:
    """Counts (U, T) of one recording, and their sum and sum of squares over units (T,)."""

    counts: npt.NDArray[np.uint8]
    total: Float32Array
    squares: Float32Array

    @classmethod
    def of(cls, recording: Recording, spec: WindowSpec) -> CountedPopulation:
        """Count a recording in the bins of `spec`."""
        counts = recording.counts(Grid(recording.sample_rate, spec.bins_per_second))
        return cls(counts.clip(0, 255).astype(np.uint8), counts.sum(axis=0), np.square(counts).sum(axis=0))

    def window(self, unit: int, first: int, bins: int) -> tuple[Float32Array, Float32Array]:
        """Counts (W,) of a unit, and mean and standard deviation over the other units (W, 2)."""
        own = self.counts[unit, first : first + bins].astype(np.float32)
        others = max(len(self.counts) - 1, 1)
        mean = (self.total[first : first + bins] - own) / others
        square = (self.squares[first : first + bins] - own**2) / others
        return own, np.stack([mean, np.sqrt(np.maximum(square - mean**2, 0))], axis=1)


@dataclass(frozen=True)
class UnitVectors:
    """The vectors (U, V) of the units of one recording: known at its end, and not before."""

    recording_id: str
    subject_id: str
    end_s: npt.NDArray[np.float64]
    vectors: Float32Array
    exposure: Float32Array
    steps_per_window: int = 1
    name: str = "neuprint"

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """The vectors; the exposure is in how many windows of the recording the unit fired."""
        return snapshot_of(self.name, self.vectors, self.exposure)


def train_neuprint(
    recordings: Sequence[Recording],
    spec: WindowSpec,
    *,
    seed: int,
    settings: NeuprintSettings = NeuprintSettings(),
) -> tuple[list[Float32Array], Budget]:
    """Vectors (U, V) of the units of every recording, trained on the activity of all of them, without labels.

    Raises ReadoutError when a recording is shorter than a window.
    """
    clock = CpuClock()
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 4])
    populations = [CountedPopulation.of(recording, spec) for recording in recordings]
    for recording, population in zip(recordings, populations, strict=True):
        if population.counts.shape[1] < settings.bins:
            raise ReadoutError(f"{recording.recording_id}: shorter than a window of {settings.bins} bins")
    sizes = [len(population.counts) for population in populations]
    network = Neuprint(sum(sizes), settings)
    shared = [p for name, p in network.named_parameters() if name != "vectors"]
    optimiser = torch.optim.Adam(
        [{"params": shared, "lr": settings.network_rate}, {"params": [network.vectors], "lr": settings.vector_rate}]
    )
    rows = np.column_stack([np.repeat(np.arange(len(sizes)), sizes), np.concatenate([np.arange(s) for s in sizes])])
    errors: list[tuple[float, float]] = []
    for unit in islice(_unit_batches(rng, len(rows), settings.batch), settings.steps):
        own, others = _windows(rng, populations, rows[unit], settings.bins)
        hidden = torch.rand(own.shape).argsort(dim=1) < settings.held_out
        predicted = network(own, others, hidden, torch.from_numpy(unit))
        loss = torch.square(predicted - own)[hidden].mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        errors.append((loss.item(), own.var().item()))
    budget = Budget(settings.steps, clock.cpu_s, parameters_of(network), _how(errors, len(rows), settings))
    return np.split(network.vectors.detach().numpy(), np.cumsum(sizes)[:-1]), budget


def unit_vectors(recording: Recording, spec: WindowSpec, vectors: Float32Array) -> UnitVectors:
    """The vectors (U, V) of a recording as features; exposure is counted in the windows of `spec`."""
    steps = rate_steps(recording, spec)
    fired = steps.fired.sum(axis=0).astype(np.float32)
    return UnitVectors(recording.recording_id, recording.subject_id, steps.end_s[-1:], vectors, fired)


def _unit_batches(rng: np.random.Generator, units: int, batch: int) -> Iterator[Int64Array]:
    """Numbers (B,) of units without end: every unit once before any comes again."""
    while True:
        yield from np.array_split(rng.permutation(units), -(-units // batch))


def _windows(
    rng: np.random.Generator, populations: Sequence[CountedPopulation], rows: Int64Array, bins: int
) -> tuple[Tensor, Tensor]:
    """A random window of each unit, given as (place of the recording, row): counts (B, W) and the others' (B, W, 2)."""
    drawn = []
    for place, row in rows:
        population = populations[place]
        drawn.append(population.window(row, int(rng.integers(population.counts.shape[1] - bins + 1)), bins))
    own, others = zip(*drawn, strict=True)
    return torch.from_numpy(np.stack(own)), torch.from_numpy(np.stack(others))


def _how(errors: Sequence[tuple[float, float]], units: int, settings: NeuprintSettings) -> str:
    tenth = max(len(errors) // 10, 1)
    parts = [np.mean(errors[at : at + tenth], axis=0) for at in (len(errors) // 2 - tenth // 2, len(errors) - tenth)]
    half, end = (error / max(variance, 1e-12) for error, variance in parts)
    return (
        f"{settings.steps} batches of {settings.batch} windows over {units} units, {settings.held_out} bins of "
        f"{settings.bins} held out; squared error over variance {half:.3f} half-way, {end:.3f} at the end"
    )
