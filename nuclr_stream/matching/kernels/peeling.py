"""Troughs become spikes: detection, comparison with the templates, subtraction, overlaps.

Traces are (T, C) in standard deviations of the noise; rows of a trace are samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nuclr_stream.matching.kernels.compiling import Floats, Index, Ints, compiled, inner

NO_UNIT = -1
HOPELESS = 0.25
"""A trough is given up when no unit explains this share of the gain before it is moved."""


class Dictionary(NamedTuple):
    """The templates in the shape of the matcher; made by `nuclr_stream.matching.dictionary.build`.

    `neighbours` (C, M) channels nearest first, -1 where there are fewer; `near` (C, E) the channels of which only the
    deepest trough counts; `whitener` (C, M, M); `projector` (S, K). Candidates of channel c are rows
    [first[c], first[c + 1]) of `unit`, `lag` (samples from the unit's spike to its trough on c), `features` (K * M) and
    `norm`. The waveform of unit u to be subtracted is `wave[wave_first[u]:]`, samples by the channels
    `support[support_first[u]:support_first[u + 1]]`.
    """

    neighbours: Ints
    near: Ints
    whitener: Floats
    projector: Floats
    first: Ints
    unit: Ints
    lag: Ints
    features: Floats
    norm: Floats
    wave_first: Ints
    wave: Floats
    support_first: Ints
    support: Ints


class Limits(NamedTuple):
    """When a trough is a spike of a unit; see `nuclr_stream.matching.settings.MatchingSettings`."""

    threshold: float
    gain: float
    misfit: float
    least_amplitude: float
    most_amplitude: float
    before: int
    wave_before: int
    wave_samples: int
    shift: int
    exclusion: int
    refractory: int
    passes: int


class Assigned(NamedTuple):
    """What `assign` made of one trough: the unit (NO_UNIT for none), its spike time as a row, amplitude, gain, whether
    what is left is like noise."""

    unit: Index
    row: Index
    amplitude: float
    gain: float
    fits: bool


@compiled
def find_troughs(
    trace: Floats, near: Ints, begin: int, end: int, threshold: float, exclusion: int, rows: Ints, channels: Ints
) -> int:
    """Write the troughs of rows [begin, end) below -threshold to `rows` and `channels`; returns how many.

    A trough is the lowest point within `exclusion` samples on its channel and those `near`; of equals the first counts.
    """
    found = 0
    limit = np.float32(-threshold)
    for t in range(begin, end):
        for c in range(trace.shape[1]):
            value = trace[t, c]
            if value >= limit or value > trace[t - 1, c] or value >= trace[t + 1, c]:
                continue
            lowest = True
            for e in range(near.shape[1]):
                other = near[c, e]
                if other < 0:
                    break
                for s in range(t - exclusion, t + exclusion + 1):
                    there = trace[s, other]
                    if there < value or (there == value and (s < t or (s == t and other < c))):
                        lowest = False
                        break
                if not lowest:
                    break
            if lowest and found < rows.shape[0]:
                rows[found] = t
                channels[found] = c
                found += 1
    return found


@inner
def subtract(trace: Floats, d: Dictionary, limits: Limits, unit: Index, row: Index, amplitude: float) -> None:
    """Subtract `amplitude` times the waveform of `unit` with its spike at `row`; negative amplitudes add it back."""
    first, last = d.support_first[unit], d.support_first[unit + 1]
    width = last - first
    scale = np.float32(amplitude)
    for s in range(limits.wave_samples):
        t = row - limits.wave_before + s
        if t < 0 or t >= trace.shape[0]:
            continue
        at = d.wave_first[unit] + s * width
        for k in range(width):
            trace[t, d.support[first + k]] -= scale * d.wave[at + k]


@inner
def assign(trace: Floats, d: Dictionary, limits: Limits, row: Index, channel: Index) -> Assigned:
    """Return which unit explains the trough at `row` on `channel` best, by the likelihood of what is left.

    The gain of a unit is how much of the squared whitened features it explains; what remains must be like noise: as
    much as there are features, four standard deviations of that, and `misfit` of what is explained.
    """
    samples, components = d.projector.shape
    size = d.neighbours.shape[1]
    count = 0
    while count < size and d.neighbours[channel, count] >= 0:
        count += 1
    shift = limits.shift
    snippet = np.zeros((samples + 2 * shift, size), dtype=np.float32)
    for s in range(samples + 2 * shift):
        t = row - limits.before - shift + s
        if 0 <= t < trace.shape[0]:
            for m in range(count):
                snippet[s, m] = trace[t, d.neighbours[channel, m]]
    projected = np.zeros((components, size), dtype=np.float32)
    whitened = np.zeros(components * size, dtype=np.float32)
    best_unit, best_row, best_amplitude, best_gain, best_fits = np.int64(NO_UNIT), np.int64(row), 0.0, 0.0, False
    first, last = d.first[channel], d.first[channel + 1]
    for trial in range(2 * shift + 1):
        # 0, 1, -1, 2, -2, ...: what explains next to nothing where it stands is noise, and is not moved about
        if trial == 1 and best_gain < HOPELESS * limits.gain:
            break
        step = (trial + 1) // 2 if trial % 2 else -(trial // 2)
        projected[:] = 0
        for s in range(samples):
            for k in range(components):
                weight = d.projector[s, k]
                for m in range(size):
                    projected[k, m] += weight * snippet[s + step + shift, m]
        whitened[:] = 0
        power = np.float32(0)
        for k in range(components):
            for m in range(count):
                value = projected[k, m]
                for n in range(size):
                    whitened[k * size + n] += value * d.whitener[channel, m, n]
        for k in range(components * size):
            power += whitened[k] * whitened[k]
        for j in range(first, last):
            product = np.float32(0)
            for k in range(components * size):
                product += d.features[j, k] * whitened[k]
            amplitude = product / d.norm[j]
            amplitude = min(max(amplitude, limits.least_amplitude), limits.most_amplitude)
            explained = amplitude * amplitude * d.norm[j]
            gain = 2 * amplitude * product - explained
            if gain > best_gain:
                freedom = components * count
                left = power - gain
                best_fits = left < freedom + 4 * np.sqrt(2.0 * freedom) + limits.misfit * explained
                best_unit, best_row = np.int64(d.unit[j]), np.int64(row + step - d.lag[j])
                best_amplitude, best_gain = float(amplitude), float(gain)
    return Assigned(best_unit, best_row, best_amplitude, best_gain, best_fits)


class Spikes(NamedTuple):
    """Where `peel` writes what it found, at most as many as there is room: unit, spike row, trough row, amplitude."""

    unit: Ints
    row: Ints
    trough: Ints
    channel: Ints
    amplitude: Floats


@inner
def acceptable(found: Assigned, limits: Limits, spikes: Spikes, count: int, last: Ints) -> bool:
    """Whether a unit was found that gains enough, and did not fire within its refractory period before or after."""
    if found.unit == NO_UNIT or found.gain < limits.gain:
        return False
    if abs(found.row - last[found.unit]) < limits.refractory:
        return False
    for i in range(count):
        if spikes.unit[i] == found.unit and abs(spikes.row[i] - found.row) < limits.refractory:
            return False
    return True


@inner
def deepest(trace: Floats, d: Dictionary, limits: Limits, row: Index, channel: Index) -> tuple[Index, Index]:
    """Return row and channel of the deepest point near a trough, within the window of a template."""
    best_row, best_channel, best = np.int64(row), np.int64(channel), np.float32(0)
    begin, end = max(1, row - limits.before), min(trace.shape[0] - 1, row + limits.before + 1)
    for m in range(d.neighbours.shape[1]):
        other = d.neighbours[channel, m]
        if other < 0:
            break
        for t in range(begin, end):
            if trace[t, other] < best:
                best_row, best_channel, best = np.int64(t), np.int64(other), trace[t, other]
    return best_row, best_channel


@inner
def assign_pair(
    trace: Floats,
    d: Dictionary,
    limits: Limits,
    one: Assigned,
    row: Index,
    channel: Index,
    spikes: Spikes,
    count: int,
    last: Ints,
) -> int:
    """Try a trough as two spikes that overlap: take `one` away, search again, and keep both only if both then fit.

    Returns how many spikes were added to `spikes`: 2 or 0; the trace is left without them, or as it was.
    """
    subtract(trace, d, limits, one.unit, one.row, one.amplitude)
    other_row, other_channel = deepest(trace, d, limits, row, channel)
    if trace[other_row, other_channel] < -limits.threshold:
        other = assign(trace, d, limits, other_row, other_channel)
        if other.fits and acceptable(other, limits, spikes, count, last) and other.unit != one.unit:
            subtract(trace, d, limits, other.unit, other.row, other.amplitude)
            subtract(trace, d, limits, one.unit, one.row, -one.amplitude)
            again = assign(trace, d, limits, row, channel)
            if again.fits and acceptable(again, limits, spikes, count, last) and again.unit != other.unit:
                subtract(trace, d, limits, again.unit, again.row, again.amplitude)
                keep(spikes, count, again, row, channel)
                keep(spikes, count + 1, other, other_row, other_channel)
                return 2
            subtract(trace, d, limits, other.unit, other.row, -other.amplitude)
            return 0
    subtract(trace, d, limits, one.unit, one.row, -one.amplitude)
    return 0


@inner
def keep(spikes: Spikes, at: int, found: Assigned, row: Index, channel: Index) -> None:
    """Write one spike."""
    spikes.unit[at] = found.unit
    spikes.row[at] = found.row
    spikes.trough[at] = row
    spikes.channel[at] = channel
    spikes.amplitude[at] = found.amplitude


@inner
def sort_by_depth(trace: Floats, rows: Ints, channels: Ints, count: int) -> None:
    """Sort troughs deepest first; equally deep ones keep their order."""
    for i in range(1, count):
        row, channel = rows[i], channels[i]
        j = i
        while j > 0 and trace[rows[j - 1], channels[j - 1]] > trace[row, channel]:
            rows[j], channels[j] = rows[j - 1], channels[j - 1]
            j -= 1
        rows[j], channels[j] = row, channel


@inner
def changed(d: Dictionary, limits: Limits, spikes: Spikes, since: int, count: int, row: Index, channel: Index) -> bool:
    """Whether one of the spikes from `since` on was taken away where a trough is: else it is as it was judged."""
    for i in range(since, count):
        if abs(spikes.trough[i] - row) < limits.wave_samples:
            for m in range(d.neighbours.shape[1]):
                if d.neighbours[channel, m] == spikes.channel[i]:
                    return True
    return False


@compiled
def peel(trace: Floats, d: Dictionary, limits: Limits, begin: int, end: int, last: Ints, spikes: Spikes) -> int:
    """Assign the troughs of rows [begin, end), deepest first, and take each spike away before the next is judged.

    What was hidden under a spike is searched for in further passes; what fits no unit alone is tried as an overlap of
    two in the last one. `last` (U,) is the row of every unit's last spike before. Returns how many spikes were found.
    """
    room = spikes.unit.shape[0]
    rows, channels = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
    count = sweep = since = 0
    unfit = np.empty((room, 2), dtype=np.int32)
    unfits = 0
    while sweep <= limits.passes:
        pairs = sweep == limits.passes
        troughs = find_troughs(trace, d.near, begin, end, limits.threshold, limits.exclusion, rows, channels)
        sort_by_depth(trace, rows, channels, troughs)
        before = count
        for i in range(troughs):
            row, channel = np.int64(rows[i]), np.int64(channels[i])
            if count + 2 > room:
                return count
            # a spike that was taken away since may have been all that there was
            if trace[row, channel] >= -limits.threshold:
                continue
            if sweep and not changed(d, limits, spikes, since, count, row, channel):
                again = False
                for k in range(unfits if pairs else 0):
                    again |= unfit[k, 0] == row and unfit[k, 1] == channel
                if not again:
                    continue
            found = assign(trace, d, limits, row, channel)
            if not acceptable(found, limits, spikes, count, last):
                continue
            if found.fits:
                subtract(trace, d, limits, found.unit, found.row, found.amplitude)
                keep(spikes, count, found, row, channel)
                count += 1
            elif pairs:
                count += assign_pair(trace, d, limits, found, row, channel, spikes, count, last)
            elif unfits < room:
                unfit[unfits, 0], unfit[unfits, 1] = row, channel
                unfits += 1
        # a pass that found nothing leaves nothing for another: overlaps come next
        sweep = limits.passes if count == before and not pairs else sweep + 1
        since = before
    return count


@compiled
def restore(trace: Floats, d: Dictionary, limits: Limits, spikes: Spikes, count: int, end: int) -> int:
    """Put back the spikes whose troughs lie at `end` or later, and move the others to the front; returns how many."""
    kept = 0
    for i in range(count):
        if spikes.trough[i] >= end:
            subtract(trace, d, limits, spikes.unit[i], spikes.row[i], -spikes.amplitude[i])
            continue
        for column in (spikes.unit, spikes.row, spikes.trough, spikes.channel):
            column[kept] = column[i]
        spikes.amplitude[kept] = spikes.amplitude[i]
        kept += 1
    return kept
