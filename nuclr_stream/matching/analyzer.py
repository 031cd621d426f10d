"""Templates of a SortingAnalyzer of SpikeInterface, saved as a binary folder, read without SpikeInterface.

Its recording must have been filtered as live samples will be: high-pass or band-pass, and a common reference. What was
done stands in the provenance that SpikeInterface keeps, recording.json; where that is missing, or is a pickle, a
high-pass of 300 Hz and a common median are assumed and noted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclr_stream.errors import RecordingError
from nuclr_stream.matching.templates import Filtering, Templates
from nuclr_stream.windows.binning import rational

INFO = "spikeinterface_info.json"
AVERAGE = "extensions/templates/average.npy"
NOISE = "extensions/noise_levels/noise_levels.npy"
SPIKEGLX_CHANNEL = re.compile(r"AP(\d+)$")
DEFAULT_ORDER = 5
"""Of SpikeInterface's Butterworth filters, which run forward and backward."""


def read_analyzer(folder: Path) -> Templates:
    """Read a folder. Raises RecordingError naming file, field, value and remedy."""
    notes: list[str] = []
    attributes = _json(folder, "recording_info/recording_attributes.json")
    units = _json(folder, "sorting/numpysorting_info.json")
    params = _json(folder, "extensions/templates/params.json")
    settings = _json(folder, "settings.json")
    average = _array(folder, AVERAGE, 'analyzer.compute(["random_spikes", "noise_levels", "templates"])')
    rate = rational(attributes["sampling_frequency"])
    channel_ids = [str(channel) for channel in attributes["channel_ids"]]
    positions, shanks = _probe(folder, len(channel_ids))
    in_uv = bool(settings.get("return_in_uV", settings.get("return_scaled", True)))
    noise = folder / NOISE
    return Templates(
        source=folder.name,
        unit_ids=tuple(str(unit) for unit in units["unit_ids"]),
        waveforms=average.astype(np.float32),
        trough=int(params["ms_before"] * float(rate) / 1000.0),
        sample_rate=rate,
        positions_um=positions,
        shanks=shanks,
        channels=_channels(folder, channel_ids, notes),
        unit_of_samples="uV" if in_uv else "raw",
        noise=np.load(noise, allow_pickle=False).astype(np.float32) if noise.is_file() else None,
        filtering=_filtering(folder, notes),
        notes=tuple(notes),
    )


def _filtering(folder: Path, notes: list[str]) -> Filtering:
    """Return what the provenance of the recording says of filters and references, outermost first."""
    path = folder / "recording.json"
    steps = list(_steps(_json(folder, "recording.json"))) if path.is_file() else []
    highpass = order = None
    reference = False
    for name, arguments in steps:
        if name in ("HighpassFilterRecording", "BandpassFilterRecording") and highpass is None:
            highpass, order = arguments.get("freq_min", 300.0), arguments.get("filter_order", DEFAULT_ORDER)
        elif name == "FilterRecording" and highpass is None:
            band = arguments.get("band", 300.0)
            highpass = band[0] if isinstance(band, list) else band
            order = arguments.get("filter_order", DEFAULT_ORDER)
        reference |= name == "CommonReferenceRecording"
    if highpass is None:
        notes.append(
            f"{folder.name}: its provenance names no filter; a high-pass of 300 Hz and a common median are assumed "
            "(--highpass-hz and --no-reference say otherwise)"
        )
        return Filtering(highpass_hz=300.0, order=DEFAULT_ORDER, reference=True)
    return Filtering(highpass_hz=float(highpass), order=int(order or DEFAULT_ORDER), reference=reference)


def _steps(provenance: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the class and the arguments of every step of a recording, the last one first."""
    while isinstance(provenance, dict) and "class" in provenance:
        arguments = provenance.get("kwargs", {})
        yield str(provenance["class"]).rsplit(".", 1)[-1], arguments
        provenance = arguments.get("recording", arguments.get("parent_recording"))


def _probe(folder: Path, channels: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return positions (C, 2) and shanks (C,) in the order of the recording's channels."""
    name = "recording_info/probegroup.json"
    probes = _json(folder, name)["probes"]
    if len(probes) != 1:
        raise RecordingError(f"{folder.name}/{name}: {len(probes)} probes; make an analyzer of each: one is one stream")
    positions = np.array(probes[0]["contact_positions"], dtype=np.float32)
    order = np.argsort(probes[0].get("device_channel_indices") or np.arange(len(positions)), kind="stable")
    labels = probes[0].get("shank_ids") or [""] * len(positions)
    shanks = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)[1].astype(np.int32)
    if len(positions) != channels:
        raise RecordingError(
            f"{folder.name}/{name}: {len(positions)} contacts for {channels} channels; make the analyzer again"
        )
    return positions[order][:, :2], shanks[order]


def _channels(folder: Path, channel_ids: list[str], notes: list[str]) -> npt.NDArray[np.int32]:
    """Return the channel of the acquisition (C,) that each of the recording's is."""
    found = [SPIKEGLX_CHANNEL.search(channel) for channel in channel_ids]
    if all(found):
        return np.array([int(match.group(1)) for match in found if match], dtype=np.int32)
    notes.append(
        f"{folder.name}: channel ids such as {channel_ids[0]} name no channel of the acquisition; its first "
        f"{len(channel_ids)} channels are taken, in order"
    )
    return np.arange(len(channel_ids), dtype=np.int32)


def _json(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordingError(
            f"{folder.name}/{name}: no such file; make the analyzer with format='binary_folder' and compute "
            '["random_spikes", "noise_levels", "templates"]'
        ) from error
    except ValueError as error:
        raise RecordingError(f"{folder.name}/{name}: no valid JSON ({error}); make the analyzer again") from error


def _array(folder: Path, name: str, remedy: str) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = np.load(folder / name, allow_pickle=False)
    except FileNotFoundError as error:
        raise RecordingError(f"{folder.name}/{name}: no such file; {remedy}") from error
    return values
