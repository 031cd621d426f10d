"""Kilosort and phy folders: spike samples, clusters, their tables and templates. params.py is parsed, never executed.

Units are the clusters that have spikes, after curation where there was one (spike_clusters.npy, else
spike_templates.npy). Every column of `cluster_info.tsv` and of the `cluster_<column>.tsv` beside it is a column of the
unit table under its own name (`group`, `KSLabel`, `ContamPct`, ...); so labels of your own go into a
`cluster_brain_region.tsv`. A unit's place is the channel on which its commonest template is largest.

Such folders do not say whose they are: a file `recording.toml` in them may, with any of `recording_id`, `subject_id`
and `session_date`. Without it the recording is named after the folder, and its subject is unknown.
"""

from __future__ import annotations

import ast
import csv
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers.trains import Trains, declared_rate, probes_in
from nuclr_stream.recordings.recording import Recording

ABOUT = "recording.toml"
ABOUT_KEYS = ("recording_id", "subject_id", "session_date")
MAX_TEXT_BYTES = 2**24
_SORTERS_NAME = re.compile(r"kilosort.*|ks[\d._]*|sorter_output|phy.*|outputs?|results?|sorting.*", re.IGNORECASE)


def read_phy(folder: Path) -> list[Recording]:
    """Read a folder; units with different `probe` in a cluster table become different recordings.

    Raises RecordingError naming folder, file, field, value and remedy.
    """
    samples = _vector(folder, "spike_times.npy")
    source = "spike_clusters.npy" if (folder / "spike_clusters.npy").is_file() else "spike_templates.npy"
    clusters = _vector(folder, source)
    if clusters.shape != samples.shape:
        raise RecordingError(
            f"{folder.name}/{source}: {len(clusters)} clusters for {len(samples)} spikes of spike_times.npy; "
            "both files must come from one sorting: export it again"
        )
    _check_order(samples, f"{folder.name}/spike_times.npy")
    ids, rows = np.unique(clusters, return_inverse=True)
    columns = _cluster_columns(folder, ids)
    columns |= _places(folder, rows, len(ids))
    if "depth_um" not in columns and "depth" in columns and columns["depth"].dtype.kind in "if":
        columns["depth_um"] = columns["depth"].astype(np.float32)
    about = _about(folder)
    probes = probes_in(columns)
    return Trains(
        where=folder.name,
        session_id=about.get("recording_id") or _folder_id(folder),
        subject_id=about.get("subject_id", ""),
        session_date=about.get("session_date", ""),
        sample_rate=declared_rate(_sample_rate(folder), where=f"{folder.name}/params.py: field sample_rate"),
        samples=samples,
        rows=rows,
        unit_ids=ids.astype(np.str_),
        probes=np.full(len(ids), "") if probes is None else probes,
        columns=columns,
    ).recordings()


def _vector(folder: Path, name: str) -> npt.NDArray[np.int64]:
    values = _array(folder, name)
    flat = values.reshape(-1)
    if values.size != max(values.shape, default=0) or values.dtype.kind not in "iu":
        row = np.flatnonzero(~np.isfinite(flat)) if values.dtype.kind == "f" else np.empty(0)
        nan = f", {flat[row[0]]} at row {row[0]}" if row.size else ""
        raise RecordingError(
            f"{folder.name}/{name}: has type {values.dtype} {values.shape}{nan}; it must be one integer a spike "
            "(samples, not seconds)"
        )
    return flat.astype(np.int64)


def _array(folder: Path, name: str) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise RecordingError(f"{folder.name}/{name}: no such file; export the sorting for phy again") from error
    except (OSError, ValueError, EOFError) as error:
        raise RecordingError(
            f"{folder.name}/{name}: not a whole .npy of plain numbers ({error}); copy it or export the sorting again"
        ) from error
    return values


def _check_order(samples: npt.NDArray[np.int64], where: str) -> None:
    back = np.flatnonzero(np.diff(samples) < 0)
    if back.size:
        row = int(back[0]) + 1
        raise RecordingError(f"{where}: row {row} ({samples[row]}) is before row {row - 1}; sort by time")


def _sample_rate(folder: Path) -> float:
    """`sample_rate` of params.py: a literal number that is assigned at the top level."""
    where = f"{folder.name}/params.py"
    try:
        tree = ast.parse(_text(folder / "params.py", where))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RecordingError(
            f"{where}: not readable as assignments ({error}); write lines like sample_rate = 30000."
        ) from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["sample_rate"]:
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if isinstance(value, (int, float)):
                return float(value)
            raise RecordingError(
                f"{where}: field sample_rate is {ast.unparse(node.value)[:80]!r}; params.py is not executed: "
                "write a number"
            )
    raise RecordingError(f"{where}: field sample_rate is missing; add the line sample_rate = 30000. with your rate")


