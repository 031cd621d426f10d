"""`nuclr-train matching`: how well spikes are matched online, on recordings whose truth SpikeInterface knows.

A command and not a study, because it takes the matcher and the Labeler as they run live. Units get their templates from
the first part of a recording, sorted perfectly, and are matched in the second. Accuracy of a unit is true positives
over true positives, misses and false positives; a spike counts when it is within 0.4 ms of a true one of its unit.
"""

from __future__ import annotations

import json
import time
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

RATE = 30_000
WITHIN = 12  # samples
CHUNK = 300  # samples that arrive at once
PAD = 450  # samples around a waveform when it is filtered
SEED = 11
LARGE = 5.0  # standard deviations: units with at least this trough are what a sorter gives
PAGE_MARK = "<!-- tables: nuclr-train matching -->"
NP1_NOISE_UV = 8.0

Result = dict[str, Any]
Trains = list[npt.NDArray[np.int64]]
VARIANTS: dict[str, Result] = {
    "32 channels": {"channels": 32, "units": 24, "noise": 8.0, "sorted_s": 10.0, "matched_s": 10.0, "peers": ()},
    "32 channels, noise x 1.5": {
        "channels": 32,
        "units": 24,
        "noise": 12.0,
        "sorted_s": 10.0,
        "matched_s": 10.0,
        "peers": (),
    },
    "32 channels, with peer": {
        **{"channels": 32, "units": 24, "noise": 8.0, "sorted_s": 10.0, "matched_s": 5.0},
        "peers": ("tdc-peeler",),
    },
    "384 channels": {"channels": 384, "units": 250, "noise": 8.0, "sorted_s": 10.0, "matched_s": 6.0, "peers": ()},
}


def matching(
    out: Annotated[Path, typer.Option(help="Folder of the result files.")] = Path("results/matching"),
    page: Annotated[Path, typer.Option(help="Page whose tables are written.")] = Path("docs/matching.md"),
    only: Annotated[str, typer.Option(help="Only this variant, or `labels`; empty for all, `page` for the page.")] = "",
    label_s: Annotated[float, typer.Option(help="Length of the recording whose predictions are compared.")] = 60.0,
) -> None:
    """Measure the online template matcher on ground truth of SpikeInterface; write results and their page."""
    out.mkdir(parents=True, exist_ok=True)
    for name, variant in VARIANTS.items():
        if only in ("", name):
            _write(out / f"{name.replace(' ', '_').replace(',', '')}.json", ground_truth(name, variant))
    if only in ("", "labels"):
        _write(out / "labels.json", labels(label_s))
    write_page(out, page)


def ground_truth(name: str, variant: Result) -> Result:
    """Match a generated recording, and have SpikeInterface's own methods do the same with the same templates."""
    import spikeinterface.full as si

    si.set_global_job_kwargs(n_jobs=1, progress_bar=False)
    recording, sorting = si.generate_ground_truth_recording(
        durations=[variant["sorted_s"] + variant["matched_s"]],
        sampling_frequency=float(RATE),
        num_channels=variant["channels"],
        num_units=variant["units"],
        generate_sorting_kwargs={"firing_rates": (1.0, 12.0), "refractory_period_ms": 4.0},
        noise_kwargs={"noise_levels": variant["noise"], "strategy": "on_the_fly"},
        generate_unit_locations_kwargs={
            "margin_um": 10.0,
            "minimum_z": 5.0,
            "maximum_z": 40.0,
            "minimum_distance": 12,
            "distance_strict": False,
        },
        seed=SEED,
    )
    filtered = si.common_reference(si.highpass_filter(recording, freq_min=300.0))
    start = int(variant["sorted_s"] * RATE)
    analyzer = si.create_sorting_analyzer(
        sorting.frame_slice(0, start), filtered.frame_slice(0, start), sparse=False, format="memory"
    )
    analyzer.compute(["random_spikes", "noise_levels"])
    analyzer.compute("templates", ms_before=1.0, ms_after=2.0)
    extension = analyzer.get_extension("templates")
    templates = _templates(extension.get_data("average"), extension.nbefore, recording.get_channel_locations(), order=5)
    raw = recording.get_traces(start_frame=start)
    found, figures = _match(raw, templates, len(sorting.unit_ids))
    true = [sorting.get_unit_spike_train(unit, start_frame=start) - start for unit in sorting.unit_ids]
    depth = figures.pop("depth")
    methods = {"nuclr-stream": _scores(true, found, depth)}
    for peer in variant["peers"]:
        methods[peer] = _peer(peer, filtered.frame_slice(start, start + len(raw)), extension, analyzer, true, depth)
    rate = sum(map(len, true)) / variant["matched_s"]
    facts = {key: value for key, value in variant.items() if key != "peers"}
    return {"variant": name, **facts, "spikes_per_s": round(rate), "seed": SEED, **figures, "methods": methods}


