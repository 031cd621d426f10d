"""One published experiment from archive to table. A folder keeps what is done, so that an interrupted one goes on.

OUT/recordings holds the prepared recordings, OUT/runs the encoders (trained on all animals, and without those held
out), OUT/reproduction.json the scores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.recordings.readers import AnyRecording
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.evaluation.encoders import pretrain_once
from offline_training.evaluation.nested import library_versions
from offline_training.pretraining.runs import Run
from offline_training.readouts.embed import embed_recording, through_torch
from offline_training.studies.reproduce.archive import Archive, ArchiveError
from offline_training.studies.reproduce.protocol import LabelledUnits, score
from offline_training.studies.reproduce.published import INDUCTIVE, METHODS, PUBLISHED

Result = dict[str, Any]


def reproduce(
    archive: Archive, folder: Path, out: Path, *, config: TrainConfig, held_out: Sequence[str] = ()
) -> Result:
    """Prepare, train twice, evaluate in the published settings; writes and returns what reproduction.json holds.

    `held_out` names animals instead of the published ones. The end of recordings is dropped by the archive's own rules,
    so `training.drop_last_s` is set to 0. Raises ArchiveError for an archive or animals that do not fit, and
    EvaluationError for encoders in `out` that come from others.
    """
    config = _with_tasks(archive, config)
    recordings = archive.read(folder)
    absent = _held_out(archive, recordings, config, held_out)
    _keep(recordings, out / "recordings")
    without = [recording for recording in recordings if recording.subject_id not in absent]
    if not without:
        raise ArchiveError(f"{archive.name}: {', '.join(absent)} are all animals; the inductive encoder needs others")
    runs = {
        "all animals": out / "runs" / "all_animals",
        "without the held out": out / "runs" / "without_held_out",
    }
    pretrain_once(config, recordings, runs["all animals"])
    pretrain_once(config, without, runs["without the held out"])
    units = {name: _units(run, recordings, config) for name, run in runs.items()}
    tasks: Result = {}
    for task in config.tasks:
        settings = PUBLISHED[archive.name, task]
        tasks[task] = {"classes": list(config.tasks[task].names), "settings": {}}
        for setting, row in settings.items():
            own = units["without the held out" if setting == INDUCTIVE else "all animals"][task]
            published = dict(zip(METHODS, row, strict=True))
            ours = score(own, setting, absent, archive.balance)
            tasks[task]["settings"][setting] = {"ours": ours, "published": published}
    result = {
        "archive": archive.name,
        "source": archive.source,
        "config": config.model_dump(mode="json", exclude_none=True),
        "held_out": list(absent),
        "animals": len({recording.subject_id for recording in recordings}),
        "recordings": len(recordings),
        "encoders": {name: _encoder_facts(run) for name, run in runs.items()},
        "versions": library_versions(),
        "tasks": tasks,
    }
    (out / "reproduction.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def as_table(result: Result) -> str:
    """Our figures beside the published ones, in Markdown, and what has to be known to compare them."""
    rows = []
    for task, content in result["tasks"].items():
        for setting, scores in content["settings"].items():
            ours = scores["ours"]
            published = [_number(scores["published"][name]) for name in METHODS]
            rows.append([task, setting, _number(ours["macro_f1"]), _number(ours["balanced_accuracy"]), *published])
    head = ["task", "setting", "this run", "BA of this run", *(f"{name}, published" for name in METHODS)]
    encoder = next(iter(result["encoders"].values()))
    return "\n".join(
        [
            f"{result['archive']}: macro-F1, {result['recordings']} recordings of {result['animals']} animals; config "
            f"{result['config']['name']}, seed {result['config']['training']['seed']}, {encoder['step']} steps on "
            f"{encoder['machine']}; held out: {', '.join(result['held_out'])}.",
            "",
            *(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]),
            "",
            "Published figures choose the checkpoint by validation macro-F1 with labels, this run takes the last one; "
            "one seed. NeuPRINT, NEMO and LOLCAT as published, not run here.",
        ]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _with_tasks(archive: Archive, config: TrainConfig) -> TrainConfig:
    values = config.model_dump(exclude_none=True)
    values["tasks"] = archive.tasks
    values["training"]["drop_last_s"] = 0.0
    return TrainConfig.parse(values, config.name)


def _held_out(
    archive: Archive, recordings: Sequence[AnyRecording], config: TrainConfig, asked: Sequence[str]
) -> tuple[str, ...]:
    subjects = {recording.subject_id for recording in recordings}
    if archive.held_out == "labelled" and not asked:
        labelled = {
            recording.subject_id
            for recording in recordings
            for task in config.tasks.values()
            if (task.labels(recording) != UNLABELLED).any()
        }
        return tuple(sorted(labelled))
    if archive.held_out == "ask" and not asked:
        raise ArchiveError(
            f"{archive.name}: name the animals to hold out (--held-out ID,ID); the authors list theirs in "
            "configs/data/val_dataset of github.com/nerdslab/nuclr"
        )
    names = tuple(sorted(asked or archive.held_out))
    if unknown := set(names) - subjects:
        raise ArchiveError(
            f"{archive.name}: no recording of {', '.join(sorted(unknown))}; there are {', '.join(sorted(subjects))}"
        )
    return names


def _keep(recordings: Sequence[AnyRecording], folder: Path) -> None:
    """The prepared recordings as .npz, for `inspect`, `report` or any other command."""
    folder.mkdir(parents=True, exist_ok=True)
    for recording in recordings:
        if not (path := folder / f"{recording.recording_id}.npz").is_file():
            recording.save(path)


def _encoder_facts(run_dir: Path) -> Result:
    """Size of an encoder, how it was trained, and which checkpoint it is."""
    info = Run.open(run_dir).info
    return {key: info[key] for key in ("parameters", "step", "machine", "precision", "windows", "seconds", "selection")}


def _units(run_dir: Path, recordings: Sequence[AnyRecording], config: TrainConfig) -> dict[str, LabelledUnits]:
    """The labelled units of every task; units that no window shows are left out, as published."""
    encoder = Run.open(run_dir).encoder
    spec = config.window.spec.with_hop_s(config.window.hop_s)
    encode = through_torch(encoder)
    embedded = [embed_recording(encode, one, spec, config.rules.rules) for one in recordings]
    found = [one.snapshot(0, len(one.end_bin)) for one in embedded]
    embedding = np.concatenate([one.features["embedding"] for one in found])
    seen = np.concatenate([one.has["embedding"] for one in found])
    subject = np.concatenate([np.full(len(one.unit_ids), one.subject_id) for one in recordings])
    units = {}
    for name, task in config.tasks.items():
        label = np.concatenate([task.labels(one) for one in recordings])
        kept = seen & (label != UNLABELLED)
        units[name] = LabelledUnits(embedding[kept], label[kept], subject[kept])
    return units
