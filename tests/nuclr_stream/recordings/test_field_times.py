"""Times as real files have them: few bad ones, other units, other origins, and what was observed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pynwb.ecephys import ElectricalSeries

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.readers import open_recordings
from nuclr_stream.recordings.recording import Recording, recorded_windows
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from tests.nuclr_stream.recorded_files import add_probe, new_nwb, recording, save_nwb, trains_s, write_torch_brain
from tests.nuclr_stream.recordings.test_readers import same_spikes

WHOLE = recording(0)
REGIONS = ["CA1"] * 12
START_1970_S = 1.7e9

Change = Callable[[int, np.ndarray], np.ndarray]


def nwb(
    path: Path, change: Change, *, observed: list[list[list[float]]] | None = None, starts_s: float | None = None,
    rate: float = 30000.0, seconds: int = 0, invalid: tuple[float, float] | None = None,
) -> Recording:  # fmt: skip
    """An NWB file of WHOLE with its times changed by unit, and the recording that is read from it."""
    file = new_nwb()
    rows = add_probe(file, "imec0", regions=REGIONS)
    if starts_s is not None:
        region = file.create_electrode_table_region(region=rows[:1], description="one")
        data = np.zeros((max(2, int(seconds * rate)), 1), np.int16)
        series = ElectricalSeries(name="ap", data=data, electrodes=region, rate=rate, starting_time=starts_s)
        file.add_acquisition(series)
    if invalid is not None:
        file.add_invalid_time_interval(start_time=invalid[0], stop_time=invalid[1])
    for unit, times in enumerate(trains_s(WHOLE)):
        more = {} if observed is None else {"obs_intervals": observed[unit]}
        file.add_unit(spike_times=change(unit, times), id=3 * unit, electrodes=[rows[unit]], **more)
    (found,) = open_recordings(save_nwb(file, path))
    assert isinstance(found, Recording)
    return found


def noted(found: Recording, pattern: str) -> bool:
    """Whether a note of the recording says so."""
    return any(re.search(pattern, note) for note in found.notes)


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (np.nan, r"units/spike_times: 1 of 1801 spikes have no finite time, the first is row \d+ \(nan\): left out"),
        (-0.002, r"units/spike_times: 1 of 1801 spikes lie before sample 0, .* \(-60\): left out"),
        (1e9, r"units/spike_times: 1 of 1801 spikes lie far from all others, .* \(1e\+09\): left out"),
        (1e20, r"1 of 1801 spikes lie far from all others"),
        (1e308, r"1 of 1801 spikes have no finite time"),
    ],
)
def test_one_bad_time_costs_one_spike_and_is_named(tmp_path: Path, value: float, note: str) -> None:
    found = nwb(tmp_path / "a.nwb", lambda unit, times: np.concatenate([times, [value]]) if unit == 4 else times)
    same_spikes(found, WHOLE)
    assert found.num_samples <= WHOLE.num_samples and noted(found, note), found.notes


def test_one_unit_that_was_merged_without_sorting_is_sorted(tmp_path: Path) -> None:
    def merged(unit: int, times: np.ndarray) -> np.ndarray:
        return np.concatenate([times[1::2], times[::2]]) if unit == 4 else times

    found = nwb(tmp_path / "a.nwb", merged)
    same_spikes(found, WHOLE)
    assert noted(found, r"spikes of 1 of 12 units are not in the order of time")


@pytest.mark.parametrize("trials", [2, 4])
def test_times_that_start_over_in_every_unit_are_rejected_and_not_laid_on_one_another(
    tmp_path: Path, trials: int
) -> None:
    length = 30 / trials

    def aligned(_unit: int, times: np.ndarray) -> np.ndarray:
        return np.concatenate([times[times // length == k] - length * k for k in range(trials)])

    with pytest.raises(RecordingError, match=r"a\.nwb: .* in 12 of 12 units: times start over, .* every trial"):
        nwb(tmp_path / "a.nwb", aligned)


@pytest.mark.parametrize(("factor", "name"), [(1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds")])
def test_a_smaller_unit_than_seconds_is_told_by_what_neurons_can_do(tmp_path: Path, factor: float, name: str) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times * factor)
    same_spikes(found, WHOLE)
    assert noted(found, rf"as seconds, 1800 spikes would last .*; taken as {name}")


def test_whole_milliseconds_are_no_sample_numbers(tmp_path: Path) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: np.rint(times * 1e3))
    assert 29 < found.duration_s < 30.1 and noted(found, "taken as milliseconds")


def test_sample_numbers_are_read_at_the_rate_that_the_file_declares_and_else_named(tmp_path: Path) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: np.rint(times * 20000), starts_s=0.0, rate=20000.0)
    assert found.sample_rate == 20000 and 29 < found.duration_s < 30 and noted(found, "taken as sample numbers")
    with pytest.raises(RecordingError, match=r"look like sample numbers .*: divide them by the sample rate"):
        nwb(tmp_path / "b.nwb", lambda _unit, times: np.rint(times * 30000))


def test_times_divided_by_the_rate_twice_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"the median unit would fire at .* divided by the sample rate twice"):
        nwb(tmp_path / "a.nwb", lambda _unit, times: times / 30000)


@pytest.mark.parametrize("factor", [1.0, 1e3])
@pytest.mark.parametrize("intervals", [True, False])
def test_seconds_since_1970_are_counted_from_the_first_observed_one(
    tmp_path: Path, factor: float, intervals: bool
) -> None:
    end = [[[START_1970_S * factor, (START_1970_S + 30) * factor]]] * 12
    found = nwb(
        tmp_path / "a.nwb",
        lambda _unit, times: (times + START_1970_S) * factor,
        observed=end if intervals else None,
    )
    assert found.num_samples <= 900_001 and not len(found.gap_samples)
    assert len(found.spike_samples) == 1800 and np.abs(found.spike_samples - WHOLE.spike_samples).max() <= 1
    assert noted(found, r"seconds since 1970 \(2023-11-14 22:13:20 UTC.*counts from 1700000000 s")


@pytest.mark.parametrize("starts_s", [3000.0, None])
def test_a_late_start_is_not_recorded_silence(tmp_path: Path, starts_s: float | None) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times + 3000, starts_s=starts_s)
    assert found.gap_samples.tolist() == [[0, 90_000_000]]
    assert noted(found, "the first 3000 s are taken as not recorded") == (starts_s is None)


def test_a_start_hours_after_zero_is_where_time_begins(tmp_path: Path) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times + 36000)
    same_spikes(found, WHOLE)
    assert noted(found, r"times begin 10 h after zero .*; here time counts from 36000 s")


def test_a_series_that_was_cut_short_says_nothing_about_the_beginning(tmp_path: Path) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times + 3000, starts_s=0.0)
    assert found.gap_samples.tolist() == [[0, 90_000_000]]


def test_the_raw_recording_says_how_long_it_was(tmp_path: Path) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times, starts_s=0.0, seconds=40)
    assert found.duration_s == 40 and not len(found.gap_samples)


def test_times_around_an_event_within_the_recording_are_counted_from_the_first(tmp_path: Path) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times - 10)
    same_spikes(found, WHOLE)
    assert noted(found, r"\d+\.\d% of the spikes lie before zero, .*; here time counts from -10 s")


def test_a_domain_that_begins_before_zero_is_read_from_there(tmp_path: Path) -> None:
    early = recording(0, spike_samples=WHOLE.spike_samples)
    path = write_torch_brain(tmp_path / "a.h5", early, domain=[(-1.0, 29.0)])
    import h5py

    with h5py.File(path, "a") as file:
        file["spikes/timestamps"][...] -= 1.0
    (found,) = open_recordings(path)
    assert isinstance(found, Recording)
    same_spikes(found, WHOLE)
    assert found.num_samples == 900_000 and noted(found, "here time counts from -1 s")


def test_a_few_spikes_outside_of_what_was_observed_are_left_out(tmp_path: Path) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times, observed=[[[0.0, 29.5]]] * 12)
    late = int((WHOLE.spike_samples > 29.5 * 30000).sum())
    assert len(found.spike_samples) == 1800 - late
    assert noted(found, rf"obs_intervals: {late} of 1800 spikes lie outside of what was observed of their unit")


def test_an_absurd_time_beside_obs_intervals_is_left_out_too(tmp_path: Path) -> None:
    def absurd(unit: int, times: np.ndarray) -> np.ndarray:
        return np.concatenate([times, [1e15]]) if unit == 4 else times

    found = nwb(tmp_path / "a.nwb", absurd, observed=[[[0.0, 30.0]]] * 12)
    same_spikes(found, WHOLE)
    assert noted(found, "1 of 1801 spikes lie far from all others")


def test_a_stretch_with_spikes_is_never_quietly_not_recorded(tmp_path: Path) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times, observed=[[[0.0, 15.0]]] * 12)
    same_spikes(found, WHOLE)
    assert not len(found.gap_samples) and noted(found, r"obs_intervals: not heeded, for \d+ of 1800 spikes")


def test_units_that_were_observed_in_part_are_named(tmp_path: Path) -> None:
    def half(unit: int, times: np.ndarray) -> np.ndarray:
        return times[(times < 15) == bool(unit % 2)]

    observed = [[[0.0, 15.0]] if unit % 2 else [[15.0, 30.0]] for unit in range(12)]
    found = nwb(tmp_path / "a.nwb", half, observed=observed)
    assert noted(found, "12 of 12 units were observed for only part of the recording .50% of it")


def test_invalid_times_are_masked(tmp_path: Path) -> None:
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times, invalid=(12.0, 13.0))
    assert found.mask_samples.tolist() == [[360_000, 390_000]] and noted(found, "invalid_times: 1 stretches, 1 s")


def test_a_span_that_no_memory_holds_is_rejected_before_it_is_made(tmp_path: Path) -> None:
    whole = recording(0, num_samples=30000 * 10**8)
    path = write_torch_brain(tmp_path / "a.h5", whole, domain=[(0.0, 1e8)])
    with pytest.raises(RecordingError, match=r"a\.h5: spikes of 12 units over 1e\+08 s .* would need 224 GiB"):
        open_recordings(path)


def test_windows_of_a_late_start_are_those_of_the_recording(tmp_path: Path) -> None:
    """The lead-in excludes windows as missing data, not as silence, and nothing of the rest."""
    spec, rules = WindowSpec(bins_per_second=50, bins_per_patch=50, patches=10, hop_bins=50), WindowRules()  # type: ignore[arg-type]
    found = nwb(tmp_path / "a.nwb", lambda _unit, times: times + 100, starts_s=100.0)
    reasons = {window.end_bin // 50: window.exclusion for window in recorded_windows(found, spec, rules)}
    assert {reasons[end] for end in range(10, 109)} == {"gap"}
    assert {reasons[end] for end in range(110, 129)} == {""}
