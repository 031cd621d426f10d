"""Predictions as the tables that phy shows as columns of its cluster view: cluster_nuclr_<task>.tsv and two beside it.

phy reads every `cluster_*.tsv` of a folder, whose header is cluster_id and the name of the column, and rewrites
cluster_info.tsv itself, so that one is never written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.outputs.files import new_file
from nuclr_stream.outputs.result import Result
from nuclr_stream.wire import Abstained, TaskPredictions

UNDECIDED = "undecided"
"""Stands for a class where none is called: an empty cell would look like a cluster that nobody looked at."""


def write_phy(path: Path, results: Sequence[Result], *, force: bool) -> None:
    """Write the tables of one recording beside each other; `path` gives the folder and how their names begin.

    From `sorted/cluster_nuclr.tsv` come `sorted/cluster_nuclr_cell_type.tsv` (the class, or "undecided"), `..._p.tsv`
    (probability of the most probable class) and `..._why.tsv` (why none is called). Raises NuclrStreamError for units
    that are no clusters of phy, for a name that phy would not read and for several recordings.
    """
    if not path.name.startswith("cluster_") or path.stem == "cluster_info":
        raise NuclrStreamError(f"--out {path}: phy reads cluster_NAME.tsv; say --out {path.parent}/cluster_nuclr.tsv")
    if len(results) != 1:
        names = ", ".join(result.recording_id for result in results)
        raise NuclrStreamError(f"--out {path}: phy's tables are of one sorting, not of {names}; label one at a time")
    (result,) = results
    for unit_id in result.predictions.unit_ids:
        if not unit_id.isdecimal():
            raise NuclrStreamError(
                f"--out {path}: unit {unit_id!r} is no cluster of phy, whose ids are whole numbers; "
                "write .csv, or label the phy folder itself"
            )
    with ExitStack() as stack:
        for name, values in _tables(result):
            temporary = stack.enter_context(new_file(path.with_name(f"{path.stem}_{name}.tsv"), force=force))
            field = f"{path.stem.removeprefix('cluster_')}_{name}"
            rows = [f"{unit_id}\t{value}\n" for unit_id, value in zip(result.predictions.unit_ids, values, strict=True)]
            temporary.write_text(f"cluster_id\t{field}\n{''.join(rows)}", encoding="utf-8")


def _tables(result: Result) -> Iterator[tuple[str, list[str]]]:
    for task in result.predictions.tasks:
        yield task.name, called(task)
        yield f"{task.name}_p", [f"{p:.4f}" for p in task.probabilities.max(axis=1)]
        yield f"{task.name}_why", [Abstained(why).word or "called" for why in task.why.tolist()]


def called(task: TaskPredictions) -> list[str]:
    """Return the class (U,) that is called of every unit, UNDECIDED where none is."""
    tops = task.probabilities.argmax(axis=1)
    return [UNDECIDED if why else task.classes[k] for why, k in zip(task.why, tops, strict=True)]
