"""The command of `nuclr-train` that scores placement; it plays recordings through the live Labeler of a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

if TYPE_CHECKING:
    from nuclr_stream.inference.model import Model
    from nuclr_stream.recordings.recording import Recording
    from nuclr_stream.wire import Predictions
    from offline_training.simulation.probes import SimulatedProbe

TASK = "brain_region"
HOP_S = 10.0
UNITS = 120


def placement(
    bundle: Annotated[str, typer.Option("--bundle", help="A bundle trained on simulated animals.")] = "demo",
    out: Annotated[Path, typer.Option("--out", help="Result file.")] = Path("results/placement/placement.json"),
    runs: Annotated[Path, typer.Option("--runs", help="Folder that keeps predictions.")] = Path("runs/placement"),
    animals: Annotated[int, typer.Option(help="Fresh animals that are scored.")] = 120,
    first_seed: Annotated[int, typer.Option(help="Seed of the first one.")] = 9500,
    tuning_animals: Annotated[int, typer.Option(help="Animals on which the settings are chosen.")] = 40,
    tuning_seed: Annotated[int, typer.Option(help="Seed of the first one of these.")] = 9200,
    drawn: Annotated[int, typer.Option(help="Probes drawn without spikes that are scored.")] = 150,
    seconds: Annotated[str, typer.Option(help="Observation times, separated by commas.")] = "10,60",
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the result as one JSON document.")] = False,
) -> None:
    """Measure borders and their intervals on probes whose borders are known: simulated animals, and drawn probes."""
    from nuclr_stream.bundle.manifest import find_bundle, load_bundle
    from nuclr_stream.inference.model import Model
    from offline_training.studies.placement import evaluate_placement, table

    model = Model(load_bundle(find_bundle(bundle)), threads=1)
    times = [float(s) for s in seconds.split(",")]
    tuning = range(tuning_seed, tuning_seed + tuning_animals)
    scored = range(first_seed, first_seed + animals)
    result = evaluate_placement(
        probe_of=lambda seed: _probe(seed, model, times, runs),
        tuning=tuning,
        scored=scored,
        drawn=drawn,
        facts={"bundle": model.bundle_id, "units": UNITS, "hop_s": HOP_S},
        out=out,
    )
    typer.echo(table(result))
    if as_json:
        typer.echo(json.dumps(result))


def predictions_at(recording: Recording, model: Model, seconds: Sequence[float]) -> list[Predictions]:
    """What the daemon would predict of a recording after each of `seconds`, ascending and a window at least."""
    from nuclr_stream.stream.labeler import Labeler
    from nuclr_stream.stream.playback import recording_messages

    rate = recording.sample_rate
    labeler = Labeler(model, stream=recording.recording_id, hop_s=HOP_S)
    found: dict[float, Predictions] = {}
    for message in recording_messages(recording, stream=recording.recording_id, block_samples=int(HOP_S * rate)):
        labeler.push(message)
        while (labelled := labeler.step()) is not None:
            end_s = float(labelled.predictions.end_sample / rate)
            found |= {at: labelled.predictions for at in seconds if end_s <= at}
    return [found[at] for at in seconds]


def _probe(seed: int, model: Model, seconds: Sequence[float], runs: Path) -> SimulatedProbe:
    """A simulated animal as the bundle sees it, from `runs` where it is there already."""
    from offline_training.simulation.animals import simulate
    from offline_training.simulation.biology import REGIONS_FROM_TIP
    from offline_training.simulation.probes import SimulatedProbe, borders_of_animal

    times = "_".join(f"{s:g}" for s in seconds)
    path = runs / f"{model.bundle_id}_{seed}_{times}.npz"
    if path.is_file():
        return SimulatedProbe.load(path)
    recording = simulate(seed, units=UNITS, duration_s=max(seconds))
    found = predictions_at(recording, model, seconds)
    tasks = [next(task for task in one.tasks if task.name == TASK) for one in found]
    part = model.task(TASK)
    probe = SimulatedProbe(
        seed=seed,
        classes=np.array(part.classes),
        prior=np.array(part.prior),
        order=np.array(REGIONS_FROM_TIP),
        borders_um=borders_of_animal(seed, UNITS),
        depth_um=recording.units["depth_um"],
        region=recording.units["brain_region"],
        seconds=np.array(seconds),
        probabilities=np.stack([task.probabilities for task in tasks]),
        exposure=np.stack([one.exposure for one in found]),
        abstained=np.stack([task.abstained for task in tasks]),
    )
    runs.mkdir(parents=True, exist_ok=True)
    probe.save(path)
    return probe
