from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.recording import recorded_windows
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.stream.playback import recording_messages
from nuclr_stream.stream.population import Population
from nuclr_stream.stream.window import Window
from nuclr_stream.windows.binning import WindowRules, WindowSpec, grid_of
from nuclr_stream.windows.normaliser import Normalisation
from nuclr_stream.wire import TraceBatch, UnitAction
from tests.nuclr_stream.conftest import make_recording
from tests.nuclr_stream.streams import Source

RATE = Fraction(6250, 1459)
SPEC = WindowSpec(RATE, 4, 4, 4, "traces", Normalisation(quantile=0.9, warm_up_frames=20))


def trace_recording(
    seed: int = 0, *, units: int = 12, frames: int = 120, rate: Fraction = RATE, gap=(), mask=()
) -> TraceRecording:
    """Gamma-distributed traces, with [start, stop) gaps and masks on demand."""
    rng = np.random.default_rng(seed)
    return TraceRecording(
        recording_id=f"traces_{seed}",
        subject_id="mouse",
        session_date="2020-01-01",
        frame_rate=rate,
        traces=rng.gamma(0.7, 1.0, (units, frames)).astype(np.float32) - np.float32(0.2),
        unit_ids=np.array([f"roi{row}" for row in range(units)]),
        units={"cell_type": np.array([("E", "PV")[row % 2] for row in range(units)])},
        gap_samples=np.array(gap, dtype=np.int64).reshape(-1, 2),
        mask_samples=np.array(mask, dtype=np.int64).reshape(-1, 2),
    )


def live(recording: TraceRecording, *, block: int, spec: WindowSpec = SPEC) -> list[Window]:
    """The windows that the daemon's Population cuts from a recording, sent in blocks of so many frames."""
    population = Population(spec, WindowRules(), stream="p", max_units=100)
    cut = []
    for message in recording_messages(recording, stream="p", block_samples=block):
        population.push(message)
        while (window := population.cut(0)) is not None:
            cut.append(window)
    return cut


@settings(max_examples=40)
@given(
    block=st.integers(1, 60),
    hop=st.sampled_from([1, 4, 7, 24]),
    gap=st.tuples(st.integers(1, 90), st.integers(1, 30)),
    mask=st.tuples(st.integers(0, 100), st.integers(1, 9)),
)
def test_live_and_offline_cut_the_same_normalised_windows_bit_by_bit(block, hop, gap, mask):
    recording = trace_recording(gap=[(gap[0], sum(gap))], mask=[(mask[0], sum(mask))])
    spec = replace(SPEC, hop_bins=hop)
    offline = {w.end_bin: w for w in recorded_windows(recording, spec, WindowRules())}
    cut = live(recording, block=block, spec=spec)
    assert cut and {w.end_bin for w in cut} <= set(offline)
    for window in cut:
        same = offline[window.end_bin]
        assert np.array_equal(window.counts, same.counts)
        assert window.exclusion == same.exclusion
        assert window.active.all() and same.active.all()
    unseen = [w for end, w in offline.items() if end not in {w.end_bin for w in cut}]
    assert all(not w.counts.any() for w in unseen), "the daemon cuts no window without any data"


def test_windows_wait_for_the_warm_up_of_the_normaliser():
    exclusions = [w.exclusion for w in live(trace_recording(), block=5)]
    assert exclusions[:2] == ["normaliser", ""], "after 16 and 20 frames"


def test_without_a_normaliser_frames_go_in_as_they_are():
    recording = trace_recording()
    (window, *_) = live(recording, block=3, spec=replace(SPEC, normaliser=None))
    assert np.array_equal(window.counts, recording.traces[:, :16])


def test_a_frame_rate_within_one_percent_is_taken_frame_by_frame():
    near = trace_recording(rate=RATE * Fraction(1005, 1000))
    assert np.array_equal(live(near, block=7)[3].counts, live(trace_recording(), block=7)[3].counts)
    assert grid_of(near.frame_rate, SPEC).complete_bins(near.num_samples) == 120
    far = trace_recording(rate=RATE * Fraction(102, 100))
    assert not live(far, block=7)
    with pytest.raises(RecordingError, match=r"4\.36943 samples a second; the encoder takes traces at 4\.28376"):
        list(recorded_windows(far, SPEC, WindowRules()))


def test_spikes_are_no_traces_and_traces_no_spikes():
    with pytest.raises(RecordingError, match="holds spikes, the encoder takes traces"):
        next(recorded_windows(make_recording(), SPEC, WindowRules()))
    with pytest.raises(RecordingError, match="holds traces, the encoder takes spikes"):
        next(recorded_windows(trace_recording(), WindowSpec(Fraction(50), 50, 10, 50), WindowRules()))
    with pytest.raises(RecordingError, match="would mix frames"):
        trace_recording().counts(grid_of(Fraction(30_000), WindowSpec(Fraction(50), 50, 10, 50)))


def running() -> tuple[Population, Source]:
    population = Population(replace(SPEC, normaliser=None), WindowRules(), stream="probeA", max_units=10)
    source = Source(sample_rate=RATE)
    population.push(source.units(3))
    return population, source


