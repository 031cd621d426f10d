"""Recordings through the live Labeler into files: every form at once, each whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain
from pathlib import Path

from nuclr_stream.errors import NuclrStreamError, RecordingError
from nuclr_stream.inference.model import Model
from nuclr_stream.outputs.files import new_file, refuse_existing
from nuclr_stream.outputs.log import to_line
from nuclr_stream.outputs.nwb import write_nwb
from nuclr_stream.outputs.phy import write_phy
from nuclr_stream.outputs.result import AnyRecording, Result, before_any_window, labelled, result_of, too_short
from nuclr_stream.outputs.rows import REASONS, TASK_COLUMNS, UNIT_COLUMNS, Row, task_columns, unit_columns
from nuclr_stream.outputs.sorting import write_curation
from nuclr_stream.outputs.tables import TABLES, CsvTable, ParquetTable
from nuclr_stream.recordings.recorded import Recorded
from nuclr_stream.stream.labeler import Labeler, Labelled
from nuclr_stream.windows.binning import Float32Array, rational
from nuclr_stream.wire import Abstained, Predictions

LabelerOf = Callable[[AnyRecording], Labeler]
"""Makes the Labeler of a recording, with whatever options it shall have."""
OnWindow = Callable[[Recorded, float], None]
OnEnd = Callable[[Predictions, Mapping[str, Float32Array]], None]

HEAD = ("recording_id", "unit_id", "task", "time_s", "final", *TASK_COLUMNS[1:], *UNIT_COLUMNS)
LOG = ".jsonl"
WHOLE: dict[str, Callable[..., None]] = {".nwb": write_nwb, ".json": write_curation, ".tsv": write_phy}
"""What writes the end of recordings, by the ending of its file."""
FORMS = {
    ".csv": "a row per unit and task",
    ".parquet": "the same columns",
    ".jsonl": "every window's predictions, to be replayed",
    ".nwb": "columns of the NWB file's units",
    ".tsv": "phy's cluster tables",
    ".json": "SpikeInterface's curation",
}
"""What is written, by the ending of --out."""


def write_labels(
    recordings: Sequence[AnyRecording],
    labeler_of: LabelerOf,
    out: Path | Sequence[Path],
    *,
    every_s: float | None = None,
    force: bool = False,
    sources: Mapping[str, Path] | None = None,
    on_window: OnWindow = lambda _recording, _seconds: None,
    on_end: OnEnd | None = None,
    on_result: Callable[[Result], None] = lambda _result: None,
) -> int:
    """Label recordings and write what the endings of `out` ask for; returns the number of rows of a table.

    Args:
        recordings: What to label.
        labeler_of: Makes the Labeler of each.
        out: Files to write; FORMS says what by their endings. Each appears whole or not at all.
        every_s: Also rows at every multiple of it; tables only.
        force: Replace files that are there.
        sources: The file of every recording by its id, for exports that add to it.
        on_window: Called with the time of every window as it is done.
        on_end: Called with the last predictions of a recording, if there are any, and where their units are.
        on_result: Called with the end of every recording.

    Raises NuclrStreamError when a file cannot be written or is there already, RecordingError for a recording that the
    bundle cannot take, ConfigError for options of a Labeler that it cannot have.
    """
    paths = checked_outs([out] if isinstance(out, Path) else out, force=force)
    columns = all_columns(labeler_of(recordings[0]).model)  # all of them have one bundle
    results: list[Result] = []
    rows = 0
    with ExitStack() as files:
        temporary = {p: files.enter_context(new_file(p, force=force)) for p in paths if p.suffix not in WHOLE}
        with ExitStack() as opened:
            tables = [_table(temporary[p], p, columns, opened) for p in paths if p.suffix in TABLES]
            logs = [opened.enter_context(temporary[p].open("w", encoding="utf-8")) for p in paths if p.suffix == LOG]

            def log(found: Labelled) -> None:
                for file in logs:
                    file.write(to_line(found.predictions) + "\n")

            for recording in recordings:
                walk = _Walk(recording, labeler_of(recording), every_s=every_s, on_window=on_window, log=log)
                for row in walk:
                    rows += 1
                    for table in tables:
                        table.write([row])
                if walk.latest is not None and on_end is not None:
                    on_end(walk.latest.predictions, walk.labeler.population.units.geometry)
                results.append(walk.result((sources or {}).get(recording.recording_id)))
                on_result(results[-1])
        for path in paths:
            if path.suffix in WHOLE:
                WHOLE[path.suffix](path, results, force=force)
    return rows


def checked_outs(outs: Sequence[Path], *, force: bool) -> list[Path]:
    """Return what to write, as it is. Raises NuclrStreamError for an unknown ending, and for files that are there."""
    for path in outs:
        if path.suffix not in FORMS:
            known = ", ".join(f"{ending} ({what})" for ending, what in FORMS.items())
            raise NuclrStreamError(f"--out {path}: the ending says what is written; it is one of {known}")
        # phy's tables are several, named after the one that was given
        there = path.parent.glob(f"{path.stem}_*.tsv") if path.suffix == ".tsv" else [path]
        for one in () if force else there:
            refuse_existing(one)
    return list(outs)


def all_columns(model: Model) -> list[str]:
    """Return the columns of a long table of a bundle's predictions."""
    classes = dict.fromkeys(f"p_{c}" for name in model.task_names for c in model.task(name).classes)
    return [*HEAD, *(classes or [f"e_{d}" for d in range(model.manifest.embedding_dim)]), "reason"]


