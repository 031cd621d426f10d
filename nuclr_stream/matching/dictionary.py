"""The templates as the matcher needs them: whitened, in a reduced space, per channel where a spike may be detected."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.matching.noise import RIDGE, Noise
from nuclr_stream.matching.settings import MatchingSettings
from nuclr_stream.matching.templates import Float32Array, Int32Array, Templates

Float64Array = npt.NDArray[np.float64]

LARGE = 2.0
"""A channel of a template counts for the temporal components from this many standard deviations on."""
SUBTRACTED = 0.5
"""A channel of a template is subtracted from this many standard deviations on."""
MOST_LAG_MS = 0.4
"""A trough on another channel is at most this far from the spike's."""


def build(kernels: Any, templates: Templates, noise: Noise, settings: MatchingSettings) -> tuple[Any, Any]:
    """Return the Dictionary and the Limits of `kernels` for templates in the noise of a stream."""
    rate_ms = float(templates.sample_rate) / 1000
    before, after = round(settings.before_ms * rate_ms), round(settings.after_ms * rate_ms)
    waves = np.ascontiguousarray(templates.waveforms / noise.sd, dtype=np.float32)
    neighbours = nearest(
        templates.positions_um, templates.shanks, radius_um=settings.radius_um, most=settings.most_channels
    )
    near = nearest(templates.positions_um, templates.shanks, radius_um=settings.exclusion_um, most=neighbours.shape[1])
    projector = _projector(waves, noise, before=before, after=after, components=settings.components)
    whitener = _whiteners(neighbours, noise)
    units, lags, first = _candidates(waves, templates.trough, settings, most_lag=round(MOST_LAG_MS * rate_ms))
    channel_of = np.repeat(np.arange(len(first) - 1), np.diff(first))
    features = np.zeros((len(units), projector.shape[1], neighbours.shape[1]), dtype=np.float32)
    for j, (unit, lag, channel) in enumerate(zip(units, lags, channel_of, strict=True)):
        there = neighbours[channel] >= 0
        snippet = _window(waves[unit], templates.trough + lag, before, after)[:, neighbours[channel][there]]
        features[j][:, there] = projector.T @ snippet @ whitener[channel][np.ix_(there, there)]
    flat = features.reshape(len(units), -1)
    support_first, support, wave_first, wave = _subtracted(waves)
    dictionary = kernels.Dictionary(
        neighbours=neighbours,
        near=near,
        whitener=whitener,
        projector=projector,
        first=first,
        unit=units,
        lag=lags,
        features=flat,
        norm=np.maximum((flat**2).sum(axis=1), 1e-6).astype(np.float32),
        wave_first=wave_first,
        wave=wave,
        support_first=support_first,
        support=support,
    )
    limits = kernels.Limits(
        threshold=settings.threshold,
        gain=settings.gain,
        misfit=settings.misfit,
        least_amplitude=settings.least_amplitude,
        most_amplitude=settings.most_amplitude,
        before=before,
        wave_before=templates.trough,
        wave_samples=waves.shape[1],
        shift=max(1, round(settings.shift_ms * rate_ms)),
        exclusion=max(1, round(settings.exclusion_ms * rate_ms)),
        refractory=max(1, round(settings.refractory_ms * rate_ms)),
        passes=settings.passes,
    )
    return dictionary, limits


def undetectable(templates: Templates, noise: Noise, settings: MatchingSettings) -> tuple[str, ...]:
    """Return the units whose trough is nowhere as deep as the threshold: most of their spikes will not be found."""
    depth = -(templates.waveforms / noise.sd).min(axis=(1, 2))
    return tuple(templates.unit_ids[u] for u in np.flatnonzero(depth < settings.threshold))