def _text(path: Path, where: str) -> str:
    if not path.is_file():
        raise RecordingError(f"{where}: no such file; it says the sample rate, write one with sample_rate = 30000.")
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise RecordingError(f"{where}: larger than {MAX_TEXT_BYTES} bytes; this is no such file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordingError(f"{where}: not UTF-8 text ({error}); save it as UTF-8") from error


def _cluster_columns(folder: Path, ids: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """The columns of all cluster tables, one value per cluster with spikes, "" or NaN where a table has no row."""
    columns: dict[str, npt.NDArray[Any]] = {}
    others = sorted(path for path in folder.glob("cluster_*.tsv") if path.name != "cluster_info.tsv")
    for path in [*([folder / "cluster_info.tsv"] if (folder / "cluster_info.tsv").is_file() else []), *others]:
        table = _read_table(path, f"{folder.name}/{path.name}")
        unknown = sorted(set(ids.tolist()) - set(table)) if path.name == "cluster_info.tsv" else []
        if unknown:
            raise RecordingError(
                f"{folder.name}/cluster_info.tsv: cluster {unknown[0]} has spikes in {folder.name} but no row here "
                f"({len(unknown)} such clusters); save in phy again, or remove cluster_info.tsv"
            )
        names = list(dict.fromkeys(name for row in table.values() for name in row))
        for name in names:
            columns[name] = _typed([table.get(cluster, {}).get(name, "") for cluster in ids.tolist()])
    return columns


def _read_table(path: Path, where: str) -> dict[int, dict[str, str]]:
    """Rows by cluster id; a table begins with `cluster_id` (or `id`), and its columns are separated by tabs."""
    lines = list(csv.reader(_text(path, where).splitlines(), delimiter="\t"))
    if not lines or not lines[0] or lines[0][0] not in ("cluster_id", "id"):
        raise RecordingError(f"{where}: begins with {lines[:1]}, not with a header cluster_id<TAB>column; correct it")
    found: dict[int, dict[str, str]] = {}
    for number, cells in enumerate(lines[1:], 2):
        if not cells:
            continue
        if not cells[0].strip().isdecimal() or len(cells) > len(lines[0]):
            raise RecordingError(f"{where}: line {number}: {cells} does not fit the header {lines[0]}; correct it")
        if int(cells[0]) in found:
            raise RecordingError(f"{where}: line {number}: cluster {cells[0]} has two rows; remove one")
        found[int(cells[0])] = dict(zip(lines[0][1:], cells[1:], strict=False))
    return found


def _typed(cells: list[str]) -> npt.NDArray[Any]:
    """Whole numbers, numbers (NaN where a cell is empty), or text, as all cells allow."""
    if all(re.fullmatch(r"[+-]?\d{1,18}", cell) for cell in cells):
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells]) if any(cells) else np.array(cells)
    except ValueError:
        return np.array(cells, dtype=np.str_)


def _places(folder: Path, rows: npt.NDArray[np.integer], units: int) -> dict[str, npt.NDArray[Any]]:
    """`depth_um`, `x_um`, `channel` and `shank` of every cluster where the folder has templates and positions."""
    needed = ("templates.npy", "channel_positions.npy", "spike_templates.npy")
    if not units or not all((folder / name).is_file() for name in needed):
        return {}
    templates, positions = _array(folder, "templates.npy"), _array(folder, "channel_positions.npy")
    used = _vector(folder, "spike_templates.npy")
    if templates.ndim != 3 or positions.ndim != 2 or used.shape != rows.shape or used.max() >= len(templates):
        raise RecordingError(
            f"{folder.name}: templates.npy {templates.shape}, channel_positions.npy {positions.shape} and "
            f"spike_templates.npy {used.shape} (up to {used.max()}) do not belong together; export the sorting again"
        )
    pairs, counts = np.unique(np.stack([rows, used], axis=1), axis=0, return_counts=True)
    peak = np.zeros(units, dtype=np.int64)
    for unit in range(units):
        mine = pairs[:, 0] == unit
        peak[unit] = _peak_channel(folder, templates, int(pairs[mine][counts[mine].argmax(), 1]), len(positions))
    places: dict[str, npt.NDArray[Any]] = {
        "x_um": np.asarray(positions[peak, 0], dtype=np.float32),
        "depth_um": np.asarray(positions[peak, 1], dtype=np.float32),
        "channel": peak.astype(np.int32),
    }
    if (folder / "channel_shanks.npy").is_file():
        places["shank"] = _array(folder, "channel_shanks.npy").reshape(-1)[peak].astype(np.int32)
    return places


def _peak_channel(folder: Path, templates: npt.NDArray[Any], template: int, channels: int) -> int:
    """Channel on which a template (samples, channels) spans most, unwhitened where the folder has the matrix."""
    waveform = np.asarray(templates[template], dtype=np.float64)
    unwhitening = folder / "whitening_mat_inv.npy"
    if unwhitening.is_file() and waveform.shape[1] == channels:
        matrix = _array(folder, unwhitening.name)
        waveform = waveform @ matrix if matrix.shape == (channels, channels) else waveform
    peak = int(np.ptp(waveform, axis=0).argmax())
    sparse = [name for name in ("templates_ind.npy", "template_ind.npy") if (folder / name).is_file()]
    channel = int(_array(folder, sparse[0])[template, peak]) if sparse else peak
    if not 0 <= channel < channels:
        raise RecordingError(
            f"{folder.name}: template {template} is largest on channel {channel}, but channel_positions.npy has "
            f"{channels}; export the sorting again"
        )
    return channel


def _about(folder: Path) -> dict[str, str]:
    """What `recording.toml` says. Raises RecordingError for unknown keys and values that are no text."""
    path, where = folder / ABOUT, f"{folder.name}/{ABOUT}"
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(_text(path, where))
    except tomllib.TOMLDecodeError as error:
        raise RecordingError(f"{where}: not TOML ({error}); correct it") from error
    for key, value in values.items():
        if key not in ABOUT_KEYS or not isinstance(value, str) or not value:
            raise RecordingError(f"{where}: {key} = {value!r}; it may hold the texts {', '.join(ABOUT_KEYS)}")
    return values


def _folder_id(folder: Path) -> str:
    """The folder's name, after those of the folders above as long as a name is one that sorters give."""
    path = folder.resolve()
    names = [path.name]
    while _SORTERS_NAME.fullmatch(path.name) and path.parent.name:
        path = path.parent
        names.insert(0, path.name)
    return "_".join(names)
