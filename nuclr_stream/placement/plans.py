"""Planned trajectories and histology as other tools write them, read as regions from the tip up.

| file | recognised by |
|---|---|
| our own CSV | columns region, from_um, to_um |
| a CSV of channels or sites, a row each | a column of SITE_REGIONS and one of SITE_DEPTHS |
| a CSV of trajectory areas (AP_histology), a row each | columns trajectory_depth_1, trajectory_depth_2 |
| IBL's channel_locations.json | channel_0, channel_1, ... with axial and brain_region |
| Pinpoint's text for SpikeGLX | [probe,shank](from,to,R,G,B,region)... |

Depths are micrometres from the tip; only those of trajectory areas count from where the probe enters the brain, and
`tip_um` says how deep the tip is.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nuclr_stream.errors import PlacementError
from nuclr_stream.placement.trajectory import Planned, ordered_plan

SITE_REGIONS = ("brain_region", "acronym", "structure_acronym", "region", "area")
SITE_DEPTHS = ("axial_um", "axial", "depth_um", "rel_y", "y_um")
OUTSIDE = ("", "-", "void", "root", "unknown", "none", "nan")
"""What stands for no region: such stretches are left open in the plan."""
COLUMNS = (
    "the columns are region, from_um, to_um with depths from the tip; or a row a channel with "
    f"{' or '.join(SITE_REGIONS)} and {' or '.join(SITE_DEPTHS)}"
)
_PINPOINT = re.compile(r"\(([-+.\d]+),([-+.\d]+),\d+,\d+,\d+,([^()]*)\)")
Row = Mapping[str, Any]


def read_plan(path: Path, *, tip_um: float | None = None) -> tuple[Planned, ...]:
    """Return the regions of a file from the tip up; `tip_um` is how deep the tip is, for depths from the surface.

    Raises PlacementError naming file, line and remedy, or what is impossible about the plan.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PlacementError(f"{path}: not a readable CSV, JSON or text file ({error})") from error
    if text.lstrip().startswith("{"):
        plan = _sites(_ibl_channels(text, path), path)
    elif text.lstrip().startswith("["):
        plan = _pinpoint(text, path)
    else:
        return ordered_plan(_table(text, path, tip_um))
    if tip_um is not None:
        raise PlacementError(f"{path.name}: its depths are from the tip already; leave tip_um out")
    return ordered_plan(plan)


def _table(text: str, path: Path, tip_um: float | None) -> list[Planned]:
    """The regions of a CSV file, by the columns that it has."""
    try:
        reader = csv.DictReader(text.splitlines())
        names, rows = set(reader.fieldnames or ()), list(enumerate(reader, start=2))
    except csv.Error as error:
        raise PlacementError(f"{path}: not a readable CSV file ({error})") from error
    from_surface = {"trajectory_depth_1", "trajectory_depth_2"} <= names
    if from_surface != (tip_um is not None):
        what = "are from where the probe enters; say how deep the tip is" if from_surface else "are from the tip"
        remedy = "--tip-um 3800, say" if from_surface else "leave --tip-um out"
        raise PlacementError(f"{path.name}: its depths {what}: {remedy}")
    region = next((name for name in SITE_REGIONS if name in names), "")
    if tip_um is not None:
        cells = ("trajectory_depth_2", "trajectory_depth_1", region)
        return _stretches(rows, cells, path, lambda depth_um: tip_um - depth_um)
    depth = next((name for name in SITE_DEPTHS if name in names), "")
    if region and depth and not {"from_um", "to_um"} & names:
        return _sites(rows, path, region=region, depth=depth)
    return _stretches(rows, ("from_um", "to_um", "region"), path, float)


def _stretches(
    rows: Sequence[tuple[int, Row]], cells: tuple[str, str, str], path: Path, from_tip: Any
) -> list[Planned]:
    """A region a row."""
    low, high, region = cells
    plan = []
    for line, row in rows:
        try:
            name = str(row[region]).strip()
            begin, end = from_tip(float(row[low])), from_tip(float(row[high]))
        except (KeyError, TypeError, ValueError) as error:
            raise PlacementError(f"{path.name}: line {line}: {dict(row)}; {COLUMNS}") from error
        if name.lower() not in OUTSIDE:
            plan.append(Planned(name, begin, end))
    return plan


def _sites(
    rows: Sequence[tuple[int, Row]], path: Path, *, region: str = "brain_region", depth: str = "axial"
) -> list[Planned]:
    """Channels or sites, a row each, as stretches of one region; borders lie half-way between two sites."""
    places: dict[float, str] = {}
    for line, row in rows:
        try:
            at_um, name = float(row[depth]), str(row[region]).strip()
        except (KeyError, TypeError, ValueError) as error:
            raise PlacementError(f"{path.name}: line {line}: {dict(row)}: no {depth} or {region}") from error
        if not np.isfinite(at_um):
            raise PlacementError(f"{path.name}: line {line}: {depth} is {row[depth]}; give micrometres from the tip")
        if places.setdefault(at_um, name) != name:
            raise PlacementError(
                f"{path.name}: line {line}: {name} and {places[at_um]} at one depth of {at_um:g} um; "
                "write a file for each shank"
            )
    depths = sorted(places)
    if len(depths) < 2:
        raise PlacementError(f"{path.name}: {len(depths)} depths with a region; a plan needs two at least")
    middles = [(low + high) / 2 for low, high in pairwise(depths)]
    edges = [2 * depths[0] - middles[0], *middles, 2 * depths[-1] - middles[-1]]
    plan: list[Planned] = []
    for at_um, low, high in zip(depths, edges[:-1], edges[1:], strict=True):
        name = places[at_um]
        if plan and plan[-1].region == name and plan[-1].to_um == low:
            plan[-1] = Planned(name, plan[-1].from_um, high)
        elif name.lower() not in OUTSIDE:
            plan.append(Planned(name, low, high))
    return plan


def _ibl_channels(text: str, path: Path) -> list[tuple[int, Row]]:
    """The channels of IBL's channel_locations.json; the entry about the origin is none."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise PlacementError(f"{path.name}: not JSON ({error})") from error
    channels = [value for name, value in document.items() if name.startswith("channel_")]
    if not channels or not all(isinstance(value, dict) for value in channels):
        raise PlacementError(f"{path.name}: no channel_0, channel_1, ...; give IBL's channel_locations.json")
    return list(enumerate(channels, start=1))


def _pinpoint(text: str, path: Path) -> list[Planned]:
    """The regions of one shank as Pinpoint sends them to SpikeGLX."""
    if text.count("[") != 1:
        raise PlacementError(f"{path.name}: holds {text.count('[')} shanks; keep the line of one")
    plan = [
        Planned(name.strip(), float(low), float(high))
        for low, high, name in _PINPOINT.findall(text)
        if name.strip().lower() not in OUTSIDE
    ]
    if not plan:
        raise PlacementError(f"{path.name}: no region; it is [probe,shank](from_um,to_um,R,G,B,region)...")
    return plan
