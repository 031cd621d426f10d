"""Recordings as live sources: any speed, any place to begin, loops; at full speed no window is skipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from nuclr_stream.client.replay import replay
from nuclr_stream.client.subscriber import Query
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.recordings.traces import TraceRecording
from nuclr_stream.sources.file import FileSource, FollowedFileSource
from nuclr_stream.wire import End, MaskInterval, Predictions, SpikeBatch, TraceBatch, UnitTable
from tests.nuclr_stream.conftest import make_recording, where
from tests.nuclr_stream.sources.daemon_inbox import daemon_inbox

RunDaemon = Callable[..., Daemon]


def played(source: FileSource) -> None:
    while source.turn(1.0):
        pass
    source.close()


@pytest.mark.parametrize("start", [0, 45_000])
def test_every_spike_from_the_place_to_begin_arrives_at_any_speed(start: int) -> None:
    recording = replace(make_recording(duration_s=3.0), mask_samples=np.array([[1_000, 1_100], [60_000, 60_100]]))
    with daemon_inbox() as inbox:
        source = FileSource(recording, endpoint=inbox.endpoint, speed=1e6, start=start)
        played(source)
        inbox.take(ends=1)
    after = recording.spike_samples >= start
    ids = recording.unit_ids[recording.spike_units[after]]
    expected = sorted(zip(ids.tolist(), recording.spike_samples[after].tolist(), strict=True))
    assert sorted(inbox.spikes().elements()) == expected
    assert inbox.observed(inbox.epochs[0]) == [(start, 90_000)]
    assert len(inbox.of(MaskInterval)) == (1 if start else 2)
    depth = recording.units["depth_um"].astype(np.float32).tolist()
    assert inbox.of(UnitTable)[0].depth_um.tolist() == depth, "where the file has it"
    assert source.report()["counters"]["spikes"] == after.sum()


def test_data_leave_when_a_rig_would_send_them() -> None:
    with daemon_inbox() as inbox:
        source = FileSource(make_recording(duration_s=2.0), endpoint=inbox.endpoint, speed=1.0)
        assert source.turn(0.0) is True
        source.close()
        inbox.take(2)
    assert not inbox.of(SpikeBatch), "the first block is complete after 50 ms"


def test_each_pass_of_a_loop_is_an_epoch_in_which_units_keep_their_exposure() -> None:
    with daemon_inbox() as inbox:
        source = FileSource(make_recording(duration_s=0.5), endpoint=inbox.endpoint, speed=1e6, loop=True)
        for _ in range(3):
            assert source.turn(1.0) is True
        source.close()
        inbox.take(ends=3)
    first = {table.epoch: table.continues for table in reversed(inbox.of(UnitTable))}
    assert [first[epoch] for epoch in inbox.epochs[:3]] == [False, True, True]
    assert [end.sample for end in inbox.of(End)][:3] == [15_000] * 3


def test_traces_play_too() -> None:
    values = np.arange(12, dtype=np.float32).reshape(2, 6)
    ids = np.array(["a", "b"])
    recording = TraceRecording(
        recording_id="calcium", subject_id="s", frame_rate=Fraction(5), traces=values, unit_ids=ids
    )
    with daemon_inbox() as inbox:
        played(FileSource(recording, endpoint=inbox.endpoint, speed=1e6))
        inbox.take(ends=1)
    assert np.array_equal(np.concatenate([batch.values for batch in inbox.of(TraceBatch)], axis=1), values)


@pytest.mark.parametrize("start", [0, 45_123])
def test_at_full_speed_no_window_is_skipped_wherever_it_begins(
    run_daemon: RunDaemon, recording: Recording, start: int
) -> None:
    daemon = run_daemon()
    source = FollowedFileSource(recording, endpoints=where(daemon), start=start)
    while source.turn(0.1):
        pass
    source.close()
    with Query(daemon.endpoints["query"], timeout_s=30.0) as query:
        (last,) = (m for m in query.snapshot(recording.recording_id).messages if isinstance(m, Predictions))
    assert last.end_sample == recording.num_samples
    assert last.skipped_steps == 0
    assert source.report()["counters"]["predictions"] == (11 if start == 0 else 9)
    assert [one.predictions.step for one in replay(recording, start=start, **where(daemon))][-1] == last.step
