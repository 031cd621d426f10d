"""What one public archive is, and what its readers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.recordings.recording import Recording

Balance = Literal["weights", "oversampling"]


class ArchiveError(NuclrStreamError):
    """An archive is not laid out as documented, or holds nothing that can be used."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One experiment: where its data are, which config, which units are labelled for which task, and who is held out.

    `tasks` is the `[tasks]` section of a config. `held_out` are the animals of the published inductive setting; when
    there are none named, "labelled" means every animal with a label (the readout is then fitted on the other ones of
    them) and "ask" that the user has to name them. `figshare` is the article that can be downloaded, 0 for none, and
    `source` says in words where the data are.
    """

    name: str
    source: str
    config: Path
    tasks: dict[str, Any]
    balance: Balance
    read: Callable[[Path], Sequence[AnyRecording]]
    held_out: tuple[str, ...] | Literal["labelled", "ask"]
    figshare: int = 0


def load_array(path: Path) -> npt.NDArray[Any]:
    """An .npy file, columns (N, 1) as (N,). Raises ArchiveError naming the file."""
    try:
        values: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArchiveError(f"{path}: not readable as .npy ({error}); download it again") from error
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def ending_at(recording: Recording, seconds: float) -> Recording:
    """The recording up to so many seconds. Raises ArchiveError when nothing is left."""
    stop = min(recording.num_samples, int(seconds * recording.sample_rate))
    if stop <= 0:
        raise ArchiveError(f"{recording.recording_id}: nothing is left of it before {seconds:.0f} s; leave it out")
    kept = recording.spike_samples < stop
    return replace(
        recording,
        num_samples=stop,
        spike_samples=recording.spike_samples[kept],
        spike_units=recording.spike_units[kept],
        gap_samples=_before(recording.gap_samples, stop),
        mask_samples=_before(recording.mask_samples, stop),
    )


def _before(stretches: npt.NDArray[np.int64], stop: int) -> npt.NDArray[np.int64]:
    cut: npt.NDArray[np.int64] = np.minimum(stretches[stretches[:, 0] < stop], stop)
    return cut
