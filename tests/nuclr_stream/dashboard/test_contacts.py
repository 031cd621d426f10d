"""Contacts from probeinterface files, as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nuclr_stream.dashboard.contacts import read_contacts
from nuclr_stream.errors import ConfigError


def write(path: Path, *probes: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"specification": "probeinterface", "version": "0.2.21", "probes": probes}))
    return path


def test_shanks_and_positions_are_those_of_the_file(tmp_path: Path) -> None:
    positions = [[0, 20], [250, 0], [32, 40]]
    probe = {"ndim": 2, "si_units": "um", "contact_positions": positions, "shank_ids": ["0", "1", "0"]}
    found = read_contacts(write(tmp_path / "p.json", probe))
    assert (found.shank.tolist(), found.x_um.tolist(), found.depth_um.tolist()) == (
        [0, 1, 0],
        [0, 250, 32],
        [20, 0, 40],
    )


def test_units_of_length_are_heeded_and_shanks_without_numbers_stay_unknown(tmp_path: Path) -> None:
    probe = {"si_units": "mm", "contact_positions": [[0, 0.5]], "shank_ids": ["left"]}
    found = read_contacts(write(tmp_path / "p.json", probe))
    assert (found.depth_um.tolist(), found.shank.tolist()) == ([500], [-1])
    assert read_contacts(write(tmp_path / "q.json", {"contact_positions": [[1, 2]]})).shank.tolist() == [-1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"probes": [{}]}', '{"probes": [{"contact_positions": [[1]]}]}'])
def test_what_is_no_probeinterface_file_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ConfigError, match=r"p\.json: not a probeinterface file"):
        read_contacts(tmp_path / "p.json")


def test_a_file_of_two_probes_is_not_guessed_at(tmp_path: Path) -> None:
    one = {"contact_positions": [[0, 0]]}
    with pytest.raises(ConfigError, match="holds 2 probes"):
        read_contacts(write(tmp_path / "p.json", one, one))