def _match(raw: npt.NDArray[Any], templates: Any, units: int) -> tuple[Trains, Result]:
    """Push raw samples as they would arrive; return the trains by unit, and what it cost."""
    from nuclr_stream.matching.matcher import Matcher

    Matcher(templates).push(raw[: 3 * RATE], first_sample=0)  # compiled before it is timed
    matcher, out = Matcher(templates), []
    walls, begun = [], time.process_time()
    for at in range(0, len(raw), CHUNK):
        before = time.process_time()
        out += matcher.push(raw[at : at + CHUNK], first_sample=at)
        walls.append(1000 * (time.process_time() - before))
    cpu = time.process_time() - begun
    assert matcher.noise is not None
    live = walls[int(matcher.settings.calibration_s * RATE / CHUNK) + 10 :]
    samples, rows = (np.concatenate([getattr(one, name) for one in out]) for name in ("samples", "units"))
    return [samples[rows == unit] for unit in range(units)], {
        "cpu_s_per_s": round(cpu / (len(raw) / RATE), 3),
        "cpu_ms_per_10_ms": {f"p{q}": round(float(np.percentile(live, q)), 2) for q in (50, 95, 99)},
        "algorithmic_latency_ms": round(matcher.latency_ms, 1),
        "unassigned": matcher.counters["unassigned"],
        "depth": -(templates.waveforms / matcher.noise.sd).min(axis=(1, 2)),
    }


def _peer(method: str, recording: Any, extension: Any, analyzer: Any, true: Trains, depth: Any) -> Result:
    """Run a method of SpikeInterface offline on the same filtered samples with the same templates."""
    from spikeinterface.sortingcomponents.matching import find_spikes_from_templates

    begun = time.process_time()
    spikes = find_spikes_from_templates(
        recording,
        extension.get_data(outputs="Templates"),
        method=method,
        method_kwargs={"noise_levels": analyzer.get_extension("noise_levels").get_data()},
    )
    cpu = time.process_time() - begun
    found = [spikes["sample_index"][spikes["cluster_index"] == unit] for unit in range(len(true))]
    return _scores(true, found, depth) | {"cpu_s_per_s": round(cpu / recording.get_duration(), 3)}


def _templates(waveforms: Any, trough: int, locations: Any, *, order: int) -> Any:
    from nuclr_stream.matching.templates import Filtering, Templates

    channels = len(locations)
    return Templates(
        source="ground truth",
        unit_ids=tuple(str(unit) for unit in range(len(waveforms))),
        waveforms=np.asarray(waveforms, dtype=np.float32),
        trough=trough,
        sample_rate=Fraction(RATE),
        positions_um=np.asarray(locations, dtype=np.float32),
        shanks=np.zeros(channels, dtype=np.int32),
        channels=np.arange(channels, dtype=np.int32),
        unit_of_samples="uV",
        filtering=Filtering(order=order),
    )


def _scores(true: Trains, found: Trains, depth: npt.NDArray[np.float32]) -> Result:
    """Accuracy, recall and precision per unit: their means over units that a sorter would give, and over all."""
    rows = []
    for train, matched in zip(true, found, strict=True):
        hits = _hits(train, matched)
        either = len(train) + len(matched) - hits
        rows.append([hits / max(count, 1) for count in (either, len(train), len(matched))])
    scores, large = np.array(rows), depth >= LARGE
    names = ("accuracy", "recall", "precision")
    return {
        "units": len(true),
        "units_large": int(large.sum()),
        "large": dict(zip(names, scores[large].mean(axis=0).round(4).tolist(), strict=True)),
        "all": dict(zip(names, scores.mean(axis=0).round(4).tolist(), strict=True)),
        "large_above_90": int((scores[large, 0] > 0.9).sum()),
        "accuracy_by_unit": scores[:, 0].round(3).tolist(),
        "trough_by_unit": depth.round(1).tolist(),
    }


