"""How every command of `nuclr-train` reads recordings: by the rules of its config."""

from __future__ import annotations

from pathlib import Path

import typer

from nuclr_stream.recordings.readers import AnyRecording
from offline_training.config import TrainConfig
from offline_training.data.membership import load_selected, recordings_of

HELP = "Recordings: .npz, .nwb, torch_brain .h5, a Kilosort/phy folder, or a folder of any of these."


def load_recordings(path: Path, config: TrainConfig) -> list[AnyRecording]:
    """Read the recordings at `path` and leave out the units that `[recordings]` of the config rejects, saying so.

    What the readers left out and guessed is printed on stderr too.
    """
    selected = load_selected(path, config.recordings)
    for note in dict.fromkeys(note for recording in recordings_of(selected) for note in recording.notes):
        typer.echo(note, err=True)
    for each in selected:
        if each.left_out:
            typer.echo(str(each), err=True)
    return recordings_of(selected)
