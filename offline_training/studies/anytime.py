"""How good labels are as time goes on, and how much company they need: scores against seconds observed and population.

Animals are held out one after the other, with the encoder, readouts and calibration of their fold (`evaluate_experts`),
or are simulated afresh for a ready run. Every point is scored on the same units: those of recordings that are as long
as the longest time. Labels are read after every window, windows follow one another without overlap.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import Int64Array, WindowSpec
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.data.labels import class_subjects, task_labels, transferable_classes
from offline_training.data.splits import Fold, Split
from offline_training.evaluation.evaluate import (
    EvaluationError,
    encoder_facts,
    library_versions,
    setting_of,
    write_result,
)
from offline_training.evaluation.predictions import places
from offline_training.evaluation.predictors import fit_fold, gather
from offline_training.evaluation.simulated import SIMULATORS, require_fresh
from offline_training.pretraining.runs import load_run
from offline_training.readouts.embed import Encode, embed_recording, through_torch
from offline_training.readouts.feature_source import FeatureSource
from offline_training.readouts.readout import ReadoutError, load_readouts
from offline_training.studies.anytime_population import NOT_ASKED, SEED, Part, heard_in_parts, with_many_units
from offline_training.studies.anytime_scores import (
    Moment,
    Told,
    per_animal,
    reliability,
    risk_coverage,
    scores,
    settling,
)
from offline_training.studies.anytime_voices import WAYS, Heard, Voice, tell, voices_of

Result = dict[str, Any]
Voices = Mapping[str, Mapping[str, Voice]]
"""Who speaks, by task and row."""

ALL = "all"
"""The size of a population that was left whole."""


@dataclass(frozen=True)
class Points:
    """Where curves are measured: seconds observed; units of a population; after how long populations of a size are
    scored, and on how many recordings; and after how long diagrams are drawn."""

    seconds: tuple[float, ...] = (10, 20, 30, 60, 120, 300, 600)
    sizes: tuple[int, ...] = (5, 10, 20, 50, 100)
    sized_at: tuple[float, ...] = (60, 600)
    sized_recordings: int = 4
    drawn_at: tuple[float, ...] = (60, 600)

    def long_enough(self, recordings: Iterable[AnyRecording]) -> list[AnyRecording]:
        """The recordings that last until the last point."""
        return [recording for recording in recordings if recording.duration_s >= self.seconds[-1]]

    def sized(self, recordings: Sequence[AnyRecording]) -> list[str]:
        """Which of the recordings are scored in smaller populations too."""
        return with_many_units(recordings, units=max(self.sizes), most=self.sized_recordings)


@dataclass
class Curves:
    """Everything that was said, by task, row and way, and of populations of a size by that size too; and what the rows
    were calibrated on."""

    config: TrainConfig
    points: Points
    sized: Sequence[str]
    stated: defaultdict[tuple[str, ...], list[Told]] = field(default_factory=lambda: defaultdict(list))
    calibrated_on: defaultdict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def spec(self) -> WindowSpec:
        """One window after the other."""
        return self.config.window.spec.with_hop_s(self.config.window.spec.window_s)

    def add(self, recording: AnyRecording, source: FeatureSource, *, voices: Voices, encode: Encode) -> None:
        """Add what the voices say of a recording, and of its parts where it is one of `sized`."""
        everyone = np.arange(len(recording.unit_ids))
        steps = int(np.searchsorted(source.end_s, self.points.seconds[-1] + 1e-9, side="right"))
        where = places(recording, np.ones(len(everyone), dtype=bool))
        whole = (Heard.of(source, where, range(1, steps + 1)), everyone)
        self._tell(recording, [whole], voices)
        if recording.recording_id in self.sized:
            self._tell(recording, [whole], voices, ALL)
            for size in self.points.sizes:
                rules, seconds = self.config.rules.rules, self.points.sized_at
                parts = heard_in_parts(recording, encode, self.spec, rules=rules, size=size, seconds=seconds)
                self._tell(recording, parts, voices, str(size))

    def _tell(self, recording: AnyRecording, parts: Iterable[Part], voices: Voices, *size: str) -> None:
        labels = {task: self.config.tasks[task].labels(recording) for task in voices}
        for heard, asked in parts:
            for task, rows in voices.items():
                label = np.where(asked == NOT_ASKED, UNLABELLED, labels[task][asked])
                for name, voice in rows.items():
                    self.calibrated_on[task, name].add(voice.calibrated_on)
                    for way, stated in tell(heard, voice, label).items():
                        self.stated[task, name, way, *size].append(stated)


def anytime_folds(
    config: TrainConfig,
    recordings: Sequence[AnyRecording],
    split: Split,
    *,
    runs_dir: Path,
    pairs_dir: Path | None,
    seed: int,
    selected: bool = False,
    out: Path,
    points: Points = Points(),
) -> Result:
    """Curves of the held-out animals of every fold, each with its encoder in `runs_dir`; written to `out`.

    How predictors speak together rests on the encoders in `pairs_dir` that are finished, see `evaluate_experts`; the rows
    say on whom. `selected` says that their design was chosen by scores on these folds. Raises EvaluationError when an
    encoder is missing, saw a tested animal, or no recording is long enough.
    """
    config = config.with_training(seed=seed)
    tested = _some([r for fold in split.folds for r in points.long_enough(fold.test(recordings))], points)
    curves = Curves(config, points, points.sized(tested))
    pairs = finished(pairs_dir, seed) if pairs_dir else []
    runs = {fold: runs_dir / f"fold_{fold.name}_seed{seed}" for fold in split.folds}
    if missing := [run.name for run in runs.values() if run not in finished(runs_dir, seed)]:
        raise EvaluationError(f"{runs_dir}: no finished {', '.join(missing)}; train them with `nuclr-train evaluate`")
    infos = [_add_fold(curves, recordings, fold, run_dir=run, pairs=pairs) for fold, run in runs.items()]
    labels = {task: task_labels(task, settings, recordings) for task, settings in config.tasks.items()}
    subjects = {
        t: class_subjects(labels[t], [r.subject_id for r in recordings], s.names) for t, s in config.tasks.items()
    }
    facts = {
        "setting": " and ".join(sorted({setting_of(info["subjects"], f) for f, info in zip(runs, infos, strict=True)})),
        "split": split.name,
        "seed": seed,
        "selected_on_these_folds": selected,
        "encoders": [encoder_facts(info) for info in infos],
    }
    testable = {task: transferable_classes(found) for task, found in subjects.items()}
    return _write(out, curves, tested, facts=facts, testable=testable)


def anytime_fresh(
    run_dir: Path, *, seeds: Iterable[int], units: int = 120, out: Path, points: Points = Points()
) -> Result:
    """Curves of animals simulated from `seeds`, for a run whose readouts have predictors; written to `out`.

    Raises EvaluationError when one of them was trained on, ReadoutError when the run has no predictors.
    """
    encoder, config, info = load_run(run_dir)
    readouts = load_readouts(run_dir)
    if without := [task for task, readout in readouts.items() if readout.predictors is None]:
        raise ReadoutError(f"{run_dir}: {', '.join(without)} has no predictors; fit them with `nuclr-train readout`")
    simulated = SIMULATORS[config.window.input_kind]
    fresh = [simulated(seed, units=units, duration_s=points.seconds[-1]) for seed in seeds]
    require_fresh(fresh, info["subjects"])
    curves = Curves(config, points, points.sized(fresh))
    encode = through_torch(encoder)
    for recording in fresh:
        source = FeatureSource.of(embed_recording(encode, recording, curves.spec, config.rules.rules))
        voices = {
            task: voices_of({"embedding": readout}, readout.predictors, source.sets)
            for task, readout in readouts.items()
            if readout.predictors is not None
        }
        curves.add(recording, source, voices=voices, encode=encode)
    facts = {"setting": "inductive zero-shot", "split": "fresh animals", "seed": config.training.seed}
    facts["selected_on_these_folds"] = False
    facts |= {"encoders": [encoder_facts(info)]}
    return _write(out, curves, fresh, facts=facts, testable={task: s.names for task, s in config.tasks.items()})


def finished(folder: Path, seed: int) -> list[Path]:
    """The runs fold_..._seed<seed> in a folder whose training is over."""
    found = sorted(folder.glob(f"fold_*_seed{seed}"))
    facts = {run: run / "run.json" for run in found}
    return [
        run for run, path in facts.items() if path.is_file() and json.loads(path.read_text("utf-8")).get("finished")
    ]


def _add_fold(
    curves: Curves, recordings: Sequence[AnyRecording], fold: Fold, *, run_dir: Path, pairs: Sequence[Path]
) -> Result:
    encoder, _, info = load_run(run_dir)
    gathered, apart = gather(fold, recordings, run_dir, pairs)
    tested = np.array([fold.tests_on(recording).any() for recording in recordings])
    voices = {}
    for task, settings in curves.config.tasks.items():
        labels = task_labels(task, settings, recordings)
        readouts, predictors = fit_fold(settings.names, labels, tested, gathered=gathered, apart=apart)
        voices[task] = voices_of(readouts, predictors, gathered[0].sets)
    for recording in curves.points.long_enough(fold.test(recordings)):
        source = next(each for each in gathered if each.recording_id == recording.recording_id)
        curves.add(recording, source, voices=voices, encode=through_torch(encoder))
    return info


def _write(
    out: Path, curves: Curves, tested: Sequence[AnyRecording], *, facts: Result, testable: Mapping[str, Sequence[str]]
) -> Result:
    config, points = curves.config, curves.points
    result = {
        "name": config.name,
        "kind": config.kind,
        **facts,
        "window_s": curves.spec.window_s,
        "hop_s": curves.spec.hop_s,
        "versions": library_versions(),
        "animals": sorted({recording.subject_id for recording in tested}),
        "recordings": [recording.recording_id for recording in tested],
        "seconds": list(points.seconds),
        "population": {
            "sizes": [*map(str, points.sizes), ALL],
            "recordings": list(curves.sized),
            "draws": 1,
            "seed": SEED,
            "min_population": config.rules.rules.min_population,
        },
        "tasks": {task: _task(curves, task, testable[task]) for task in config.tasks},
    }
    write_result(out, result)
    return result


def _task(curves: Curves, task: str, testable: Sequence[str]) -> Result:
    names = curves.config.tasks[task].names
    rows = [name for of, name in curves.calibrated_on if of == task]
    label = np.concatenate([stated.label for stated in curves.stated[task, rows[0], "single"]])
    scored = np.array([i for i, name in enumerate(names) if name in testable and (label == i).any()])
    return {
        "classes": list(names),
        "scored": [names[i] for i in scored],
        "units": {names[i]: int((label == i).sum()) for i in scored},
        "rows": {name: _row(curves, (task, name), scored) for name in rows},
    }


def _row(curves: Curves, row: tuple[str, str], scored: Int64Array) -> Result:
    words = sorted(curves.calibrated_on[row])
    ways = [way for way in WAYS if (*row, way) in curves.stated]
    return {
        "calibrated_on": words,
        **{way: _curve(curves, curves.stated[*row, way], scored, calibrated=all(words)) for way in ways},
        "population": {way: _sizes(curves, (*row, way), scored, calibrated=all(words)) for way in ways},
    }


def _curve(curves: Curves, stated: Sequence[Told], scored: Int64Array, *, calibrated: bool) -> Result:
    found: Result = {}
    for seconds in curves.points.seconds:
        moment = Moment.at(stated, seconds, scored)
        found[f"{seconds:g}"] = point = scores(moment, scored, calibrated=calibrated)
        point |= settling(stated, seconds, scored)
        if calibrated:
            point["per_animal"] = per_animal(moment)
        if calibrated and seconds in curves.points.drawn_at:
            point |= {"reliability": reliability(moment), "risk_coverage": risk_coverage(moment)}
    return found


def _sizes(curves: Curves, row: tuple[str, ...], scored: Int64Array, *, calibrated: bool) -> Result:
    """Scores by time and size; the classes that count are those of the recordings that were dealt into parts."""
    if (*row, ALL) not in curves.stated:
        return {}
    label = np.concatenate([stated.label for stated in curves.stated[*row, ALL]])
    there = scored[np.isin(scored, label)]
    return {
        f"{seconds:g}": {
            size: scores(Moment.at(curves.stated[*row, size], seconds, there), there, calibrated=calibrated)
            for size in [*map(str, curves.points.sizes), ALL]
        }
        for seconds in curves.points.sized_at
    }


def _some(recordings: list[AnyRecording], points: Points) -> list[AnyRecording]:
    if not recordings:
        raise EvaluationError(f"no tested recording lasts {points.seconds[-1]:g} s; the curve needs some that do")
    return recordings
