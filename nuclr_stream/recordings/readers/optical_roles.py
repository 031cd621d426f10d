"""What a RoiResponseSeries of an NWB file holds, by its own name, then its container's, and which series belong
together.

Writers share no layout: suite2p names every series like its plane or like its container, neuroconv puts raw, neuropil,
deconvolved and denoised traces of one plane into one Fluorescence container. One imaged population is one recording,
made of the best of its series: dF/F as it is; else raw fluorescence with its surround; else fluorescence that is
already corrected for it, raw fluorescence alone, or denoised traces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nuclr_stream.errors import RecordingError

if TYPE_CHECKING:
    import h5py

Role = Literal["dff", "raw", "corrected", "neuropil", "deconvolved", "denoised", "baseline"]

_ROLES: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("dff", re.compile(r"d(elta)?[\W_]*f[\W_]*(over|of|by)?[\W_]*f", re.IGNORECASE)),
    ("corrected", re.compile(r"correct|subtract", re.IGNORECASE)),
    ("deconvolved", re.compile(r"deconv|spks|spike|inferred|event|_s$", re.IGNORECASE)),
    ("neuropil", re.compile(r"neuropil|fneu|surround|background|(^|_)np($|_)", re.IGNORECASE)),
    ("denoised", re.compile(r"denois", re.IGNORECASE)),
    ("baseline", re.compile(r"baseline|^f0$", re.IGNORECASE)),
)
_WORDS = re.compile(
    r"roi[\W_]*response[\W_]*series|d(elta)?[\W_]*f[\W_]*(over|of|by)?[\W_]*f|neuropil|deconvol(ved|ution)|denoised|baseline|"
    r"fluorescence|background|surround|corrected|subtracted|fneu|spks|spikes|traces?|signals?|series|raw|^f$|^f0$",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"(chan(nel)?|ch)[\W_]*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Optical:
    """One series: what it holds, the table of its ROIs, and what is left of its name without its role (its plane)."""

    group: h5py.Group
    role: Role
    table: str
    plane: str


@dataclass(frozen=True)
class Population:
    """The series that a recording is made of, and its surround, if it was measured; `name` tells it from others."""

    name: str
    cells: Optical
    neuropil: Optical | None


def populations(file: h5py.File, where: str, notes: list[str]) -> list[Population]:
    """Every imaged population of a file. Raises RecordingError, naming what there is, where none has fluorescence."""
    series = _series(file)
    cells = _best_of_each(series, where, notes)
    if not cells:
        held = ", ".join(f"{each.group.name} ({each.role})" for each in series) or "nothing"
        raise RecordingError(
            f"{where}: holds no RoiResponseSeries of fluorescence or dF/F, only {held}; write the traces of the cells "
            "into a Fluorescence or DfOverF container"
        )
    names = [each.plane or each.table.rsplit("/", 1)[-1] for each in cells]
    if len(set(names)) < len(names):
        names = [f"{each.table.rsplit('/', 1)[-1]}_{name}" for each, name in zip(cells, names, strict=True)]
    return [
        Population(name, each, _surround(each, series, alone=sum(other.table == each.table for other in cells) == 1))
        for name, each in zip(names, cells, strict=True)
    ]


def _series(file: h5py.File) -> list[Optical]:
    found: list[Optical] = []

    def visit(_name: str, item: h5py.HLObject) -> None:
        if item.attrs.get("neurodata_type") != "RoiResponseSeries" or "rois" not in item:
            return
        own, holder = (each.name.rsplit("/", 1)[-1] for each in (item, item.parent))
        table = file[item["rois"].attrs["table"]].name
        plane = _WORDS.sub("", own).strip("_- .")
        found.append(Optical(item, _role(own, holder, item.parent.attrs.get("neurodata_type", "")), table, plane))

    file.visititems(visit)
    return found


def _role(own: str, holder: str, kind: str) -> Role:
    """The role that the series' own name says, else its container's name, else its container's type."""
    for name in (own, holder):
        for role, pattern in _ROLES:
            if pattern.search(name):
                return role
    return "dff" if kind == "DfOverF" else "raw"


def _best_of_each(series: list[Optical], where: str, notes: list[str]) -> list[Optical]:
    """The series of cells to read, one a population; those that are passed over are noted where nobody would guess."""
    chosen: dict[tuple[str, str], Optical] = {}
    for table in dict.fromkeys(each.table for each in series):
        mine = [each for each in series if each.table == table]
        surround = any(each.role == "neuropil" for each in mine)
        order: list[Role] = (
            ["dff", "raw", "corrected", "denoised"] if surround else ["dff", "corrected", "raw", "denoised"]
        )
        best = next((role for role in order if any(each.role == role for each in mine)), None)
        for each in mine:
            if each.role != best:
                continue
            key = (table, _CHANNEL.sub("", each.plane).strip("_- ."))
            other = chosen.setdefault(key, each)
            if other is not each:
                notes.append(f"{where}: {each.group.name}: passed over, for {other.group.name} holds the same cells")
    return list(chosen.values())


def _surround(cells: Optical, series: list[Optical], *, alone: bool) -> Optical | None:
    """The neuropil of a series of raw fluorescence: that of its plane, or the only one of its ROIs."""
    if cells.role != "raw":
        return None
    found = [each for each in series if each.role == "neuropil"]
    of_table = [each for each in found if each.table == cells.table]
    of_plane = [each for each in of_table if each.plane == cells.plane]
    return next(iter(of_plane or (of_table if alone and len(of_table) == 1 else [])), None)
