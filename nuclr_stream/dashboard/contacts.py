"""Contacts of a probe, from a probeinterface file: where units could be, drawn behind where they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import ConfigError

_IN_UM = {"um": 1.0, "mm": 1e3, "m": 1e6}
MAX_CONTACTS = 20_000


@dataclass(frozen=True)
class Contacts:
    """Of every contact `shank` (K,) int32, `x_um` and `depth_um` (K,) float32, as the file has them.

    y of the file is taken for depth: it must be the axis of the units' depths, which is so for the files of Neuropixels
    probes and Kilosort's positions. The page moves nothing to make them fit.
    """

    shank: npt.NDArray[np.int32]
    x_um: npt.NDArray[np.float32]
    depth_um: npt.NDArray[np.float32]


def read_contacts(path: Path) -> Contacts:
    """Return the contacts of a probeinterface JSON file with one probe; shanks without numbers are unknown (-1).

    Raises ConfigError naming the file and what is wrong with it.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        probes = document["probes"]
        if len(probes) != 1:
            raise ConfigError(f"--probe {path}: holds {len(probes)} probes; a stream is one probe, give one file each")
        return _contacts(probes[0])
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        cause = f"{type(error).__name__}: {error}"
        remedy = "write one with probeinterface.write_probeinterface"
        raise ConfigError(f"--probe {path}: not a probeinterface file ({cause}); {remedy}") from error


def _contacts(probe: dict[str, Any]) -> Contacts:
    scale = _IN_UM[probe.get("si_units", "um")]
    positions = np.array(probe["contact_positions"], dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] not in (2, 3) or len(positions) > MAX_CONTACTS:
        raise ValueError(f"contact_positions of shape {positions.shape}")
    names = [str(name) for name in probe.get("shank_ids") or [""] * len(positions)]
    if len(names) != len(positions):
        raise ValueError(f"{len(names)} shank_ids of {len(positions)} contacts")
    # ids of shanks are texts; where they are no numbers nothing says which shank of the units they are
    shank = np.array([int(name) if name.isdigit() else -1 for name in names], dtype=np.int32)
    x_um, depth_um = (positions[:, axis] * scale for axis in (0, 1))
    return Contacts(shank, x_um.astype(np.float32), depth_um.astype(np.float32))
