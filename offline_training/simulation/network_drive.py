"""What happens to an animal while it is recorded: arousal, running, stimuli, rhythms and events, as drive channels.

A channel is one time course in steps of ROW_MS that several cells share; which cell follows it, and how far, is drawn
in `network_cells`. Shapes: T steps of ROW_MS, C channels, F stimulus features.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from offline_training.simulation import network_biology as biology

Floats = npt.NDArray[np.float64]
Rng = np.random.Generator

ROW_MS = 2.0
FEATURES = 6
LOCAL_CHANNELS = 4
"""Knots along the depth of a region: a cell follows the two beside it."""


@dataclass(frozen=True)
class NetworkAnimal:
    """What all cells of an animal share: its regions from the surface down with their place on the probe, gains, how
    far each class follows each drive, and the frequencies of its rhythms."""

    regions: tuple[str, ...]
    bottom_um: dict[str, float]
    top_um: dict[str, float]
    gain: dict[str, float]
    class_drive: dict[str, dict[str, float]]
    theta_hz: float
    delta_hz: float
    spindle_hz: float
    beta_hz: float


@dataclass
class Channels:
    """Time courses by name; `add` numbers them in order."""

    number: dict[str, int] = field(default_factory=dict)
    courses: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def add(self, name: str, course: Floats) -> None:
        """Append a time course (T,)."""
        self.number[name] = len(self.courses)
        self.courses.append(np.asarray(course, np.float32))

    def stacked(self) -> npt.NDArray[np.float32]:
        """All of them (T, C)."""
        return np.ascontiguousarray(np.stack(self.courses, axis=1))


def log_normal(rng: Rng, sd: float) -> float:
    """A factor around 1 whose logarithm has this standard deviation."""
    return float(np.exp(rng.normal(0, sd)))


def network_rng(seed: int, index: int) -> Rng:
    """The numbers that the session of animal (seed, index) is drawn from: the animal first."""
    return np.random.default_rng(np.random.SeedSequence([seed, index, 7919]))


def draw_network_animal(rng: Rng) -> NetworkAnimal:
    """Draw two to all neighbouring regions of one track, and everything that varies between animals."""
    track = biology.TRACKS[0] if rng.random() < 0.55 else biology.TRACKS[1]
    length = int(rng.integers(2, len(track) + 1))
    first = 0 if rng.random() < 0.4 else int(rng.integers(0, len(track) - length + 1))
    regions = track[first : first + length]

    thickness = [rng.uniform(*biology.THICKNESS_UM[region]) for region in regions]
    if rng.random() < 0.6:  # the ends of the probe cut the outer regions
        thickness[0] *= rng.uniform(0.5, 1)
    if rng.random() < 0.6:
        thickness[-1] *= rng.uniform(0.5, 1)
    if sum(thickness) > 3780:  # the probe is no longer than that
        thickness = [each * 3780 / sum(thickness) for each in thickness]
    tip = rng.uniform(0, max(1.0, 3800 - sum(thickness)))
    edges = tip + np.cumsum([0, *thickness[::-1]])
    from_tip = regions[::-1]

    gain = {name: log_normal(rng, sd) for name, sd in biology.GAIN_LOG_SD.items()}
    scatter = {each: {name: log_normal(rng, 0.25) for name in biology.CLASS_DRIVE[each]} for each in biology.CLASSES}
    class_drive = {
        each: {name: value * scatter[each][name] for name, value in biology.CLASS_DRIVE[each].items()}
        for each in biology.CLASSES
    }
    return NetworkAnimal(
        regions=regions,
        bottom_um={region: float(edges[k]) for k, region in enumerate(from_tip)},
        top_um={region: float(edges[k + 1]) for k, region in enumerate(from_tip)},
        gain=gain,
        class_drive=class_drive,
        theta_hz=rng.uniform(6, 9),
        delta_hz=rng.uniform(1.2, 3.5),
        spindle_hz=rng.uniform(8.5, 13.5),
        beta_hz=rng.uniform(15, 22),
    )


def draw_channels(rng: Rng, animal: NetworkAnimal, steps: int) -> Channels:
    """The time courses of one session: states of the whole animal first, then those of every region."""
    running = smooth(telegraph(rng, steps, on_s=rng.uniform(4, 14), off_s=rng.uniform(10, 50)), 500)
    arousal = 1 / (1 + np.exp(-(1.3 * wander(rng, steps, rng.uniform(8e3, 4e4)) + rng.normal(0, 0.5))))
    arousal = np.clip(0.6 * arousal + 0.55 * smooth(running, 1500), 0, 1.2)
    low = np.clip(1.1 - arousal, 0.05, 1)
    stimuli = stimulus(rng, steps)

    channels = Channels()
    channels.add("zero", np.zeros(steps))  # where cells have fewer drives than others
    channels.add("arousal", (arousal - arousal.mean()) * 2)
    channels.add("running", running - running.mean())
    channels.add("top_down", wander(rng, steps, rng.uniform(200, 600)))
    theta = rhythm(rng, steps, animal.theta_hz, jitter=0.06, amplitude_ms=900)
    theta = theta * (0.35 + 0.9 * np.clip(arousal, 0, 1))
    shared = wander(rng, steps, 120)
    for region in animal.regions:
        fast_ms = biology.FAST_MS[region] * log_normal(rng, 0.2)
        channels.add(f"{region}.fast", 0.85 * wander(rng, steps, fast_ms) + 0.5 * shared)
        slow_ms = biology.SLOW_MS[region] * log_normal(rng, 0.25)
        channels.add(f"{region}.slow", wander(rng, steps, slow_ms) * (0.4 + 0.9 * low))
        cosine, sine = regional_rhythm(rng, animal, region, theta=theta, low=low)
        channels.add(f"{region}.cosine", cosine)
        channels.add(f"{region}.sine", sine)
        rate_hz, width_ms = biology.EVENTS[region]
        gate = 0.2 + 1.2 * low
        channels.add(f"{region}.event", bumps(rng, gate, rate_hz=rate_hz, width_ms=width_ms))
        for k in range(LOCAL_CHANNELS):
            channels.add(f"{region}.local{k}", wander(rng, steps, rng.uniform(25, 90)))
        if region in biology.STIMULATED:
            delay_ms = biology.STIMULUS_DELAY_MS[region]
            for f in range(FEATURES):
                channels.add(f"{region}.feature{f}", delayed(stimuli[:, f], delay_ms))
            channels.add(f"{region}.stimulus", delayed(stimuli.mean(1) * 1.6, delay_ms))
    return channels


def regional_rhythm(rng: Rng, animal: NetworkAnimal, region: str, *, theta: Floats, low: Floats) -> Floats:
    """Cosine and sine part (2, T) of a region's rhythm: theta, up and down states, spindles, or beta.

    `theta` (2, T) is the animal's; `low` (T,) is high while arousal is low.
    """
    steps = len(low)
    if region in biology.RHYTHMIC_BY_THETA:
        lag = 0 if region == "CA1" else np.deg2rad(rng.uniform(30, 80))
        cosine, sine = theta
        return np.stack([cosine * np.cos(lag) - sine * np.sin(lag), sine * np.cos(lag) + cosine * np.sin(lag)])
    if region == "VIS":  # squared off into up and down states
        return np.tanh(1.6 * rhythm(rng, steps, animal.delta_hz, jitter=0.3, amplitude_ms=1500)) * (1.5 * low**1.5)
    if region == "TH":  # waxing and waning spindles
        parts = rhythm(rng, steps, animal.spindle_hz, jitter=0.06, amplitude_ms=400)
        return parts * (np.clip(wander(rng, steps, 700) + 0.2, 0, 3) * (0.3 + 1.1 * low))
    parts = rhythm(rng, steps, animal.beta_hz, jitter=0.1, amplitude_ms=250)
    return parts * (np.clip(wander(rng, steps, 250), 0, 3) * 1.2)


def wander(rng: Rng, steps: int, tau_ms: float) -> Floats:
    """An Ornstein-Uhlenbeck course (T,) of unit variance, without its first 2000 steps: they are not stationary."""
    keep = np.exp(-ROW_MS / tau_ms)
    return np.asarray(lfilter([np.sqrt(1 - keep * keep)], [1, -keep], rng.standard_normal(steps + 2000))[2000:])


def smooth(course: Floats, tau_ms: float) -> Floats:
    """First-order low-pass along time."""
    keep = np.exp(-ROW_MS / tau_ms)
    return np.asarray(lfilter([1 - keep], [1, -keep], course))


def telegraph(rng: Rng, steps: int, *, on_s: float, off_s: float) -> Floats:
    """A state (T,) that is 1 for about `on_s` and then 0 for about `off_s`, with gamma durations."""
    course = np.zeros(steps)
    at, state = 0, rng.random() < on_s / (on_s + off_s)
    while at < steps:
        length = int(rng.gamma(2.0, (on_s if state else off_s) / 2.0) * 1000 / ROW_MS) + 1
        course[at : at + length] = state
        at += length
        state = not state
    return course


def rhythm(rng: Rng, steps: int, hz: float, *, jitter: float, amplitude_ms: float) -> Floats:
    """Cosine and sine part (2, T) of an oscillation with a wandering frequency and amplitude."""
    frequency = hz * (1 + jitter * wander(rng, steps, 800))
    turns = np.cumsum(np.clip(frequency, 0.2 * hz, 3 * hz))
    phase = 2 * np.pi * turns * ROW_MS / 1000 + rng.random() * 6.28
    amplitude = np.abs(1 + 0.6 * wander(rng, steps, amplitude_ms))
    return np.stack([amplitude * np.cos(phase) * 1.2, amplitude * np.sin(phase) * 1.2])


def bumps(rng: Rng, gate: Floats, *, rate_hz: float, width_ms: float) -> Floats:
    """Events (T,) of log-normal size at `rate_hz` times `gate` (T,), each an alpha function of this width."""
    course = np.zeros(len(gate))
    at = np.nonzero(rng.random(len(gate)) < rate_hz * ROW_MS / 1000 * gate)[0]
    course[at] = rng.lognormal(0, 0.4, at.size)
    time_ms = np.arange(int(4 * width_ms / ROW_MS)) * ROW_MS
    return np.convolve(course, (time_ms / width_ms) * np.exp(1 - time_ms / width_ms))[: len(gate)]


def delayed(course: Floats, delay_ms: float) -> Floats:
    """The course (T,) so much later, zero before."""
    shift = int(delay_ms / ROW_MS)
    return np.concatenate([np.zeros(shift), course[: len(course) - shift]])


def stimulus(rng: Rng, steps: int) -> Floats:
    """Drive (T, F) by features of what is shown: blocks of gratings, flashes, a movie, or nothing."""
    shown = np.zeros((steps, FEATURES))
    at = 0
    while at < steps:
        kind = rng.choice(["gratings", "flashes", "movie", "nothing"], p=[0.35, 0.15, 0.25, 0.25])
        end = min(steps, at + int(rng.uniform(30, 90) * 1000 / ROW_MS))
        if kind == "movie":
            for f in range(FEATURES):
                shown[at:end, f] = np.maximum(0, wander(rng, end - at, 150) * 0.7 + 0.1)
        elif kind != "nothing":
            _show(rng, shown, at, end, gratings=kind == "gratings")
        at = end
    for f in range(FEATURES):
        shown[:, f] = smooth(shown[:, f], 12)
    return shown


def _show(rng: Rng, shown: Floats, at: int, end: int, *, gratings: bool) -> None:
    """Fill [at, end) with gratings, which drive a feature and half as much its neighbours, or flashes, which drive all;
    each begins strongly and adapts."""
    on_s, off_s = (rng.uniform(0.5, 2), rng.uniform(0.4, 1)) if gratings else (0.25, rng.uniform(1, 2))
    while at < end:
        stop = min(end, at + int(on_s * 1000 / ROW_MS))
        contrast = rng.uniform(0.3, 1)
        profile = contrast * (0.6 + 0.9 * np.exp(-np.arange(stop - at) * ROW_MS / 70))
        if gratings:
            f = rng.integers(FEATURES)
            shown[at:stop, f] += profile
            shown[at:stop, (f + 1) % FEATURES] += 0.4 * profile
            shown[at:stop, f - 1] += 0.4 * profile
        else:
            shown[at:stop] += 0.55 * profile[:, None]
        at = stop + int(off_s * 1000 / ROW_MS)
