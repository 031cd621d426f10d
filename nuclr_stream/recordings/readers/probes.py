"""Which electrode groups of an NWB file are one probe: by their devices, places, names and sizes.

A Device stands for a probe, but also for the acquisition system that several probes are plugged into, or for one
tetrode of a drive. What is at one place of its own coordinates as another, or is named as a probe, is a probe;
tetrodes, whose units are few and recorded together, are one population.
Shape letter: E electrodes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

StrArray = npt.NDArray[np.str_]
Columns = dict[str, npt.NDArray[Any]]
PLACES = (("rel_x", "rel_y"), ("probe_horizontal_position", "probe_vertical_position"))

BUNDLE = 8
"""A probe of at most so many electrodes is a tetrode or the like where there are several of them."""
TETRODES = "tetrodes"

_ACQUISITION = re.compile(
    r"open.?ephys|spike.?glx|intan|rhd|blackrock|cerebus|neuralynx|cheetah|digital.?lynx|plexon|omniplex|tdt|tucker|trodes|"
    r"spike.?gadgets|acquisition|recording.?(system|device|controller)|\bdaq|amplifier|whisper|axona|ripple|grapevine|"
    r"alpha.?omega|white.?matter",
    re.IGNORECASE,
)
_PROBE = re.compile(r"probe|imec|npx|neuropixel|array|implant", re.IGNORECASE)
_SHANK = re.compile(r"[_\-\s.]*(shank|group|grp|shk)[_\-\s.]*(\d*|[a-z])$|(^|[_\-\s.])s[_\-\s.]?\d+$", re.IGNORECASE)


def probes_of_groups(
    device_of: Mapping[str, str], group_of: StrArray, columns: Columns, *, field: str, notes: list[str]
) -> dict[str, str]:
    """Return the probe of every electrode group.

    Args:
        device_of: Name of every group's device, "" where it has none.
        group_of: Group of every electrode (E,).
        columns: Columns of the electrodes table (E,).
        field: Where they stand, for notes.
        notes: What was guessed; lines are added.
    """
    probe_of: dict[str, str] = {}
    for device in dict.fromkeys(device_of.values()):
        groups = [name for name in device_of if device_of[name] == device]
        used = [name for name in groups if (group_of == name).any()] or groups
        stems = {name: _SHANK.sub("", name) for name in groups}
        if not device or (len(used) > 1 and _overlap(used, group_of, columns)):
            probe_of |= {name: name for name in groups}
        elif _named_apart(device, [stems[name] for name in used]):
            probe_of |= {name: stems[name] or name for name in groups}
            notes.append(
                f"{field}: device {device} holds the groups {', '.join(used[:4])}: taken as probes of their own, not "
                "as "
                "shanks of one"
            )
        else:
            probe_of |= dict.fromkeys(groups, device)
    return _tetrodes_together(probe_of, group_of, field=field, notes=notes)


def _named_apart(device: str, stems: Sequence[str]) -> bool:
    """Whether the names of a device's groups, without their shanks, are those of several probes."""
    if len(set(stems)) < 2:
        return False
    return bool(_ACQUISITION.search(device)) or all(_PROBE.search(stem) for stem in stems)


def _overlap(groups: Sequence[str], group_of: StrArray, columns: Columns) -> bool:
    """Whether electrodes of different groups lie at one place; places that repeat within a group say nothing."""
    across, along = next(((x, y) for x, y in PLACES if x in columns and y in columns), ("", ""))
    if not across or columns[across].dtype.kind not in "iuf" or columns[along].dtype.kind not in "iuf":
        return False
    seen: set[tuple[float, float]] = set()
    for name in groups:
        mine = np.stack([columns[across][group_of == name], columns[along][group_of == name]], axis=1)
        known = mine[np.isfinite(mine.astype(np.float64)).all(axis=1)]
        places = {(float(x), float(y)) for x, y in known}
        if len(places) < len(known):
            return False
        if places & seen:
            return True
        seen |= places
    return False


def _tetrodes_together(probe_of: dict[str, str], group_of: StrArray, *, field: str, notes: list[str]) -> dict[str, str]:
    """The probes with all tetrodes as one of them."""
    sizes = Counter(probe_of[name] for name in group_of.tolist() if name in probe_of)
    small = [probe for probe in dict.fromkeys(probe_of.values()) if 0 < sizes[probe] <= BUNDLE]
    if len(small) < 2 or (len(small) < 4 and max(sizes[probe] for probe in small) > 4):
        return probe_of
    notes.append(
        f"{field}: {len(small)} groups or devices of at most {max(sizes[probe] for probe in small)} electrodes, the "
        "first is "
        f"{small[0]}, are taken together as the tetrodes of one population; --population-by electrode_group parts them"
    )
    return {name: TETRODES if probe in small else probe for name, probe in probe_of.items()}