def label_recording(
    recording: AnyRecording,
    labeler: Labeler,
    *,
    every_s: float | None = None,
    on_window: OnWindow = lambda _recording, _seconds: None,
) -> Iterator[Row]:
    """Yield a row per unit and task at every multiple of `every_s` seconds, and one with final = 1 at the end.

    Every row holds recording_id, unit_id, task, time_s (from sample 0), final, prediction (the top class, abstained or
    not), probability, set (classes with | between them), abstained, why, stable_since_s, windows,
    exposure, ood_score, flags (words with | between them), reason (why in a sentence) and a p_<class> per
    class of the task; docs/protocol.md says what they mean. Rows before the first window have windows 0, the prior as
    probabilities and no stable_since_s. A bundle without readouts gives a row per unit with no task, and its mean
    embedding as e_0, e_1, ... `labeler` is one that has taken nothing yet. `on_window` is called with the time of every
    window as it is done.
    """
    return iter(_Walk(recording, labeler, every_s=every_s, on_window=on_window))


class _Walk:
    """One recording through its Labeler: iterating yields rows; then `latest` is what the last window led to."""

    def __init__(
        self,
        recording: AnyRecording,
        labeler: Labeler,
        *,
        every_s: float | None,
        on_window: OnWindow,
        log: Callable[[Labelled], None] = lambda _found: None,
    ) -> None:
        self.recording, self.labeler = recording, labeler
        self.latest: Labelled | None = None
        self._every_s, self._on_window, self._log = every_s, on_window, log
        self._note = too_short(recording, labeler)
        self._before = before_any_window(recording, labeler)

    def __iter__(self) -> Iterator[Row]:
        rate = self.recording.sample_rate
        wanted = _times(self.recording, self._every_s)
        upcoming = next(wanted, None)
        for found in labelled(self.recording, self.labeler):
            end = found.predictions.end_sample / rate
            # what stood at the times asked for before this window ended is what the one before it led to
            while upcoming is not None and upcoming < end:
                yield from self._rows(float(upcoming), final=0)
                upcoming = next(wanted, None)
            self.latest = found
            self._log(found)
            self._on_window(self.recording, float(end))
        for time_s in chain([] if upcoming is None else [upcoming], wanted):
            yield from self._rows(float(time_s), final=0)
        yield from self._rows(self.recording.duration_s, final=1)

    def result(self, source: Path | None) -> Result:
        """Return the end of the recording."""
        return result_of(self.recording, self.labeler, self.latest, source=source)

    def _rows(self, time_s: float, *, final: int) -> Iterator[Row]:
        """Yield the rows of one time: of every task, or the mean embeddings where the bundle has no readouts."""
        one = self._before if self.latest is None else self.latest.predictions
        common: Row = {"recording_id": self.recording.recording_id, "time_s": time_s, "final": final}
        units = [common | unit_columns(one, u) for u in range(len(one.unit_ids))]
        if not one.tasks:
            yield from (unit | self._embedding(u) for u, unit in enumerate(units))
        for task in one.tasks:
            for u, unit in enumerate(units):
                reason = self._reason(Abstained(task.why[u]))
                yield unit | task_columns(task, u, self.recording.sample_rate) | {"reason": reason}

    def _embedding(self, u: int) -> Row:
        windows = 0 if self.latest is None else int(self.latest.predictions.windows[u])
        mean = self.latest.mean[u] if self.latest is not None and windows else ()
        reason = "the bundle has no readouts" if windows else self._reason(Abstained.NO_DATA)
        row: Row = {"task": "", "windows": windows, "reason": reason}
        return row | {f"e_{d}": float(value) for d, value in enumerate(mean)}

    def _reason(self, why: Abstained) -> str:
        return self._note or REASONS[why]


def _table(temporary: Path, path: Path, columns: Sequence[str], stack: ExitStack) -> CsvTable | ParquetTable:
    table = TABLES[path.suffix](temporary, columns)
    stack.callback(table.close)
    return table


def _times(recording: Recorded, every_s: float | None) -> Iterator[Fraction]:
    """Yield the multiples of `every_s` up to the end of the recording, exactly."""
    if every_s is None:
        return
    try:
        step = rational(every_s)
    except ValueError as error:
        raise RecordingError(f"--every: {error}; it is a positive number of seconds") from error
    for k in range(1, int(recording.num_samples / recording.sample_rate / step) + 1):
        yield k * step