def _hits(train: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> int:
    """Spikes of both, each used once."""
    i = j = hits = 0
    while i < len(train) and j < len(found):
        apart = int(found[j]) - int(train[i])
        hits += abs(apart) <= WITHIN
        i, j = i + (apart >= -WITHIN), j + (apart <= WITHIN)
    return hits


def labels(seconds: float) -> Result:
    """Compare the demo bundle's predictions from matched spikes with those from the true trains of its recording."""
    from scipy.signal import butter, sosfiltfilt
    from spikeinterface.core.generate import generate_templates

    from nuclr_stream.bundle.manifest import find_bundle, load_bundle
    from nuclr_stream.commands.demo import RECORDING
    from nuclr_stream.inference.model import Model
    from nuclr_stream.matching.matcher import Matcher
    from nuclr_stream.recordings.recording import Recording

    recording = Recording.load(RECORDING)
    rng = np.random.default_rng(SEED)
    sites = np.arange(384)
    locations = np.stack([32.0 * (sites % 2) + 16.0 * ((sites // 2) % 2), 20.0 * (sites // 2)], axis=1)
    units = len(recording.unit_ids)
    depth = np.clip(recording.units["depth_um"].astype(float), 0, locations[:, 1].max())
    places = np.stack([rng.uniform(-5, 55, units), depth, rng.uniform(8, 35, units)], axis=1)
    waves = generate_templates(
        locations, places, float(RATE), 1.0, 3.0, seed=SEED, unit_params={"alpha": (150.0, 500.0)}
    )
    padded = np.pad(waves, ((0, 0), (PAD, PAD), (0, 0)))
    sections = butter(3, 300, "highpass", fs=RATE, output="sos")
    filtered = np.stack([sosfiltfilt(sections, wave, axis=0)[PAD:-PAD] for wave in padded])
    filtered -= np.median(filtered, axis=2, keepdims=True)
    filtered = filtered[:, : 3 * RATE // 1000]  # as much of it as a sorting keeps
    trough, total = 30, int(seconds * RATE)
    samples, rows = recording.spikes(0, total)
    matcher = Matcher(_templates(filtered, trough, locations, order=3))
    out, cpu, carry = [], 0.0, np.zeros((0, 384), dtype=np.float32)
    for start in range(0, total, RATE):
        block = np.zeros((RATE + waves.shape[1], 384), dtype=np.float32)
        block[: len(carry)] += carry
        first, last = np.searchsorted(samples, [start + trough, start + RATE + trough])
        for at, unit in zip(samples[first:last].tolist(), rows[first:last].tolist(), strict=True):
            block[at - trough - start : at - trough - start + waves.shape[1]] += waves[unit]
        carry = block[RATE:].copy()
        raw = block[:RATE] + NP1_NOISE_UV * rng.standard_normal((RATE, 384), dtype=np.float32)
        begun = time.process_time()
        for at in range(0, RATE, CHUNK):
            out += matcher.push(raw[at : at + CHUNK], first_sample=start + at)
        cpu += time.process_time() - begun
    matched = [np.concatenate([getattr(one, name) for one in out]) for name in ("samples", "units")]
    end = out[-1].stop
    true = [samples[(rows == unit) & (samples < end)] for unit in range(units)]
    assert matcher.noise is not None
    trough_sd = -(filtered / matcher.noise.sd).min(axis=(1, 2))
    model = Model(load_bundle(find_bundle("demo")), provider="cpu", threads=1)
    predictions = [
        _predict(model, recording, *trains, end=end) for trains in ((samples, rows), (matched[0], matched[1]))
    ]
    return {
        "recording": recording.recording_id,
        "seconds": seconds,
        "units": units,
        "spikes_per_s": round(len(samples) / seconds),
        "cpu_s_per_s": round(cpu / seconds, 3),
        "seed": SEED,
        "matching": _scores(true, [matched[0][matched[1] == unit] for unit in range(units)], trough_sd),
        "tasks": {
            task: _agreement(recording, task, *(found[task] for found in predictions)) for task in predictions[0]
        },
    }


def _predict(model: Any, recording: Any, samples: Any, rows: Any, *, end: int) -> dict[str, Any]:
    """Return by task the classes and probabilities (U, C) of the last window, from these spikes."""
    from dataclasses import replace

    from nuclr_stream.stream.labeler import Labeler
    from nuclr_stream.stream.playback import recording_messages

    keep = samples < end
    played = replace(
        recording,
        num_samples=end,
        spike_samples=np.asarray(samples[keep], dtype=np.int64),
        spike_units=np.asarray(rows[keep], dtype=np.int32),
        gap_samples=np.empty((0, 2), dtype=np.int64),
    )
    labeler, last = Labeler(model, stream="probe"), None
    for message in recording_messages(played, stream="probe", block_samples=RATE):
        labeler.push(message)
        while (labelled := labeler.step()) is not None:
            last = labelled.predictions
    assert last is not None
    return {task.name: (task.classes, task.probabilities, task.abstained) for task in last.tasks}


def _agreement(recording: Any, task: str, of_true: Any, of_matched: Any) -> Result:
    classes, probabilities, abstained = of_true
    _, matched, abstained_matched = of_matched
    top, other = probabilities.argmax(axis=1), matched.argmax(axis=1)
    truth = recording.units[task].astype(str)
    called = ~abstained & ~abstained_matched
    return {
        "same_top_class": round(float((top == other).mean()), 4),
        "same_where_both_call": round(float((top == other)[called].mean()), 4) if called.any() else None,
        "both_call": int(called.sum()),
        "right_from_true_spikes": round(float((np.array(classes)[top] == truth).mean()), 4),
        "right_from_matched_spikes": round(float((np.array(classes)[other] == truth).mean()), 4),
        "mean_probability_change": round(float(np.abs(probabilities - matched).max(axis=1).mean()), 4),
    }


def write_page(out: Path, page: Path) -> None:
    """Write the tables of all result files under the mark of the page."""
    columns = ("recording", "method", "units", "accuracy", "recall", "precision", "above 0.9", "accuracy, all units")
    lines = [PAGE_MARK, "", f"| {' | '.join(columns)} | CPU s per s | CPU ms per 10 ms, p99 | latency ms |"]
    lines.append("|" + " --- |" * (len(columns) + 3))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    for result in (one for one in results if "variant" in one):
        for method, scores in result["methods"].items():
            large, cpu = scores["large"], scores.get("cpu_s_per_s", result["cpu_s_per_s"])
            lines.append(
                f"| {result['variant']}, {result['spikes_per_s']} spikes/s | {method} | {scores['units_large']} | "
                f"{large['accuracy']:.3f} | {large['recall']:.3f} | {large['precision']:.3f} | "
                f"{scores['large_above_90']} | {scores['all']['accuracy']:.3f} ({scores['units']}) | {cpu:.2f} | "
                + ("- | - |" if method != "nuclr-stream" else _timing(result))
            )
    for result in (one for one in results if "tasks" in one):
        lines += ["", f"Labels of the demo bundle, {result['units']} units, {result['seconds']:g} s, 384 channels, "]
        lines[-1] += f"{result['spikes_per_s']} spikes/s, {result['cpu_s_per_s']:.2f} CPU s per s:"
        lines += ["", "| task | same top class | same where both call | right, true spikes | right, matched spikes |"]
        lines.append("|" + " --- |" * 5)
        for task, row in result["tasks"].items():
            same = "-" if row["same_where_both_call"] is None else f"{row['same_where_both_call']:.3f}"
            lines.append(
                f"| {task.replace('_', ' ')} | {row['same_top_class']:.3f} | {same} ({row['both_call']} units) | "
                f"{row['right_from_true_spikes']:.3f} | {row['right_from_matched_spikes']:.3f} |"
            )
    text = page.read_text(encoding="utf-8") if page.is_file() else "# Matching\n\n" + PAGE_MARK
    page.write_text(text.split(PAGE_MARK)[0] + "\n".join(lines) + "\n", encoding="utf-8")


def _timing(result: Result) -> str:
    return f"{result['cpu_ms_per_10_ms']['p99']:.1f} | {result['algorithmic_latency_ms']:.1f} |"


def _write(path: Path, result: Result) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
