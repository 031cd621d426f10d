"""BrainWideBench submissions: the region probabilities of every unit, in the files that ibl-bwb-eval scores.

docs/submission.md specifies the files. A submission is two labels: LABEL_single, the prediction of each unit, and
LABEL_multi, averaged over its <= 5 nearest units within 60 um on the same probe. Shapes: U units, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.placement.regions import DepthUnits, pool_along_depth
from nuclr_stream.prediction.answer import Answer
from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import Float32Array
from offline_training.pretraining.runs import Run
from offline_training.readouts.embed import embed_recording, through_torch
from offline_training.readouts.feature_source import FeatureSource
from offline_training.readouts.task_model import TaskModel, load_task_models

FORMAT_VERSION = "0.1.0"
"""Release of ibl-bwb-eval whose files these are."""
TASK = "ts3-unit_cosmos"
COSMOS = ("CB", "CNU", "CTXsp", "HB", "HPF", "HY", "Isocortex", "MB", "OLF", "TH")
REGION = "brain_region"
DEPTH = "depth_um"

ByteArray = npt.NDArray[np.uint8]


class SubmissionError(NuclrStreamError):
    """A run or its recordings cannot be turned into a submission."""


def write_submission(
    run_dirs: Sequence[Path], recordings: Sequence[AnyRecording], *, label: str, out: Path
) -> list[Path]:
    """Write OUT/LABEL_{single,multi}/ts3-unit_cosmos/seed_<seed>.safetensors for every run; returns the files.

    A run needs a task `brain_region` over the ten Cosmos classes, in their order. Units without a prediction get the
    same probability for every class. The multi-unit files are written where every recording has the column `depth_um`.
    Raises SubmissionError naming run or recording, or ReadoutError when a run has no readouts.
    """
    if not label.isascii() or not label or "/" in label:
        raise SubmissionError(f"label {label!r}: must be a plain ASCII name; it becomes the name of a folder")
    ids = encode_ids(_unit_ids(recordings))
    written: dict[Path, Path] = {}
    for run_dir in run_dirs:
        seed = int(Run.open(run_dir).info["seed"])
        for scope, probabilities in _predict(run_dir, recordings).items():
            path = out / f"{label}_{scope}" / TASK / f"seed_{seed}.safetensors"
            if path in written:
                raise SubmissionError(
                    f"{run_dir} and {written[path]} both have seed {seed}: every run needs its own, and the benchmark "
                    "asks for at least three that follow one another"
                )
            written[path] = run_dir
            _write(path, ids, probabilities, metadata={"label": f"{label}_{scope}", "seed": str(seed)})
    return list(written)


def encode_ids(ids: Sequence[str]) -> ByteArray:
    """Unit ids as bytes (U, longest), shorter ones filled up with zeros: a tensor file holds no text.

    Raises SubmissionError for an id that is not ASCII.
    """
    if strange := [name for name in ids if not name.isascii() or "\0" in name]:
        raise SubmissionError(f"unit id {strange[0]!r}: submissions carry ASCII ids only")
    column = np.array([name.encode("ascii") for name in ids])
    return column.view(np.uint8).reshape(len(ids), column.dtype.itemsize)


def _unit_ids(recordings: Sequence[AnyRecording]) -> list[str]:
    owner: dict[str, str] = {}
    for recording in recordings:
        for name in recording.unit_ids.tolist():
            if name in owner:
                raise SubmissionError(
                    f"{recording.recording_id}: unit id {name!r} occurs in {owner[name]} too; units are scored by "
                    "their id alone, so use the benchmark's own recordings, whose ids are unique"
                )
            owner[name] = recording.recording_id
    return list(owner)


def _predict(run_dir: Path, recordings: Sequence[AnyRecording]) -> Mapping[str, Float32Array]:
    """Probabilities (U, C) of the units of all recordings, by unit and averaged over neighbours on the probe."""
    run = Run.open(run_dir)
    encoder, config = run.encoder, run.config
    model = _cosmos_model(run_dir)
    encode = through_torch(encoder)
    single, multi = [], []
    for recording in recordings:
        source = FeatureSource(embed_recording(encode, recording, config.window.spec, config.rules.rules))
        answer = model.answer(source.snapshot(0, len(source.end_s)))
        single.append(answer.probabilities)
        if DEPTH in recording.units:
            multi.append(_averaged(recording, answer))
    scopes = {"single": np.concatenate(single)}
    return scopes | {"multi": np.concatenate(multi)} if len(multi) == len(recordings) else scopes


def _cosmos_model(run_dir: Path) -> TaskModel:
    models = load_task_models(run_dir)
    if REGION not in models or models[REGION].classes != COSMOS:
        found = {name: ", ".join(model.classes) for name, model in models.items()}
        raise SubmissionError(
            f"{run_dir}: its tasks are {found}; a submission needs {REGION!r} with the classes {', '.join(COSMOS)} "
            "in this order (configs/pretrain_brainwidebench.toml has them)"
        )
    return models[REGION]


def _averaged(recording: AnyRecording, answer: Answer) -> Float32Array:
    """One recording is one probe: the benchmark averages over neighbours whatever their shank.

    Units without a prediction are averaged over the others and enter no average themselves.
    """
    known = answer.has_prediction
    units = DepthUnits(
        classes=COSMOS,
        prior=np.full(len(COSMOS), 1 / len(COSMOS)),
        probabilities=answer.probabilities.astype(np.float64),
        depth_um=recording.units[DEPTH].astype(np.float64),
        shank=np.zeros(len(known), dtype=np.int64),
        exposure=known.astype(np.float64),
        abstained=~known,
    )
    return pool_along_depth(units).astype(np.float32)


def _write(path: Path, ids: ByteArray, probabilities: Float32Array, *, metadata: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    common = {"task": TASK, "label_names": ",".join(COSMOS), "ibl_bwb_eval_version": FORMAT_VERSION}
    temporary = path.with_name(path.name + ".part")
    save_file({"entity_ids": ids, "pred_proba": probabilities}, temporary, metadata=common | metadata)
    temporary.replace(path)
