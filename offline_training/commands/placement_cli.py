"""The command of `nuclr-train` that scores placement; it plays recordings through the live Labeler of a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
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
    recordings: Annotated[
        Path | None,
        typer.Option("--recordings", help="Simulated networks that it was not trained on; without, easy animals."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Result file.")] = Path("results/placement/network.json"),
    runs: Annotated[Path, typer.Option("--runs", help="Folder that keeps predictions.")] = Path("runs/placement"),
    animals: Annotated[int, typer.Option(help="Fresh easy animals that are scored.")] = 120,
    first_seed: Annotated[int, typer.Option(help="Seed of the first one.")] = 9500,
    tuning_animals: Annotated[int, typer.Option(help="Easy animals on which the settings are chosen.")] = 40,
    tuning_seed: Annotated[int, typer.Option(help="Seed of the first one of these.")] = 9200,
    drawn: Annotated[int, typer.Option(help="Probes drawn without spikes that are scored.")] = 150,
    seconds: Annotated[str, typer.Option(help="Observation times, separated by commas.")] = "10,60",
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the result as one JSON document.")] = False,
) -> None:
    """Measure borders and their intervals on probes whose borders are known: simulated animals, and drawn probes.

    The shipped demo bundle was trained on networks: give --recordings of `nuclr-train simulate --kind network`. The
    settings of placement are chosen on easy animals and drawn probes only.
    """
    from nuclr_stream.bundle.manifest import find_bundle, load_bundle
    from nuclr_stream.errors import ConfigError
    from nuclr_stream.inference.model import Model
    from offline_training.simulation.biology import REGIONS_FROM_TIP
    from offline_training.studies.placement import evaluate_placement, table

    model = Model(load_bundle(find_bundle(bundle)), threads=1)
    times = [float(s) for s in seconds.split(",")]
    if recordings is not None:
        files = sorted(recordings.glob("network_*.npz"))
        if not files:
            raise ConfigError(f"--recordings {recordings}: no network_<seed>_<index>.npz in it")
        probes = [_network_probe(path, model, times, runs) for path in files]
        units = sorted(len(probe.depth_um) for probe in probes)
        result = evaluate_placement(
            probe_of=probes.__getitem__,
            tuning=[],
            scored=range(len(probes)),
            drawn=0,
            facts={"bundle": model.bundle_id, "units": f"{units[0]} to {units[-1]}", "hop_s": HOP_S},
            out=out,
        )
    else:
        known = model.task(TASK).classes
        if not set(known) & set(REGIONS_FROM_TIP):
            raise ConfigError(
                f"--bundle {bundle}: it knows {', '.join(known)}, easy animals lie in {', '.join(REGIONS_FROM_TIP)}; "
                "give --recordings of simulated networks, or a bundle that was trained on easy animals"
            )
        result = evaluate_placement(
            probe_of=lambda seed: _easy_probe(seed, model, times, runs),
            tuning=range(tuning_seed, tuning_seed + tuning_animals),
            scored=range(first_seed, first_seed + animals),
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
            if end_s + HOP_S > max(seconds):  # recordings may be longer than is asked for
                return [found[at] for at in seconds]
    return [found[at] for at in seconds]


def _easy_probe(seed: int, model: Model, seconds: Sequence[float], runs: Path) -> SimulatedProbe:
    """An animal of the easy simulation as the bundle sees it."""
    from offline_training.simulation.animals import simulate
    from offline_training.simulation.biology import REGIONS_FROM_TIP
    from offline_training.simulation.probes import borders_of_animal

    def truth() -> tuple[Recording, Sequence[str], npt.NDArray[np.float64]]:
        recording = simulate(seed, units=UNITS, duration_s=max(seconds))
        return recording, REGIONS_FROM_TIP, borders_of_animal(seed, UNITS)

    return _probe(truth, str(seed), seed=seed, model=model, seconds=seconds, runs=runs)


def _network_probe(path: Path, model: Model, seconds: Sequence[float], runs: Path) -> SimulatedProbe:
    """The animal of a simulated network, whose seed and index its file is named by, as the bundle sees it."""
    from nuclr_stream.recordings.recording import Recording
    from offline_training.simulation.probes import borders_of_network

    _, seed, index = path.stem.split("_")

    def truth() -> tuple[Recording, Sequence[str], npt.NDArray[np.float64]]:
        return Recording.load(path), *borders_of_network(int(seed), int(index))

    return _probe(truth, path.stem, seed=int(index), model=model, seconds=seconds, runs=runs)


def _probe(
    truth: Callable[[], tuple[Recording, Sequence[str], npt.NDArray[np.float64]]],
    name: str,
    *,
    seed: int,
    model: Model,
    seconds: Sequence[float],
    runs: Path,
) -> SimulatedProbe:
    """What the bundle predicts of a recording, beside its regions from the tip up and their borders in um.

    Taken from `runs` where it is there already.
    """
    from offline_training.simulation.probes import SimulatedProbe

    times = "_".join(f"{s:g}" for s in seconds)
    path = runs / f"{model.bundle_id}_{name}_{times}.npz"
    if path.is_file():
        return SimulatedProbe.load(path)
    recording, order, borders_um = truth()
    found = predictions_at(recording, model, seconds)
    tasks = [next(task for task in one.tasks if task.name == TASK) for one in found]
    part = model.task(TASK)
    probe = SimulatedProbe(
        seed=seed,
        classes=np.array(part.classes),
        prior=np.array(part.prior),
        order=np.array(order),
        borders_um=borders_um,
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
