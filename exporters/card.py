"""MODEL_CARD.md: what a bundle was trained on, what it may be used for, and figures that came from evaluation files."""

from __future__ import annotations

from exporters.figures import figures_table
from nuclr_stream.bundle.manifest import Manifest, TaskPart
from nuclr_stream.windows.normaliser import Normalisation

_TASK_NOTES = {
    "waveform_class": "Waveform class is the width of the extracellular spike: **it is not a cell type.**",
}


def model_card(manifest: Manifest) -> str:
    """Return the card in Markdown. It states nothing that is not in the manifest."""
    sections = [
        f"# Bundle `{manifest.name}`",
        f"A NuCLR encoder ({manifest.parameters:,} parameters, {manifest.embedding_dim} embedding channels) "
        + ("with linear readouts, " if manifest.tasks else "without readouts, ")
        + "for nuclr-stream. It gives one embedding per recorded unit and window"
        + (", and class probabilities from what is known of the unit and its neighbours." if manifest.tasks else "."),
        _trained_on(manifest),
        _tasks(manifest),
        _input(manifest),
        f"## Figures\n\n{figures_table(manifest.evaluation)}",
        _USE,
        _VERSIONS + "\n".join(f"* {name} {version}" for name, version in sorted(manifest.versions.items())),
        _LICENCE,
    ]
    return "\n\n".join(sections) + "\n"


def _trained_on(manifest: Manifest) -> str:
    seen = manifest.trained_on
    return (
        f"## Trained on\n\n{seen.description}\n\n* Subjects ({len(seen.subjects)}): {', '.join(seen.subjects) or '-'}\n"
        f"* Recordings ({len(seen.recordings)}): {', '.join(seen.recordings) or '-'}"
    )


def _tasks(manifest: Manifest) -> str:
    return "\n\n".join(
        ["## Tasks", *(_task(task) for task in manifest.tasks)] if manifest.tasks else ["## Tasks\n\nNone."]
    )


def _task(task: TaskPart) -> str:
    note, pool = _TASK_NOTES.get(task.name, ""), task.pools[0]
    thresholds = ", ".join(f"{least:g} at {n:g} windows" for n, least in zip(pool.n, pool.abstain_below, strict=True))
    called = (
        f"A top probability below a threshold is reported as abstained ({thresholds}; from 1 on nothing is called): "
        f"{task.threshold_promise}. Sets of classes: {task.sets_promise}."
    )
    return (
        f"### {task.name}\n\n" + (f"{note}\n\n" if note else "") + f"Classes, in the order of the outputs: "
        f"{', '.join(task.classes)}. The probabilities assume the prior "
        f"{', '.join(f'{p:.3g}' for p in task.prior)}. Predictors, weighing alike: {', '.join(pool.predictors)}. "
        f"Calibrated on: {task.calibrated_on}. {called}"
    )


def _input(manifest: Manifest) -> str:
    spec, rules = manifest.spec, manifest.rules
    content = "spike counts" if spec.input_kind == "spikes" else "traces"
    members = "Units that fired in the window" if spec.input_kind == "spikes" else "All units"
    return (
        f"## Input\n\nWindows of {spec.window_s:g} s of {content} ({spec.bins} bins at "
        f"{manifest.window.bins_per_second} per second), one every {spec.hop_s:g} s. "
        f"{members} of one probe are one population, of at most {manifest.max_units}. "
        f"Below {rules.min_population} of them a prediction is flagged SMALL_POPULATION and abstained from. "
        f"A window that misses more than {rules.max_missing:.0%} of its data, "
        f"or touches masked{' or silent' if rules.cut_silence else ''} stretches, is not embedded."
        + _normaliser(spec.normaliser)
    )


def _normaliser(settings: Normalisation | None) -> str:
    if settings is None:
        return ""
    trained = "that of the whole recording" if settings.trained_with == "offline" else "the running one too"
    return (
        f" Traces are divided by the running {settings.quantile:g} quantile of all units since the start, from "
        f"{settings.warm_up_frames} frames on; training divided by {trained}."
    )


_USE = """## Intended use and limits

Exploring and steering electrophysiology experiments while they run. Not for any clinical decision.

* Predictions are statements about the classes above and nothing else: a unit of any other kind is put into one of them.
* Recordings that differ from the training recordings (species, areas, probes, sorters, drugs, behaviour) are out of
  distribution, and probabilities are then not calibrated.
* A unit needs several windows: a prediction that rests on few of them is weak, and says how many there were.
* Neighbours matter: the embedding of a unit depends on the population that was recorded with it."""

_VERSIONS = "## Made with\n\n"

_LICENCE = """## Licence and citation

Apache-2.0. Method: NuCLR, Arora et al. 2025. Please cite it, and nuclr-stream as in its CITATION.cff."""
