"""The population: which windows are cut from which messages, and what is counted on the way."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.recordings.recording import recorded_windows
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.stream.population import Population
from nuclr_stream.stream.units import Operation, Units
from nuclr_stream.windows.binning import WindowRules, WindowSpec
from nuclr_stream.wire import UnitAction
from tests.nuclr_stream.streams import Source, random_recording

SPEC = WindowSpec(Fraction(50), bins_per_patch=50, patches=10, hop_bins=50)
ADD, RETIRE, MERGE, RENAME, RESET = UnitAction


def population(spec=SPEC, **options) -> Population:
    return Population(spec, WindowRules(), stream="probeA", **({"max_units": 100} | options))


def windows(population, *messages):
    """Push messages and return all windows that were cut."""
    cut = []
    for message in messages:
        population.push(message)
        while (window := population.cut(0)) is not None:
            cut.append(window)
    return cut


def running(*, seconds=10, units=12, **options):
    """A population that has seen `seconds` seconds of 12 busy units, its source, and the windows cut so far."""
    source, target = Source(), population(**options)
    cut = windows(target, source.units(units))
    cut += windows(target, *(source.busy(1000 * s, 1000 * (s + 1), units) for s in range(seconds)))
    return target, source, cut


def balanced(counters) -> bool:
    rejected = sum(n for reason, n in counters.items() if reason.startswith("rejected_"))
    return counters["received"] == counters["accepted"] + counters["duplicate"] + rejected


@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 50),
    st.sampled_from([30000, 24414.0625]),
    st.integers(1_000, 90_000),
    st.booleans(),
    st.booleans(),
    st.sampled_from([10, 50, 70, 500]),
)
def test_live_windows_are_those_of_the_file_for_any_blocks(seed, rate, block, gap, mask, hop):
    recording = random_recording(seed, rate=rate, gap=gap, mask=mask)
    spec = WindowSpec(SPEC.bins_per_second, 50, 10, hop)
    live = Population(spec, WindowRules(), stream=recording.recording_id, max_units=100)
    cut = windows(live, *recording_messages(recording, stream=recording.recording_id, block_samples=block))
    offline = list(recorded_windows(recording, spec, WindowRules()))
    assert [w.end_bin for w in cut] == [w.end_bin for w in offline]
    for one, other in zip(cut, offline, strict=True):
        assert np.array_equal(one.counts, other.counts)
        assert np.array_equal(one.active, other.active)
        assert one.exclusion == other.exclusion
    assert [w.step for w in cut] == list(range(len(cut)))
    assert balanced(live.counters)


def test_the_first_window_comes_when_it_is_full_and_progress_tells_how_far_it_is():
    source, target = Source(), population()
    assert target.progress == 0
    assert not windows(target, source.units(), source.busy(0, 9_999))
    assert target.progress == pytest.approx(499 / 500)
    (window,) = windows(target, source.busy(9_999, 10_000))
    assert (window.end_bin, window.end_sample, window.step) == (500, 10_000, 0)
    assert target.progress == 1


def test_a_late_joiner_has_the_same_grid_and_no_half_observed_window():
    source, target = Source(), population()
    cut = windows(target, source.units(), *(source.busy(s, s + 500) for s in range(123_500, 140_000, 500)))
    assert [w.end_bin for w in cut] == list(range(6700, 7001, 50)), "124 s is the first whole second"


def test_clocks_far_from_zero_and_an_origin_are_taken_as_they_come():
    origin = -(2**50) + 7
    source, target = Source(origin=origin), population()
    cut = windows(
        target, source.units(added=origin), *(source.busy(origin + s, origin + s + 250) for s in range(0, 12_000, 250))
    )
    assert [w.end_bin for w in cut] == [500, 550, 600]
    assert cut[0].end_sample == origin + 10_000


def test_a_unit_enters_after_a_full_window_since_it_was_added():
    target, source, _ = running()
    cut = windows(target, source.table([(ADD, 20, "new")], added=10_000))
    cut += windows(
        target, *(source.spikes(s, s + 1000, [(s + 5, 20), (s + 6, 0)]) for s in range(10_000, 21_000, 1000))
    )
    entered = [w.end_bin for w in cut if w.eligible[w.unit_ids.index("new")]]
    assert entered == [1000, 1050]
    assert all(w.counts[w.unit_ids.index("new")].sum() > 0 for w in cut)


def test_a_unit_whose_row_came_too_late_counts_from_then_on():
    target, source, _ = running()
    windows(target, source.table([(ADD, 20, "new")], added=0))
    cut = windows(target, *(source.spikes(s, s + 1000, [(s, 20)]) for s in range(10_000, 21_000, 1000)))
    assert [w.end_bin for w in cut if w.eligible[w.unit_ids.index("new")]] == [1000, 1050]


def test_retiring_leaves_with_the_next_window_and_the_index_is_never_given_again():
    target, source, _ = running()
    windows(target, source.table([(RETIRE, 3, "")]), source.table([(ADD, 3, "again")]))
    (window,) = windows(target, source.busy(10_000, 11_000))
    assert "u3" not in window.unit_ids
    assert "again" not in window.unit_ids
    assert window.operations == (Operation("forget", source=3),)
    assert target.counters["table_rows_rejected"] == 1
    assert target.counters["spikes_unknown_unit"] == 10


def test_merging_adds_counts_and_later_spikes_of_the_old_index_find_the_new_unit():
    target, source, _ = running()
    windows(target, source.table([(MERGE, 3, 5)]))
    (window,) = windows(target, source.busy(10_000, 11_000))
    assert window.operations == (Operation("merge", source=3, target=5),)
    assert "u3" not in window.unit_ids
    assert window.counts[window.unit_ids.index("u5")].sum() == 2 * window.counts[window.unit_ids.index("u4")].sum()


def test_renaming_keeps_the_counts_and_a_reset_begins_the_evidence_anew():
    target, source, _ = running()
    windows(target, source.table([(RENAME, 0, "zero"), (RENAME, 1, "u2"), (RESET, 4, "")]))
    (window,) = windows(target, source.busy(10_000, 11_000))
    assert window.unit_ids[:2] == ("zero", "u1"), "a name that is taken is rejected"
    assert window.counts[0].sum() == 100
    assert window.operations == (Operation("forget", source=4),)
    assert not window.eligible[4]


def test_a_whole_table_retires_what_it_does_not_list_and_a_repeated_one_changes_nothing():
    target, source, _ = running()
    source.version = -1
    windows(target, source.units(3))
    assert target.counters["tables_repeated"] == 1
    shorter = source.units(4)
    (window,) = windows(target, shorter, source.busy(10_000, 11_000, units=4))
    assert window.unit_ids == ("u0", "u1", "u2", "u3")
    assert window.operations == tuple(Operation("forget", source=i) for i in range(4, 12))


@pytest.mark.parametrize(
    ("ids", "moved"),
    [
        (["u1", "u0", *(f"u{i}" for i in range(2, 12))], [0, 1]),
        ([f"u{i}" for i in range(1, 13)], list(range(12))),
        (["u0", "new", *(f"u{i}" for i in range(2, 12))], []),
    ],
    ids=["swapped", "shifted", "renamed"],
)
def test_a_whole_table_is_a_set_and_an_id_that_moves_to_another_index_begins_anew(ids, moved):
    target, source, _ = running()
    table = source.table([(ADD, i, name) for i, name in enumerate(ids)], full=True)
    cut = windows(target, table, *(source.busy(1000 * s, 1000 * (s + 1)) for s in range(10, 21)))
    assert cut[0].unit_ids == tuple(ids)
    assert target.counters["table_rows_rejected"] == 0
    assert cut[0].operations == tuple(Operation("forget", source=i) for i in moved)
    assert np.flatnonzero(~cut[0].eligible).tolist() == moved, "no window holds spikes of two neurons in one row"
    assert next(w.end_bin for w in cut if w.eligible.all()) == (1000 if moved else 550)


def test_two_rows_of_a_whole_table_with_one_id_are_one_unit_and_one_rejected_row():
    target, source, _ = running()
    rows = [(ADD, i, "u0" if i == 1 else f"u{i}") for i in range(12)]
    (window,) = windows(target, source.table(rows, full=True), source.busy(10_000, 11_000))
    assert window.unit_ids == ("u0", *(f"u{i}" for i in range(2, 12)))
    assert target.counters["table_rows_rejected"] == 1


def test_changes_after_a_lost_table_wait_for_the_next_whole_one():
    target, source, _ = running()
    source.table([(ADD, 20, "lost")])
    windows(target, source.table([(RETIRE, 0, "")]))
    assert target.counters["tables_out_of_order"] == 1
    windows(target, source.spikes(10_000, 10_100))
    assert target.counters["table_behind"] == 1
    windows(target, source.units(14))
    assert len(target.units.index) == 14


def test_units_beyond_the_maximum_and_beyond_all_indices_are_counted():
    source, target = Source(), population(max_units=10)
    windows(target, source.units(12), source.table([(ADD, 2**21, "far")]), source.spikes(0, 10, [(1, 2**31), (1, 11)]))
    assert len(target.units.index) == 10
    assert target.counters["units_over_maximum"] + target.counters["table_rows_rejected"] == 3
    assert target.counters["spikes_unknown_unit"] == 2


def test_a_new_epoch_clears_everything_and_an_old_one_is_rejected():
    target, source, _ = running()
    newer = Source(epoch=2)
    assert target.push(newer.units(12))
    windows(target, source.busy(10_000, 20_000))
    assert target.counters["rejected_stale_epoch"] == 1
    cut = windows(target, *(newer.busy(1000 * s, 1000 * (s + 1)) for s in range(10)))
    assert [(w.epoch, w.end_bin, w.step) for w in cut] == [(2, 500, 0)]
    assert cut[0].operations == (Operation("keep"),)


def test_an_epoch_that_continues_keeps_the_evidence_by_unit_id():
    target, _, _ = running()
    newer = Source(epoch=2)
    rows = [(ADD, 40, "u2"), (ADD, 41, "new"), (ADD, 42, "u0")]
    windows(target, newer.table(rows, full=True, continues=True))
    (window,) = windows(target, *(newer.busy(1000 * s, 1000 * (s + 1)) for s in range(10)))
    assert window.operations == (Operation("keep", index_of={2: 40, 0: 42}),)
    assert window.counts.sum() == 0, "no spike of the old epoch is left"


def test_reordered_messages_within_the_lateness_are_healed():
    seconds = [(1000 * s, 1000 * (s + 1)) for s in range(14)]
    swapped = [*seconds[:4], seconds[5], seconds[4], *seconds[6:]]

    def cut_in(order):
        source, target = Source(), population(lateness_s=2.0)
        table = source.units()
        blocks = dict(zip(seconds, [source.busy(*b) for b in seconds], strict=True))
        return windows(target, table, *(blocks[b] for b in order)), target.counters

    straight, _ = cut_in(seconds)
    healed, counters = cut_in(swapped)
    assert counters["messages_reordered"] == counters["messages_gap"] == 1
    assert [w.end_bin for w in healed] == [w.end_bin for w in straight]
    assert all(
        np.array_equal(a.counts, b.counts) and a.missing == b.missing for a, b in zip(healed, straight, strict=True)
    )


def test_what_comes_after_its_window_was_cut_is_late_and_stays_missing():
    source, target = Source(), population()
    table, early = source.units(), [source.busy(1000 * s, 1000 * (s + 1)) for s in range(12)]
    held = early.pop(9)
    cut = windows(target, table, *early, held, source.busy(12_000, 13_000))
    assert target.counters["spikes_late"] == 120
    assert [w.missing for w in cut] == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert all(w.counts[:, 450 - (w.end_bin - 500) : 500 - (w.end_bin - 500)].sum() == 0 for w in cut)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.2), st.floats(0, 0.2), st.floats(0, 0.2))
def test_losses_duplicates_and_reordering_are_counted_exactly(seed, lose, repeat, swap):
    rng = np.random.default_rng(seed)
    source, target = Source(), population(lateness_s=6.0)
    table = source.units()
    blocks = [source.busy(500 * k, 500 * (k + 1)) for k in range(60)]
    sent, lost, repeated = [blocks[0]], 0, 0
    for block in blocks[1:-1]:
        if rng.random() < lose:
            lost += 1
            continue
        sent.append(block)
        if rng.random() < repeat:
            sent.append(block)
            repeated += 1
    for i in range(1, len(sent) - 1, 2):
        if rng.random() < swap:
            sent[i], sent[i + 1] = sent[i + 1], sent[i]
    cut = windows(target, table, *sent, blocks[-1])
    counters = target.counters
    assert counters["messages_gap"] - counters["messages_reordered"] == lost
    assert counters["duplicate"] == repeated
    assert balanced(counters)
    assert counters["spikes_late"] == 0
    arrived = {(m.start, m.stop) for m in [*sent, blocks[-1]]}
    for window in cut:
        first = window.end_sample - 10_000
        seen = sum(min(b, window.end_sample) - max(a, first) for a, b in arrived if b > first and a < window.end_sample)
        assert window.missing == pytest.approx(1 - seen / 10_000)
        assert (window.exclusion == "gap") == (window.missing > 0.1)


def test_a_long_gap_gives_rejected_windows_at_its_edges_and_none_inside():
    target, source, _ = running()
    cut = windows(target, *(source.busy(s, s + 1000) for s in range(70_000, 82_000, 1000)))
    assert [w.end_bin for w in cut if not w.exclusion] == [550, 3950, 4000, 4050, 4100], "1 s of 10 may miss"
    assert max(w.missing for w in cut) < 1, "windows without any data are counted, not cut"
    assert target.counters["windows_without_data"] > 30
    assert [w.step for w in cut] == [(w.end_bin - 500) // 50 for w in cut]
    assert target.counters["samples_missing"] == 60_000


def test_no_spikes_is_not_no_data():
    target, source, _ = running()
    (window,) = windows(target, source.heartbeat(10_000, 11_000))
    assert window.missing == 0
    assert window.exclusion == "silence"


def test_a_window_that_touches_a_mask_is_rejected():
    target, source, _ = running()
    cut = windows(target, source.mask(10_500, 10_501), *(source.busy(s, s + 1000) for s in range(10_000, 23_000, 1000)))
    assert [w.end_bin for w in cut if w.exclusion == "mask"] == list(range(550, 1001, 50))


def test_spikes_outside_the_stretch_of_their_message_are_counted_and_dropped():
    target, source, _ = running()
    windows(target, source.spikes(10_000, 11_000, [(9_999, 0), (11_000, 0), (10_000, 0)]))
    assert target.counters["spikes_out_of_range"] == 2
    received, accepted = target.counters["spikes_received"], target.counters["spikes_accepted"]
    assert received == accepted + 2


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (lambda s: Source(epoch=1, sample_rate=2000).heartbeat(0, 1), "rejected_grid_changed"),
        (lambda s: Source(epoch=1, origin=5).heartbeat(0, 1), "rejected_grid_changed"),
        (lambda s: Source(epoch=2, sample_rate=40).heartbeat(0, 1), "rejected_rate"),
        (lambda s: s.spikes(10_000, 80_000), "rejected_block"),
        (lambda s: s.spikes(10_000, 9_000), "rejected_block"),
        (lambda s: s.spikes(10**9, 10**9 + 1), "rejected_jump"),
        (lambda s: s.traces(0, np.zeros((1, 1))), "rejected_input_kind"),
    ],
)
def test_what_cannot_be_right_is_rejected_by_reason_and_changes_nothing(message, reason):
    target, source, _ = running()
    assert not windows(target, message(source))
    assert target.counters[reason] == 1
    assert balanced(target.counters)
    source.seq = 10
    assert len(windows(target, source.busy(10_000, 11_000))) == 1


def test_the_end_closes_what_lateness_had_held_back():
    target, source, cut = running(seconds=12, lateness_s=1.5)
    assert [w.end_bin for w in cut] == [500]
    assert [w.end_bin for w in windows(target, source.end(12_000))] == [550, 600]
    assert target.ended


def test_a_window_in_the_place_of_an_older_one_takes_over_its_operations():
    target, source, _ = running()
    (older,) = windows(target, source.table([(RETIRE, 0, "")]), source.busy(10_000, 11_000))
    (newer,) = windows(target, source.table([(RETIRE, 1, "")]), source.busy(11_000, 12_000))
    taken = newer.superseding(older)
    assert [op.source for op in taken.operations] == [0, 1]
    assert taken.skipped_steps == 1
    assert taken.end_bin == 600


def test_a_window_shares_nothing_with_the_population():
    target, source, (window,) = running()
    before = window.counts.copy()
    windows(target, source.table([(MERGE, 3, 5)]), *(source.busy(s, s + 1000) for s in range(10_000, 90_000, 1000)))
    assert np.array_equal(window.counts, before)


def test_frames_become_bins_one_by_one():
    spec = WindowSpec(Fraction(100000, 23344), bins_per_patch=4, patches=32, hop_bins=4, input_kind="traces")
    target = Population(spec, WindowRules(), stream="probeA", max_units=10)
    source = Source(sample_rate=Fraction(100000, 23344))
    values = np.random.default_rng(0).normal(size=(3, 140))
    cut = windows(target, source.units(3), *(source.traces(f, values[:, f : f + 7]) for f in range(0, 140, 7)))
    assert [w.end_bin for w in cut] == [128, 132, 136, 140]
    assert np.array_equal(cut[-1].counts, values[:, 12:140].astype(np.float32))
    assert cut[0].active.all()


def test_ten_hours_of_messages_take_no_more_memory_than_ten_minutes():
    target, source, _ = running(spec=WindowSpec(SPEC.bins_per_second, 50, 10, hop_bins=500))  # 3,600 windows
    widths = set()
    for k in range(10_000, 46_000_000, 9_000):
        windows(target, source.spikes(k, k + 9_000, [(k, 0)]))
        widths.add(target._epoch.counts._counts.shape[1])
    assert max(widths) <= 2000
    assert len(target._epoch.cutter.observed) == 1


def test_a_sign_of_life_ahead_of_the_data_is_no_gap():
    target, source, _ = running()
    (window,) = windows(target, source.heartbeat(10_900, 10_900), source.busy(10_000, 11_000))
    assert window.missing == 0
    assert target.counters["samples_missing"] == 0


def test_a_message_number_that_jumps_absurdly_is_rejected_and_mutes_nothing():
    target, source, _ = running()
    source.seq = 2**40
    assert not windows(target, source.busy(10_000, 11_000))
    assert target.counters["rejected_jump"] == 1
    source.seq = 10
    assert len(windows(target, source.busy(10_000, 11_000))) == 1


def test_a_whole_table_tells_which_index_was_merged_into_which() -> None:
    """As a daemon hears it that was started after the merge: there is nothing to add up, but spikes may still come."""
    units, counters = Units(8), Counter[str]()
    source = Source()
    rows = [(UnitAction.ADD, 0, "a"), (UnitAction.ADD, 2, "c"), (UnitAction.MERGE, 1, 2), (UnitAction.MERGE, 5, 9)]
    table = source.table(rows, full=True)
    for _ in range(2):  # it is sent again every second
        operations = units.apply(table, np.zeros(4, dtype=np.int64), None, counters)
        assert [op.kind for op in operations if op.kind == "merge"] == []
        table = source.table(rows, full=True)
    assert units.rows(np.array([0, 1, 2, 5])).tolist() == [0, 1, 1, -1]
    assert counters["table_rows_rejected"] == 2, "index 9 is no unit"
    taken = source.table([(UnitAction.ADD, 1, "again")])
    units.apply(taken, np.zeros(1, dtype=np.int64), None, counters)
    assert units.ids == ("a", "c"), "a merged index never comes back as another unit"


def test_a_unit_merged_into_the_last_one_that_is_retired_then_is_no_error() -> None:
    units, counters, source = Units(8), Counter[str](), Source()
    for rows in (
        [(UnitAction.ADD, i, f"u{i}") for i in range(4)],
        [(UnitAction.MERGE, 1, 3)],
        [(UnitAction.RETIRE, 3, "")],
    ):
        units.apply(source.table(rows), np.zeros(len(rows), dtype=np.int64), None, counters)
    assert units.rows(np.array([0, 1, 2, 3])).tolist() == [0, -1, 1, -1]
