"""`nuclr-train foreign-units`: how often a bundle calls a class for units unlike those that it was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from offline_training.commands.recordings_cli import HELP

if TYPE_CHECKING:
    from nuclr_stream.inference.model import Model
    from nuclr_stream.recordings.recording import Recording

HOP_S = 10.0
_SEED = 0


def foreign_units(
    bundle: Annotated[str, typer.Option("--bundle", help="Name of a shipped bundle, or its directory.")],
    own: Annotated[Path, typer.Option("--own", help="Recordings of the bundle's own kind, best of other animals.")],
    foreign: Annotated[Path, typer.Option("--foreign", help=HELP)],
    foreign_words: Annotated[str, typer.Option("--foreign-words", help="What the foreign recordings are, in words.")],
    recordings: Annotated[int, typer.Option(help="At most so many recordings of each kind.")] = 6,
    out: Annotated[Path, typer.Option("--out", help="Result file; rows of other bundles in it stay.")] = Path(
        "results/out_of_distribution.json"
    ),
) -> None:
    """Predict whole recordings of other kinds and count the units that are called a class, or flagged.

    Beside the foreign recordings stand units made of the bundle's own kind: Poisson trains of the same rates, intervals
    in random order, and spikes of pairs of units taken together, as threshold crossings of a channel are.
    """
    from nuclr_stream.bundle.manifest import find_bundle, load_bundle
    from nuclr_stream.inference.model import Model
    from nuclr_stream.recordings.readers import open_recordings
    from nuclr_stream.recordings.recording import Recording

    model = Model(load_bundle(find_bundle(bundle)), threads=1)
    own_kind = [each for each in open_recordings(own) if isinstance(each, Recording)][:recordings]
    others = [each for each in open_recordings(foreign) if isinstance(each, Recording)][:recordings]
    trained_on = set(model.manifest.trained_on.subjects)
    known = any(each.subject_id in trained_on for each in own_kind)
    own_words = "animals of its own training" if known else "other animals of its own kind"
    rng = np.random.default_rng(_SEED)
    kinds: dict[str, Sequence[Any]] = {
        own_words: own_kind,
        foreign_words: others,
        "Poisson trains of the same rates": [poisson(each, rng) for each in own_kind],
        "intervals of each unit in random order": [shuffled(each, rng) for each in own_kind],
        "pairs of units as one": [paired(each, rng) for each in own_kind],
    }
    rows = [row for words, group in kinds.items() for row in _rows(model, words, group)]
    before = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.is_file() else []
    kept = [row for row in before if row["bundle"] != model.manifest.name]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": kept + rows}, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        typer.echo(f"{row['units_of']:40} {row['task']:15} called {row['called']:.3f}  flagged {row['flagged']:.3f}")


def poisson(recording: Recording, rng: np.random.Generator) -> Recording:
    """Every unit's spikes at random times."""
    return _with_spikes(recording, rng.integers(0, recording.num_samples, len(recording.spike_samples)))


def shuffled(recording: Recording, rng: np.random.Generator) -> Recording:
    """Every unit's intervals in random order: its rate and interval histogram stay, all else goes."""
    samples = recording.spike_samples.copy()
    for unit in range(len(recording.unit_ids)):
        own = np.flatnonzero(recording.spike_units == unit)
        if len(own) > 1:
            samples[own] = np.cumsum([samples[own[0]], *rng.permutation(np.diff(samples[own]))])
    return _with_spikes(recording, samples)


def paired(recording: Recording, rng: np.random.Generator) -> Recording:
    """Two units at a time as one, drawn at random: multi-unit activity, whose refractory period is broken."""
    number = len(recording.unit_ids) // 2
    order = rng.permutation(len(recording.unit_ids))
    unit = np.full(len(recording.unit_ids), -1)
    unit[order[: 2 * number]] = np.arange(2 * number) % number
    kept = unit[recording.spike_units] >= 0
    return replace(
        recording,
        spike_samples=recording.spike_samples[kept],
        spike_units=unit[recording.spike_units][kept].astype(recording.spike_units.dtype),
        unit_ids=recording.unit_ids[:number],
        units={},
    )


def _with_spikes(recording: Recording, samples: np.ndarray[Any, np.dtype[np.int64]]) -> Recording:
    order = np.lexsort((recording.spike_units, samples))
    return replace(recording, spike_samples=samples[order], spike_units=recording.spike_units[order])


def _rows(model: Model, words: str, recordings: Sequence[Recording]) -> Iterator[dict[str, Any]]:
    """A row per task: share of the units of all recordings that is called, and share that is flagged."""
    from nuclr_stream.stream.labeler import Labeler
    from nuclr_stream.stream.playback import recording_messages

    finals = []
    for recording in recordings:
        labeler = Labeler(model, stream=recording.recording_id, hop_s=HOP_S)
        last = None
        for message in recording_messages(recording, stream=recording.recording_id, block_samples=300_000):
            labeler.push(message)
            while (step := labeler.step()) is not None:
                last = step.predictions
        finals += [] if last is None else [last]
    units = sum(len(final.unit_ids) for final in finals)
    for place, task in enumerate(model.task_names):
        yield {
            "bundle": model.manifest.name,
            "units_of": words,
            "units": units,
            "task": task,
            "called": round(sum(int((~final.tasks[place].abstained).sum()) for final in finals) / max(units, 1), 4),
            "flagged": round(sum(int(final.out_of_distribution.sum()) for final in finals) / max(units, 1), 4),
        }
