"""Recordings through an encoder: embeddings of every window, and what they add up to per unit, as the daemon does it.

Windows, membership and exclusions come from `recorded_windows`, sums from `FeatureAccumulator`: the very definitions of
the daemon. Only active units enter the encoder, as a population of their own.
Shapes: K windows of a recording, N windows of a batch, U units, T bins, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from nuclr_stream.features.accumulator import FeatureAccumulator, FeatureSnapshot
from nuclr_stream.features.coupling import COUPLING_SUMS
from nuclr_stream.features.isi import INTERVAL_BINS, Int32Array
from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.recordings.recording import RecordedWindow, recorded_windows
from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array, WindowRules, WindowSpec
from offline_training.model.encoder import Encoder

Encode = Callable[[Float32Array, BoolArray], Float32Array]
"""counts (N, U, T), mask (N, U) -> embeddings (N, U, D)."""

BATCH_WINDOWS = 8


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The windows of one recording: their end bins (K,), why each was excluded or "", which had enough active units
    to be in distribution (K,), which units were embedded (K, U), and the embeddings (K, U, D), zeros elsewhere; what
    else is observed in them: counts K times (U, T), intervals (K, U, 17), couplings (K, U, 54), and the
    share that is missing (K,)."""

    recording_id: str
    subject_id: str
    spec: WindowSpec
    end_bin: Int64Array
    exclusions: tuple[str, ...]
    in_distribution: BoolArray
    embedded: BoolArray
    embeddings: Float32Array
    counts: tuple[npt.NDArray[np.number], ...]
    intervals: Int32Array
    coupling: Int64Array
    missing: npt.NDArray[np.float64]

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """When each window (K,) is over, in seconds from sample 0."""
        return self.end_bin / float(self.spec.bins_per_second)

    @property
    def steps_per_window(self) -> int:
        """How many windows further one starts that shares nothing with this one."""
        return -(-self.spec.bins // self.spec.hop_bins)

    def snapshot(self, first: int, last: int) -> FeatureSnapshot:
        """Everything that windows [first, last) add up to for every unit, as the daemon accumulates it."""
        return next(self.snapshots(first, [last]))

    def snapshots(self, first: int, lasts: Iterable[int]) -> Iterator[FeatureSnapshot]:
        """The same for windows [first, last) with every one of `lasts`, ascending, in one go."""
        features, everyone = FeatureAccumulator(self.spec, self.embeddings.shape[2]), np.arange(self.embedded.shape[1])
        for last in lasts:
            for k in range(first, last):
                self._add(k, features, everyone)
            first = last
            yield features.snapshot(everyone)

    def _add(self, k: int, features: FeatureAccumulator, everyone: Int64Array) -> None:
        if self.exclusions[k]:
            return
        features.add_activity(
            everyone,
            self.counts[k].astype(np.float32),
            end_bin=int(self.end_bin[k]),
            eligible=np.ones(len(everyone), dtype=bool),
            intervals=self.intervals[k],
            coupling=self.coupling[k],
        )
        units = np.flatnonzero(self.embedded[k])
        features.add_embeddings(units, self.embeddings[k, units], missing=float(self.missing[k]))


def embed_recording(
    encode: Encode,
    recording: AnyRecording,
    spec: WindowSpec,
    rules: WindowRules,
    *,
    batch_windows: int = BATCH_WINDOWS,
) -> Embedded:
    """Embed every window of a recording that the rules admit; see `through_torch` and `one_by_one` for `encode`.

    Windows with fewer than `rules.min_population` active units are embedded and flagged, those without any are not.
    """
    ends, exclusions, populations, members, values = [], [], [], [], []
    counts, intervals, coupling, missing = [], [], [], []
    for batch in _batches(recorded_windows(recording, spec, rules), batch_windows):
        for window in batch:
            ends.append(window.end_bin)
            exclusions.append(window.exclusion)
            counts.append(_compact(window.counts))
            intervals.append(window.intervals)
            coupling.append(window.coupling)
            missing.append(window.missing)
            populations.append(int(window.active.sum()))
            members.append(window.active & (not window.exclusion))
        values.append(_embed_batch(encode, [window.counts for window in batch], members[-len(batch) :]))
    units = len(recording.unit_ids)
    dim = max((part.shape[2] for part in values), default=0)
    return Embedded(
        recording_id=recording.recording_id,
        subject_id=recording.subject_id,
        spec=spec,
        end_bin=np.array(ends, dtype=np.int64),
        exclusions=tuple(exclusions),
        in_distribution=np.array(populations, dtype=np.int64) >= rules.min_population,
        embedded=np.array(members, dtype=bool).reshape(-1, units),
        embeddings=np.concatenate(
            [part if part.size else np.zeros((*part.shape[:2], dim), np.float32) for part in values]
            or [np.zeros((0, units, dim), np.float32)]
        ),
        counts=tuple(counts),
        intervals=np.array(intervals, dtype=np.int32).reshape(-1, units, INTERVAL_BINS),
        coupling=np.array(coupling, dtype=np.int64).reshape(-1, units, COUPLING_SUMS),
        missing=np.array(missing, dtype=np.float64),
    )


def through_torch(encoder: Encoder) -> Encode:
    """The encoder, switched to evaluation, as a function of numpy arrays; it computes where its weights are."""
    encoder.eval()
    device = next(encoder.parameters()).device

    def encode(counts: Float32Array, mask: BoolArray) -> Float32Array:
        with torch.inference_mode():
            found = encoder(torch.from_numpy(counts).to(device), torch.from_numpy(mask).to(device))
        embeddings: Float32Array = found.float().cpu().numpy()
        return embeddings

    return encode


def one_by_one(encode: Callable[[Float32Array, BoolArray], Float32Array]) -> Encode:
    """Make a batch function of one that takes a single population: counts (U, T), mask (U,) -> (U, D).

    Every population goes in without padding, as the daemon's does.
    """

    def encode_all(counts: Float32Array, mask: BoolArray) -> Float32Array:
        found = [encode(counts[i, : mask[i].sum()], np.ones(mask[i].sum(), dtype=bool)) for i in range(len(counts))]
        out = np.zeros((*mask.shape, found[0].shape[1]), dtype=np.float32)
        for row, values in zip(out, found, strict=True):
            row[: len(values)] = values
        return out

    return encode_all


def _compact(counts: Float32Array) -> npt.NDArray[np.number]:
    """The same numbers in a quarter of the memory, where they are small counts."""
    small = counts.astype(np.uint8)
    return small if np.array_equal(small, counts) else counts.copy()


def _batches(windows: Iterator[RecordedWindow], size: int) -> Iterator[list[RecordedWindow]]:
    while batch := list(islice(windows, size)):
        yield batch


def _embed_batch(encode: Encode, counts: Sequence[Float32Array], members: Sequence[BoolArray]) -> Float32Array:
    """Gather the members of each window to the front of a common array, embed, and put them back in their rows."""
    sizes = [int(member.sum()) for member in members]
    filled = [i for i, size in enumerate(sizes) if size]
    if not filled:
        return np.zeros((len(counts), len(members[0]), 0), dtype=np.float32)
    gathered = np.zeros((len(filled), max(sizes), counts[0].shape[1]), dtype=np.float32)
    mask = np.zeros(gathered.shape[:2], dtype=bool)
    for place, i in enumerate(filled):
        gathered[place, : sizes[i]] = counts[i][members[i]]
        mask[place, : sizes[i]] = True
    found = encode(gathered, mask)
    out = np.zeros((len(counts), len(members[0]), found.shape[2]), dtype=np.float32)
    for place, i in enumerate(filled):
        out[i, members[i]] = found[place, : sizes[i]]
    return out