def test_of_two_messages_over_the_same_frames_the_first_one_holds():
    population, source = running()
    for message in (source.traces(0, np.ones((3, 10))), source.traces(5, np.full((3, 11), 2.0))):
        population.push(message)
    window = population.cut(0)
    assert window is not None
    assert window.counts[0].tolist() == [1] * 10 + [2] * 6
    assert population.counters["frames_repeated"] == 5


def test_a_heartbeat_says_nothing_about_traces():
    population, source = running()
    messages = (source.traces(0, np.ones((3, 12))), source.heartbeat(12, 14), source.traces(14, np.ones((3, 2))))
    for message in messages:
        population.push(message)
    window = population.cut(0)
    assert window is not None
    assert (window.missing, window.exclusion) == (2 / 16, "gap")
    assert window.counts[0].tolist() == [1] * 12 + [0] * 2 + [1] * 2


def test_units_that_a_message_leaves_out_are_counted():
    population, source = running()
    population.push(source.traces(0, np.ones((2, 16))))
    assert population.cut(0) is not None
    assert population.counters["traces_absent_unit"] == 1


def test_two_traces_of_one_cell_are_not_added_up():
    population, source = running()
    population.push(source.traces(0, np.arange(3)[:, None] * np.ones((1, 12))))
    population.cut(0)
    population.push(source.table([(UnitAction.MERGE, 2, 1)]))
    population.push(source.traces(12, np.ones((2, 4))))
    window = population.cut(0)
    assert window is not None
    assert window.counts.tolist() == [[0] * 12 + [1] * 4, [1] * 16]


def test_a_message_holds_at_most_half_a_megabyte():
    recording = trace_recording(units=5000, frames=60)
    sent = [m for m in recording_messages(recording, stream="p", block_samples=60) if isinstance(m, TraceBatch)]
    assert max(m.values.nbytes for m in sent) <= 2**19
    assert np.array_equal(np.concatenate([m.values for m in sent], axis=1), recording.traces)


def test_a_recording_comes_back_as_it_was_saved(tmp_path: Path):
    before = trace_recording(gap=[(3, 7)], mask=[(50, 60)])
    before.save(tmp_path / "a.npz")
    after = TraceRecording.load(tmp_path / "a.npz")
    for name in ("recording_id", "subject_id", "session_date", "frame_rate"):
        assert getattr(after, name) == getattr(before, name)
    for name in ("traces", "unit_ids", "gap_samples", "mask_samples", "observed"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    assert np.array_equal(after.units["cell_type"], before.units["cell_type"])
    assert after.duration_s == pytest.approx(120 * 0.23344)


def test_the_published_percentile_leaves_out_gaps_and_masks():
    recording = trace_recording(gap=[(0, 10)], mask=[(110, 120)])
    assert recording.percentile(0.99) == pytest.approx(np.quantile(recording.traces[:, 10:110], 0.99))
    with pytest.raises(RecordingError, match=r"the 0\.99 quantile of traces is 0"):
        replace(recording, traces=np.zeros((12, 120), dtype=np.float32)).percentile(0.99)


def _npz(path: Path, **changes: object) -> Path:
    arrays = {
        "recording_id": "r",
        "subject_id": "s",
        "frame_rate_hz": 4.28,
        "traces": np.ones((2, 5), dtype=np.float32),
        "unit_ids": np.array(["a", "b"]),
    }
    arrays |= changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


NOT_FINITE = np.ones((2, 5), dtype=np.float32)
NOT_FINITE[1, 3] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_rate_hz": None}, "bad.npz: field frame_rate_hz is missing"),
        ({"subject_id": None}, "bad.npz: field subject_id is missing"),
        ({"frame_rate_hz": 0.0}, "frame_rate_hz: 0.0 must be above 0"),
        ({"frame_rate_ratio": np.array([1, 0])}, "frame_rate_hz: Fraction"),
        ({"traces": np.ones((2, 5), dtype=np.int64)}, "field traces has type int64"),
        ({"traces": np.ones((3, 5))}, r"traces is float32 \(3, 5\); float32 \(2 units, frames\) is needed"),
        (
            {"traces": NOT_FINITE},
            "1 of 2 units have values that are not finite, the first is unit 'b' at frame 3; leave these units out",
        ),
        ({"unit_ids": np.array(["a", "a"])}, "'a' stands for 2 units"),
        ({"gap_samples": np.array([[5, 2]])}, "gap_samples must be"),
        ({"mask_samples": np.array([[0.0, 2.0]])}, "field mask_samples has type float64"),
        ({"unit_depth_um": np.zeros(3)}, r"unit_depth_um has shape \(3,\)"),
    ],
)
def test_a_wrong_file_is_rejected_with_its_name_and_field(tmp_path: Path, changes, message):
    with pytest.raises(RecordingError, match=message):
        TraceRecording.load(_npz(tmp_path / "bad.npz", **changes))


def test_what_is_no_npz_at_all_is_rejected(tmp_path: Path):
    (tmp_path / "text.npz").write_text("hello")
    for name in ("text.npz", "absent.npz"):
        with pytest.raises(RecordingError, match=name):
            TraceRecording.load(tmp_path / name)