def nearest(positions_um: Float32Array, shanks: Int32Array, *, radius_um: float, most: int) -> Int32Array:
    """Return for every channel (C, M) those of its shank within `radius_um`, itself first, -1 where there are fewer.

    A channel whose place is not known (NaN) has no neighbours.
    """
    distance = np.linalg.norm(positions_um[:, None] - positions_um[None], axis=2)
    distance[shanks[:, None] != shanks[None, :]] = np.inf
    np.fill_diagonal(distance, -1.0)
    order = np.argsort(distance, axis=1, kind="stable")
    within = np.take_along_axis(distance, order, axis=1) <= radius_um
    width = min(most, int(within.sum(axis=1).max()))
    return np.where(within, order, -1)[:, :width].astype(np.int32)


def _projector(waves: Float32Array, noise: Noise, *, before: int, after: int, components: int) -> Float32Array:
    """Return (S, K): features of a snippet in which noise over time is white, of the templates' main shapes."""
    units, channels = np.nonzero(waves.min(axis=1) <= -LARGE)
    if not len(units):
        units, channels = np.arange(len(waves)), waves.min(axis=1).argmin(axis=1)
    troughs = waves[units, :, channels].argmin(axis=1)
    shapes = np.stack(
        [_window(waves[u], t, before, after)[:, c] for u, t, c in zip(units, troughs, channels, strict=True)]
    )
    covariance = noise.over_time[: before + after, : before + after] + RIDGE * np.eye(before + after)
    lower = np.linalg.cholesky(covariance)
    whitened = np.linalg.solve(lower, shapes.T.astype(np.float64))
    basis = np.linalg.svd(whitened, full_matrices=False)[0][:, :components]
    return np.ascontiguousarray(np.linalg.solve(lower.T, basis), dtype=np.float32)


def _whiteners(neighbours: Int32Array, noise: Noise) -> Float32Array:
    """Return (C, M, M): the inverse square root of the correlation in every neighbourhood."""
    whitener = np.zeros((*neighbours.shape, neighbours.shape[1]), dtype=np.float32)
    for c, row in enumerate(neighbours):
        there = np.flatnonzero(row >= 0)
        correlation = noise.over_channels[np.ix_(row[there], row[there])]
        values, vectors = np.linalg.eigh(correlation + RIDGE * np.eye(len(there)))
        root = (vectors / np.sqrt(np.maximum(values, RIDGE))) @ vectors.T
        whitener[c][np.ix_(there, there)] = root
    return whitener


def _candidates(
    waves: Float32Array, trough: int, settings: MatchingSettings, *, most_lag: int
) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Return units and lags of the candidates, by channel, and where each channel's begin (C + 1,)."""
    window = waves[:, max(0, trough - most_lag) : trough + most_lag + 1]
    depth, lag = -window.min(axis=1), window.argmin(axis=1) - min(trough, most_lag)  # (U, C)
    considered = depth >= settings.candidate_share * depth.max(axis=1, keepdims=True)
    channels, units = np.nonzero(considered.T)
    first = np.searchsorted(channels, np.arange(waves.shape[2] + 1))
    return units.astype(np.int32), lag[units, channels].astype(np.int32), first.astype(np.int32)


def _window(wave: Float32Array, middle: int, before: int, after: int) -> Float32Array:
    """Return samples [middle - before, middle + after) of a waveform (S, C), zero where it has none."""
    window = np.zeros((before + after, wave.shape[1]), dtype=np.float32)
    start, stop = max(0, middle - before), min(len(wave), middle + after)
    window[start - middle + before : stop - middle + before] = wave[start:stop]
    return window


def _subtracted(waves: Float32Array) -> tuple[Int32Array, Int32Array, Int32Array, Float32Array]:
    """Return the channels and samples of every unit that are taken away with a spike, one unit after another."""
    support = [np.flatnonzero(np.abs(wave).max(axis=0) >= SUBTRACTED) for wave in waves]
    parts = [wave[:, channels].ravel() for wave, channels in zip(waves, support, strict=True)]
    return (
        np.cumsum([0, *(len(channels) for channels in support)]).astype(np.int32),
        np.concatenate(support).astype(np.int32),
        np.cumsum([0, *(len(part) for part in parts)])[:-1].astype(np.int32),
        np.concatenate(parts).astype(np.float32),
    )
