"""Where windows, messages and tables meet at their edges: nothing is counted twice, lost, or called something else."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.client.publisher import Publisher
from nuclr_stream.config import Settings
from nuclr_stream.daemon import queries
from nuclr_stream.daemon.streams import Streams
from nuclr_stream.errors import RecordingError, WireError
from nuclr_stream.recordings.recording import Recording, recorded_windows
from nuclr_stream.stream import population as population_module
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.stream.population import MAX_MASKS, Population
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from nuclr_stream.wire import (
    MAX_UNITS,
    DaemonState,
    EmbeddingsRequest,
    ErrorReply,
    MaskInterval,
    SnapshotRequest,
    SpikeBatch,
    UnitAction,
)
from tests.nuclr_stream.streams import Source, random_recording

SPEC = WindowSpec(Fraction(50), bins_per_patch=50, patches=10, hop_bins=50)


def population(spec=SPEC, rules=None, **options) -> Population:
    return Population(spec, rules or WindowRules(), stream="probeA", **({"max_units": 100} | options))


def windows(target, *messages):
    """Push messages and return all windows that were cut."""
    cut = []
    for message in messages:
        target.push(message)
        while (window := target.cut(0)) is not None:
            cut.append(window)
    return cut


def seconds(first, stop, source, units=12):
    return [source.busy(1000 * s, 1000 * (s + 1), units) for s in range(first, stop)]


def assert_equal(cut, offline):
    """Bitwise the same windows; live leaves out those without any data, which offline are all excluded as gaps."""
    live = {w.end_bin: w for w in cut}
    assert len(live) == len(cut)
    for window in offline:
        if window.end_bin not in live:
            assert window.exclusion == "gap"
            assert not window.counts.any()
            continue
        other = live.pop(window.end_bin)
        assert np.array_equal(window.counts, other.counts)
        assert window.exclusion == other.exclusion
    assert not live


def with_gaps(recording: Recording, gaps, masks=()) -> Recording:
    samples, keep = recording.spike_samples, np.ones(len(recording.spike_samples), dtype=bool)
    for start, stop in gaps:
        keep &= (samples < start) | (samples >= stop)
    return replace(
        recording,
        spike_samples=samples[keep],
        spike_units=recording.spike_units[keep],
        gap_samples=np.array(gaps, dtype=np.int64).reshape(-1, 2),
        mask_samples=np.array(masks, dtype=np.int64).reshape(-1, 2),
    )


stretches = st.lists(st.tuples(st.floats(0, 1), st.floats(0.0001, 0.4)), max_size=4)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 20),
    rate=st.sampled_from([1000, 24414.0625, 29999.96, 333]),
    block=st.integers(50, 40_000),
    hop=st.sampled_from([21, 50, 500, 551, 800]),
    gaps=stretches,
    masks=stretches,
    max_missing=st.sampled_from([0.0, 0.1, 0.3]),
    lateness_s=st.sampled_from([0.0, 0.5, 12.0]),
    shuffle=st.booleans(),
)
def test_any_gaps_masks_hops_and_lateness_give_the_windows_of_the_file(
    seed, rate, block, hop, gaps, masks, max_missing, lateness_s, shuffle
):
    recording = random_recording(seed, rate=rate, seconds=32, units=12)
    n = recording.num_samples

    def cut_out(places):
        return sorted((int(a * n), max(int(a * n) + 1, min(int((a + b) * n), n))) for a, b in places if int(a * n) < n)

    recording = with_gaps(recording, cut_out(gaps), cut_out(masks))
    spec, rules = WindowSpec(SPEC.bins_per_second, 50, 10, hop), WindowRules(max_missing=max_missing)
    live = population(spec, rules, lateness_s=lateness_s)
    messages = list(recording_messages(recording, stream="r", block_samples=block))
    if shuffle and lateness_s * recording.sample_rate >= 2 * block:  # neighbours change places within the lateness
        for i in random.Random(seed).sample(range(2, len(messages) - 1), len(messages) // 3):
            a, b = messages[i : i + 2]
            if isinstance(a, SpikeBatch) and isinstance(b, SpikeBatch) and b.stop - a.start <= 2 * block:
                messages[i : i + 2] = b, a
    assert_equal(windows(live, *messages), list(recorded_windows(recording, spec, rules)))
    assert live.counters["spikes_late"] == 0


def test_a_gap_at_the_end_counts_as_missing_live_as_offline():
    recording = with_gaps(random_recording(1, rate=1000, seconds=20), [(18_200, 20_000)])
    cut = windows(population(), *recording_messages(recording, stream="r", block_samples=1000))
    assert [(w.end_bin, w.exclusion) for w in cut[-2:]] == [(950, ""), (1000, "gap")]


def test_overlapping_gaps_are_missing_once():
    recording = with_gaps(random_recording(1, rate=1000, seconds=15), [(5_000, 5_600), (5_000, 5_600)])
    assert [w.exclusion for w in recorded_windows(recording, SPEC, WindowRules())] == [""] * 6


def test_a_hop_longer_than_the_window_never_counts_a_spike_in_another_bin():
    target, source = population(WindowSpec(Fraction(50), 50, 10, 6000)), Source()
    table = source.units()
    marked = [source.spikes(s, s + 500, [(s, u) for u in range(12)]) for s in range(0, 250_000, 500)]
    cut = windows(target, table, *marked)
    assert [w.end_bin for w in cut] == [6000, 12000]
    for window in cut:
        assert np.array_equal(np.flatnonzero(window.counts[0]), np.arange(0, 500, 25))
        assert window.counts.max() == 1
    assert target.counters["spikes_accepted"] == target.counters["spikes_received"]


def test_a_first_message_of_nearly_a_minute_loses_no_spike():
    target, source = population(), Source()
    spikes = [(s, u) for s in range(20_000, 60_000, 100) for u in range(12)]
    cut = windows(target, source.units(), source.spikes(0, 60_000, spikes))
    assert len(cut) == 51
    assert [w.counts.sum() for w in cut[20:]] == [12 * 100] * 31


def test_samples_that_were_observed_already_are_not_counted_twice():
    target, source = population(), Source()
    cut = windows(target, source.units(), *seconds(0, 9, source))
    cut += windows(target, source.busy(7_500, 9_500), source.busy(9_000, 10_000))
    assert [w.end_bin for w in cut] == [500]
    assert (cut[0].counts.sum(axis=1) == 100).all()
    assert target.counters["spikes_repeated"] == 12 * 20
    accounted = sum(target.counters[f"spikes_{why}"] for why in ("accepted", "repeated", "late", "unknown_unit"))
    assert target.counters["spikes_received"] == accounted


def test_data_within_the_lateness_are_taken_behind_a_long_gap_too():
    target, source = population(lateness_s=5.0), Source()
    windows(target, source.units(), *seconds(0, 10, source))
    late, early = source.busy(40_000, 41_000), source.busy(41_000, 42_000)
    cut = windows(target, early, late, *seconds(42, 60, source))
    assert target.counters["spikes_late"] == 0
    assert next(w for w in cut if w.end_bin == 2500).counts.sum() == 12 * 100
    assert target.counters["samples_missing"] - target.counters["samples_recovered"] == 30_000


def test_nothing_follows_the_end():
    target, source = population(), Source()
    windows(target, source.units(), *seconds(0, 10, source), source.end(10_000))
    assert not windows(target, *seconds(10, 12, source))
    assert target.counters["rejected_after_end"] == 2


def test_an_end_far_ahead_is_as_wrong_as_any_other_jump():
    target, source = population(), Source()
    assert len(windows(target, source.units(), *seconds(0, 10, source), source.end(2**53))) == 1
    assert target.counters["rejected_jump"] == 1


def test_every_mask_of_a_recording_counts_however_many_there_are():
    masks = [(s, s + 1) for s in range(0, 2 * MAX_MASKS * 10, 10)]
    recording = random_recording(1, rate=1000, seconds=120)
    recording = replace(recording, mask_samples=np.array(masks[::-1]))
    cut = windows(population(), *recording_messages(recording, stream="r", block_samples=1000))
    assert_equal(cut, list(recorded_windows(recording, SPEC, WindowRules())))


def test_too_many_masks_mask_more_never_less():
    target, source = population(), Source()
    windows(target, source.units(), source.heartbeat(0, 0))
    windows(target, *(source.mask(s, s + 1) for s in range(20_000, 20_000 + 3 * MAX_MASKS, 2)))
    assert target.counters["masks_melted"] == MAX_MASKS // 2
    cut = windows(target, *seconds(0, 50, source))
    assert {w.end_bin for w in cut if w.exclusion == "mask"} == set(range(1050, 2150, 50))


def test_stretches_are_bounded_and_what_does_not_fit_is_missing(monkeypatch):
    monkeypatch.setattr(population_module, "MAX_STRETCHES", 100)
    target, source = population(lateness_s=60.0), Source(sample_rate=10**6)
    windows(target, source.units(), source.heartbeat(0, 0), source.heartbeat(55 * 10**6, 55 * 10**6))
    for start in range(0, 400, 2):
        windows(target, source.heartbeat(start, start + 1))
    assert len(target._epoch.cutter.observed) <= 100
    assert target.counters["stretches_dropped"] == 100


@pytest.mark.parametrize("rate", [Fraction(2**40 - 3, 999_983), Fraction(2**39 - 7, 999_979)])
def test_a_rate_that_no_int64_can_bin_is_rejected(rate):
    target, source = population(), Source(sample_rate=rate)
    assert not windows(target, source.units(), source.spikes(0, 10, [(1, 1)]))
    assert target.counters["rejected_rate"] == 2


def test_frames_beyond_all_samples_are_rejected():
    spec = WindowSpec(Fraction(50), bins_per_patch=4, patches=32, hop_bins=4, input_kind="traces")
    target, source = population(spec), Source(sample_rate=50)
    windows(target, source.units(1), source.traces(2**53, np.zeros((1, 5))))
    assert target.counters["rejected_block"] == 1
    assert target.watermark is None


def test_a_unit_that_a_whole_table_gives_another_index_is_known_at_once():
    target, source = population(), Source()
    windows(target, source.units(), *seconds(0, 10, source))
    moved = [(UnitAction.ADD, 20 if i == 3 else i, f"u{i}") for i in range(12)]
    windows(target, source.table(moved, full=True))
    assert 20 in target.units.index
    assert 3 not in target.units.index
    assert target.counters["table_rows_rejected"] == 0


def test_a_table_of_many_rows_costs_time_in_proportion_to_them(monkeypatch):
    """Comparisons of names are counted, not timed."""
    compared = 0

    class Name(str):
        __slots__ = ()

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    target, source = population(max_units=MAX_UNITS), Source()
    table = source.units(2000)
    windows(target, replace(table, unit_ids=tuple(Name(f"u{i}") for i in range(2000))))
    assert len(target.units.index) == 2000
    assert compared < 20 * 2000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit_ids": np.array(["u0", ""])}, "unit_ids: row 1 is empty"),
        ({"mask_samples": np.array([[0, 2**60]])}, "mask_samples"),
        ({"gap_samples": np.array([[-(2**60), 1]])}, "gap_samples"),
    ],
)
def test_recordings_that_no_daemon_could_take_are_rejected(change, message):
    recording = random_recording(0, units=2, seconds=2)
    with pytest.raises(RecordingError, match=message):
        replace(recording, **change)


def test_masks_travel_just_before_the_spikes_that_they_mask():
    recording = replace(random_recording(1, rate=1000, seconds=5), mask_samples=np.array([[2_500, 2_600], [500, 600]]))
    order = [
        (m.start, isinstance(m, MaskInterval))
        for m in recording_messages(recording, stream="r", block_samples=1000)
        if isinstance(m, MaskInterval | SpikeBatch)
    ]
    assert order[:3] == [(500, True), (0, False), (1000, False)]
    assert order[3:5] == [(2_500, True), (2_000, False)]


def test_windows_of_an_epoch_that_is_over_are_no_skipped_steps_of_the_next():
    target, source = population(), Source()
    (old,) = windows(target, source.units(), *seconds(0, 10, source))
    newer = Source(epoch=2)
    first, second = windows(target, newer.units(), *seconds(0, 11, newer))
    taken = first.superseding(old)
    assert taken.skipped_steps == 0
    assert taken.operations == old.operations + first.operations
    assert second.superseding(taken).skipped_steps == 1


def test_what_was_known_before_a_new_epoch_is_not_said_to_be_so_now(tiny_model):
    streams = Streams(tiny_model, Settings(), instance=1)
    daemon = DaemonState(instance=1, uptime_s=0.0, provider="cpu", bundle="tiny", streams=())

    def take(message):
        stream = streams.of(message, 0)
        for window in stream.take(message, 0):
            stream.published(stream.labeler.label(window), 0)

    def snapshot_kinds():
        return [type(m).__name__ for m in queries.snapshot(SnapshotRequest(request_id=1), streams, daemon).messages]

    source = Source()
    for message in (source.units(), *seconds(0, 10, source)):
        take(message)
    assert snapshot_kinds() == ["DaemonState", "StreamState", "Predictions"]
    take(Source(epoch=2).units())
    assert snapshot_kinds() == ["DaemonState", "StreamState"]
    answer = queries.embeddings(EmbeddingsRequest(request_id=1, stream="probeA"), streams.get("probeA"))
    assert isinstance(answer, ErrorReply)
    assert answer.reason == "warming_up"


def test_a_batch_that_could_not_be_said_may_be_said_again():
    with Publisher("tcp://127.0.0.1:9", stream="rig", sample_rate=30_000, connect_s=0.0) as rig:
        rig.skip(1000)
        with pytest.raises(WireError):
            rig.spikes(np.zeros(70_000), np.zeros(70_000), stop=2000)
        with pytest.raises(WireError):
            rig.heartbeat(500)
        assert rig.watermark == 1000
        rig.heartbeat(1500)
        assert rig.watermark == 1500


def test_a_source_that_fell_silent_makes_its_stream_degraded_until_it_speaks_again(tiny_model):
    streams = Streams(tiny_model, Settings(), instance=1)
    source = Source()
    first = source.units()
    stream = streams.of(first, 0)
    list(stream.take(first, 0))
    stream.note_time(1_900_000_000)
    assert stream.state.state == "warming_up"
    stream.note_time(2_100_000_000)
    assert (stream.state.state, stream.state.reasons) == ("degraded", ("source_silent",))
    list(stream.take(source.heartbeat(0, 0), 2_200_000_000))
    assert stream.state.state == "warming_up"
    list(stream.take(source.end(0), 2_300_000_000))
    stream.note_time(9_000_000_000)
    assert stream.state.state == "ended", "a stream that ended has nothing more to say"


def test_a_source_that_waits_for_the_model_is_not_called_silent(tiny_model):
    streams = Streams(tiny_model, Settings(), instance=1)
    first = Source().units()
    stream = streams.of(first, 0)
    list(stream.take(first, 0))
    stream.in_work = 1
    stream.note_time(5_000_000_000)
    assert stream.state.reasons == ()
