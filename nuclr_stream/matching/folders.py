"""Templates of a sorting folder, by what it holds: Kilosort 4, or a SortingAnalyzer of SpikeInterface."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nuclr_stream.errors import ConfigError, RecordingError
from nuclr_stream.matching.analyzer import INFO, read_analyzer
from nuclr_stream.matching.kilosort import TEMPLATES, read_kilosort
from nuclr_stream.matching.templates import Filtering, Templates


def read_templates(folder: Path, *, highpass_hz: float | None = None, reference: bool | None = None) -> Templates:
    """Read the templates of a sorting.

    `highpass_hz` and `reference` say how its samples were filtered, in the place of what the folder says or leaves
    open. Raises RecordingError for a folder that is none, ConfigError for a frequency that is none.
    """
    if (folder / INFO).is_file():
        templates = read_analyzer(folder)
    elif (folder / TEMPLATES).is_file():
        templates = read_kilosort(folder)
    elif (folder / ".zgroup").is_file() or (folder / "zarr.json").is_file():
        raise RecordingError(
            f"{folder}: a SortingAnalyzer saved as zarr; save it once more with "
            'analyzer.save_as(format="binary_folder", folder=...)'
        )
    else:
        raise RecordingError(
            f"{folder}: neither {INFO} of a SortingAnalyzer nor {TEMPLATES} of Kilosort 4 is in it; name the folder "
            "that holds one of them"
        )
    filtering = templates.filtering
    if highpass_hz is not None:
        if not 0 < highpass_hz < float(templates.sample_rate) / 2:
            raise ConfigError(f"highpass_hz = {highpass_hz}: give a frequency between 0 and half the sample rate")
        filtering = replace(filtering, highpass_hz=highpass_hz)
    if reference is not None:
        filtering = Filtering(highpass_hz=filtering.highpass_hz, order=filtering.order, reference=reference)
    return replace(templates, filtering=filtering)
