"""Templates of Kilosort 4 and SpikeInterface come back as they were, and a wrong folder names a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nuclr_stream.errors import ConfigError, RecordingError
from nuclr_stream.matching.folders import read_templates
from nuclr_stream.matching.templates import Filtering
from tests.nuclr_stream.matching.made import CHANNELS, NOISE, RATE, TROUGH, positions, templates


@pytest.fixture
def analyzer(tmp_path: Path) -> Path:
    """The files of a SortingAnalyzer that are read, as SpikeInterface 0.105 writes them."""
    highpass = {"class": "a.HighpassFilterRecording", "kwargs": {"freq_min": 400.0, "recording": {"class": "a.Raw"}}}
    files = {
        "spikeinterface_info.json": {"version": "0.105.3", "object": "SortingAnalyzer"},
        "settings.json": {"return_in_uV": True},
        "recording_info/recording_attributes.json": {
            "sampling_frequency": float(RATE),
            "channel_ids": [f"imec0.ap#AP{channel}" for channel in range(10, 10 + CHANNELS)],
        },
        "recording_info/probegroup.json": {
            "probes": [{"contact_positions": positions().tolist(), "device_channel_indices": list(range(CHANNELS))}]
        },
        "recording.json": {"class": "a.CommonReferenceRecording", "kwargs": {"recording": highpass}},
        "sorting/numpysorting_info.json": {"unit_ids": ["a", "b", "c", "d"]},
        "extensions/templates/params.json": {"ms_before": 1000 * TROUGH / RATE, "ms_after": 1.4},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    np.save(tmp_path / "extensions/templates/average.npy", templates().waveforms)
    (tmp_path / "extensions/noise_levels").mkdir()
    np.save(tmp_path / "extensions/noise_levels/noise_levels.npy", np.full(CHANNELS, NOISE))
    return tmp_path


def test_kilosorts_templates_are_taken_back_from_its_whitened_samples(kilosort: Path) -> None:
    found = read_templates(kilosort)
    assert found.unit_ids == ("2", "7")
    true = templates().waveforms
    assert found.waveforms[0] == pytest.approx(true[2], abs=0.01)
    assert found.waveforms[1] == pytest.approx(0.75 * true[0] + 0.25 * true[1], abs=0.01)
    assert (found.trough, found.unit_of_samples, found.channels.tolist()) == (TROUGH, "raw", list(range(5, 21)))
    assert found.noise is not None and found.noise[:-1] == pytest.approx(np.hypot(NOISE, 0.3 * NOISE), rel=1e-3)
    assert any("1 of 3 clusters are marked as noise" in note for note in found.notes)
    assert any("ops.npy" in note for note in found.notes)


def test_an_analyzer_says_how_its_samples_were_filtered(analyzer: Path) -> None:
    found = read_templates(analyzer)
    assert found.filtering == Filtering(highpass_hz=400.0, order=5, reference=True)
    assert (found.trough, found.unit_of_samples, found.unit_ids) == (TROUGH, "uV", ("a", "b", "c", "d"))
    assert found.channels.tolist() == list(range(10, 10 + CHANNELS))
    assert np.array_equal(found.waveforms, templates().waveforms)
    assert not found.notes


def test_what_the_folder_says_of_filters_can_be_overruled(analyzer: Path) -> None:
    (analyzer / "recording.json").unlink()
    assert any("names no filter" in note for note in read_templates(analyzer).notes)
    found = read_templates(analyzer, highpass_hz=250.0, reference=False).filtering
    assert (found.highpass_hz, found.reference) == (250.0, False)
    with pytest.raises(ConfigError, match="highpass_hz = 20000"):
        read_templates(analyzer, highpass_hz=20_000.0)


def test_a_wrong_folder_names_a_remedy(tmp_path: Path, kilosort: Path) -> None:
    (kilosort / "whitening_mat_dat.npy").unlink()
    with pytest.raises(RecordingError, match=r"whitening_mat_dat.npy: no such file; sort with Kilosort 4"):
        read_templates(kilosort)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        RecordingError, match=r"neither spikeinterface_info\.json of a SortingAnalyzer nor templates\.npy"
    ):
        read_templates(empty)
    (empty / ".zgroup").write_text("{}")
    with pytest.raises(RecordingError, match="saved as zarr"):
        read_templates(empty)
