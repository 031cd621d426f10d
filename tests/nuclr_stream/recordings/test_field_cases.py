"""Files rebuilt from public bug reports, each with its right outcome: read, with a note where need be, or rejected."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers import AnyRecording, open_recordings
from nuclr_stream.recordings.recording import Recording

pytestmark = pytest.mark.filterwarnings("ignore:.*positional arguments:FutureWarning")
BUILD = Path(__file__).parents[4] / "shared" / "data" / "field_cases" / "build.py"

READ = {
    "phy_ks4_negative_times": ([16], r"spike_times\.npy: 4 of 5769 spikes lie before sample 0"),
    "nwb_times_are_ms": ([16], "taken as milliseconds"),
    "nwb_unix_epoch": ([16], "seconds since 1970"),
    "nwb_starts_late": ([16], ""),
    "nwb_tetrodes_one_device_each": ([48], "--population-by electrode_group"),
    "nwb_allen_like": ([16, 16], ""),
    "nwb_two_devices_acquisition": ([16, 16], "taken as probes of their own"),
    "ophys_one_container": ([16], ""),
    "ophys_neuropil_own_name": ([16], ""),
    "ophys_rejected_rois": ([12], ""),
    "phy_group_csv": ([16], ""),
    "nwb_units_in_processing": ([16], "read from /processing/ecephys/units"),
    "nwb_obs_per_unit": ([16], "observed for only part of the recording"),
    "nwb_spikes_outside_obs": ([16], "not heeded, for 2873 of 5769 spikes"),
    "nwb_location_in_units": ([16], "taken from the column location"),
    "suite2p_negative_roi": ([15], "the first is ROI roi5: left out"),
    "ophys_dff_nan": ([15], "the first is ROI 3: left out"),
    "suite2p_iscell_one_column": ([16], "one value a ROI"),
    "phy_windows_path": ([16], "a Windows path needs an r"),
    "phy_foreign_tsv": ([16], r"cluster_metrics\.tsv: passed over"),
    "phy_info_blank_ids": ([15], "1 of 18 rows .* line 18"),
    "phy_pandas_index": ([16], ""),
    "torch_brain_negative_domain": ([16], "time counts from -1 s"),
    "phy_column_vector_uint64": ([16], ""),
    "phy_merged_without_kslabel": ([15], ""),
    "phy_sparse_minus_one": ([16], ""),
    "phy_duplicate_spikes": ([16], "364 spikes of 1 units"),
    "nwb_peak_channel_and_electrodes": ([16, 16], ""),
    "nwb_obs_overlap": ([16], ""),
    "ophys_same_series_name": ([16], ""),
    "torch_brain_starts_late": ([16], ""),
}
"""Units of every recording, and what a note says, if there is anything to note."""

REJECTED = {
    "nwb_times_are_samples": r"look like sample numbers \(at 30000 Hz .* 6\.04 Hz\): divide them by the sample rate",
    "nwb_trials_concatenated": "in 16 of 16 units: times start over",
}


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The script that writes the cases."""
    if not BUILD.is_file():
        pytest.skip("the field cases are not on this machine (../shared/data/field_cases)")
    spec = importlib.util.spec_from_file_location("field_cases", BUILD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(build: ModuleType, case: str, out: Path) -> Path:
    """The folder of a case."""
    (out / case).mkdir()
    getattr(build, f"case_{case}")(out / case)
    return out / case


def recorded_s(found: AnyRecording) -> float:
    """Seconds that were recorded."""
    gaps = found.gap_samples
    return float((found.num_samples - (gaps[:, 1] - gaps[:, 0]).sum()) / found.sample_rate)


@pytest.mark.parametrize("case", READ)
def test_it_is_read_with_all_that_can_be_used(build: ModuleType, tmp_path: Path, case: str) -> None:
    units, note = READ[case]
    found = open_recordings(made(build, case, tmp_path))
    assert [len(each.unit_ids) for each in found] == units
    assert all(any(re.search(note, line) for line in each.notes) for each in found if note), found[0].notes
    for each in found:
        if isinstance(each, Recording):
            assert 59 < recorded_s(each) < 60.1, "what was not recorded is no silence"
            assert len(each.spike_samples) > 2900


@pytest.mark.parametrize("case", REJECTED)
def test_it_is_rejected_by_its_cause(build: ModuleType, tmp_path: Path, case: str) -> None:
    with pytest.raises(RecordingError, match=REJECTED[case]):
        open_recordings(made(build, case, tmp_path))


def test_every_case_is_judged(build: ModuleType) -> None:
    assert {name[5:] for name in vars(build) if name.startswith("case_")} == {*READ, *REJECTED}


@pytest.mark.parametrize("case", ["ophys_one_container", "ophys_neuropil_own_name"])
def test_one_session_has_one_result_however_its_series_are_named(build: ModuleType, tmp_path: Path, case: str) -> None:
    (expected,) = open_recordings(made(build, "ophys_same_series_name", tmp_path))
    (found,) = open_recordings(made(build, case, tmp_path))
    assert np.array_equal(found.traces, expected.traces)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("case", "column", "values"),
    [
        ("phy_group_csv", "group", ["noise"] * 4 + ["good"] * 12),
        ("phy_pandas_index", "bc_unitType", ["good"] * 16),
        ("nwb_location_in_units", "brain_region", ["CA1"] * 8 + ["CA3"] * 8),
        ("nwb_allen_like", "brain_region", ["CA1"] * 8 + ["VISp"] * 8),
        ("phy_sparse_minus_one", "depth_um", [40.0 * unit % 640 for unit in range(16)]),
    ],
)
def test_its_columns_are_heeded(build: ModuleType, tmp_path: Path, case: str, column: str, values: list) -> None:
    assert open_recordings(made(build, case, tmp_path))[0].units[column].tolist() == values
