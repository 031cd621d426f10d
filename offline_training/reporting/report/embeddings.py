"""Unit embeddings in two dimensions, by class of each task and by animal. Shapes: U units, D embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import Float32Array, Int64Array
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.pretraining.runs import Run
from offline_training.readouts.embed import embed_recording, through_torch
from offline_training.reporting.report.page import Missing, Part, Picture, Section
from offline_training.reporting.style import GREY, Look, looks, panels

MAX_POINTS = 4000
NAMED = 18
"""Categories with a look of their own; the others are grey together."""
OTHERS, UNNAMED = "others", "no class"
TITLE = "Embeddings of units"

StrArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Points:
    """Units on a plane (U, 2), the names of its axes, and per grouping the category (U,) of every unit."""

    place: npt.NDArray[np.float64]
    axes: tuple[str, str]
    method: str
    groups: dict[str, StrArray]


def embeddings_section(run_dir: Path, recordings: Sequence[AnyRecording], *, projection: str) -> Section:
    """Every unit's mean embedding over its recording, projected on a plane. Raises ConfigError for another projection.

    Units that no window shows are left out; of more than MAX_POINTS units a random choice is drawn.
    """
    if not recordings:
        return Section(TITLE, [Missing("no recordings were given (--recordings DIR).")])
    run = Run.open(run_dir)
    encoder, config, info = run.encoder, run.config, run.info
    spec = config.window.spec.with_hop_s(config.window.spec.window_s)
    encode = through_torch(encoder)
    embedded = [embed_recording(encode, one, spec, config.rules.rules) for one in recordings]
    found = [one.snapshot(0, len(one.end_bin)) for one in embedded]
    seen = np.flatnonzero(np.concatenate([one.exposure for one in found]) > 0)
    if len(seen) < 3:
        return Section(TITLE, [Missing(f"{len(seen)} units of {len(recordings)} recordings can be embedded at all.")])
    drawn = seen if len(seen) <= MAX_POINTS else np.sort(np.random.default_rng(0).permutation(seen)[:MAX_POINTS])
    place, axes, method = _project(np.concatenate([one.features["embedding"] for one in found])[drawn], projection)
    points = Points(place, axes, method, {name: group[drawn] for name, group in _groups(config, recordings).items()})
    known = {one.subject_id for one in recordings} & set(info["subjects"])
    saw = f"The encoder was trained on the activity of {len(known)} of these animals."
    some = "" if len(drawn) == len(seen) else f" {len(drawn):,} of {len(seen):,} units are drawn, chosen at random."
    parts: list[Part] = [f"{len(seen):,} units of {len(recordings)} recordings; {method}. {saw}{some}"]
    return Section(TITLE, [*parts, *(_picture(points, name) for name in points.groups)])


def _groups(config: TrainConfig, recordings: Sequence[AnyRecording]) -> dict[str, StrArray]:
    groups = {}
    for task, settings in config.tasks.items():
        labels = np.concatenate([settings.labels(recording) for recording in recordings])
        groups[task] = _class_names(labels, settings.names)
    groups["animal"] = np.concatenate([np.full(len(one.unit_ids), one.subject_id) for one in recordings])
    return groups


def _class_names(labels: Int64Array, names: Sequence[str]) -> StrArray:
    return np.where(labels == UNLABELLED, UNNAMED, np.array(names)[np.maximum(labels, 0)])


def _project(features: Float32Array, method: str) -> tuple[npt.NDArray[np.float64], tuple[str, str], str]:
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    if method == "pca":
        pca = PCA(n_components=2, random_state=0).fit(scaled)
        shares = [
            f"component {i + 1} ({100 * share:.0f} % of variance)"
            for i, share in enumerate(pca.explained_variance_ratio_)
        ]
        return pca.transform(scaled), (shares[0], shares[1]), "the first two principal components of scaled embeddings"
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError as error:
            raise ConfigError("projection umap: needs the package umap-learn; install it, or take pca") from error
        neighbours = min(15, len(scaled) - 1)
        placed = UMAP(n_components=2, n_neighbors=neighbours, random_state=0, n_jobs=1).fit_transform(scaled)
        return placed, ("UMAP 1", "UMAP 2"), f"UMAP of scaled embeddings ({neighbours} neighbours, seed 0)"
    raise ConfigError(f"projection {method!r}: choose pca or umap")


def _picture(points: Points, grouping: str) -> Picture:
    group = points.groups[grouping]
    counts = {str(name): int((group == name).sum()) for name in np.unique(group)}
    listed = ", ".join(f"{name} {number}" for name, number in list(counts.items())[:NAMED])
    return Picture(
        _figure(points, grouping),
        alt=f"{len(group)} units on a plane, coloured by {grouping}: {listed}.",
        caption=f"Coloured by {grouping}. Each point is one unit; points are drawn in random order.",
    )


def _figure(points: Points, grouping: str) -> Figure:
    figure, (axis,) = panels(1, 1, height_in=4.6, width_in=7.4)
    group = named(points.groups[grouping])
    background = [name for name in (UNNAMED, OTHERS) if (group == name).any()]
    _scatter(axis, points.place, group, background, size=7)
    _scatter(axis, points.place, group, [n for n in np.unique(group).tolist() if n not in background], size=13)
    axis.set(xlabel=points.axes[0], ylabel=points.axes[1])
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=1.6, title=grouping, alignment="left")
    return figure


def named(group: StrArray) -> StrArray:
    """The categories (U,) with all but the NAMED largest of them called OTHERS."""
    names, counts = np.unique(group[group != UNNAMED], return_counts=True)
    kept = names[np.argsort(-counts, kind="stable")[: NAMED if len(names) <= NAMED else NAMED - 1]]
    return np.where(np.isin(group, kept) | (group == UNNAMED), group, OTHERS)


def _scatter(axis: Axes, place: np.ndarray, group: StrArray, names: list[str], *, size: float) -> None:
    """Draw the units of these categories, those of one mark in random order, so that none lies on top of the others."""
    background = set(names) <= {UNNAMED, OTHERS}
    shown = {name: Look(GREY, "o") for name in names} if background else looks(names)
    for mark in dict.fromkeys(look.mark for look in shown.values()):
        own = [name for name in names if shown[name].mark == mark]
        rows = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(group, own)))
        colours = [shown[name].colour for name in group[rows].tolist()]
        axis.scatter(
            place[rows, 0], place[rows, 1], c=colours, s=size, marker=mark, linewidths=0, alpha=0.75, rasterized=True
        )
    for name, look in shown.items():
        label = f"{name} ({int((group == name).sum())})"
        axis.scatter([], [], c=look.colour, s=size, marker=look.mark, label=label)
