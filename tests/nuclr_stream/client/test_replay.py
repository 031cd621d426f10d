"""Replay: what comes back does not depend on the speed, equals the labeler in process, and no step is skipped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nuclr_stream.client import Publisher, subscriber
from nuclr_stream.client import replay as replay_module
from nuclr_stream.client.replay import replay, window_ends
from nuclr_stream.client.subscriber import Query, Subscription
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.errors import DaemonGoneError, NuclrStreamError
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.wire import Predictions
from tests.nuclr_stream.conftest import assert_same, make_recording, predicted_in_process, where

RunDaemon = Callable[..., Daemon]


def played(recording: Recording, daemon: Daemon, *, speed: float | None = None, stream: str = "") -> list[Predictions]:
    return [one.predictions for one in replay(recording, speed=speed, stream=stream, **where(daemon))]


def test_streamed_predictions_are_bitwise_equal_at_any_speed_and_in_process(
    run_daemon: RunDaemon, recording: Recording, tiny_model: Model
) -> None:
    daemon = run_daemon()
    fast = played(recording, daemon, stream="fast")
    slow = played(recording, daemon, stream="slow", speed=40.0)
    assert_same(fast, predicted_in_process(recording, tiny_model))
    assert_same(slow, fast)
    assert len(fast) == 11
    assert [one.skipped_steps for one in (fast[-1], slow[-1])] == [0, 0]
    assert [one.seq for one in fast] == list(range(1, 12))


def test_two_probes_at_once_stay_apart(run_daemon: RunDaemon, tiny_model: Model) -> None:
    daemon = run_daemon()
    recordings = [make_recording(seed=1), make_recording(seed=2, units=31, sample_rate="24414.0625")]
    found: dict[str, list[Predictions]] = {}

    def play(recording: Recording) -> None:
        found[recording.recording_id] = played(recording, daemon)

    threads = [threading.Thread(target=play, args=(recording,)) for recording in recordings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for recording in recordings:
        assert_same(found[recording.recording_id], predicted_in_process(recording, tiny_model))
        assert found[recording.recording_id][-1].skipped_steps == 0


@pytest.mark.parametrize("gap_s", [(12.0, 12.7), (12.0, 13.5), (12.0, 45.0), (0.0, 4.0)])
def test_gaps_and_masks_are_sent_as_such(run_daemon: RunDaemon, tiny_model: Model, gap_s: tuple[float, float]) -> None:
    whole = make_recording(duration_s=60.0)
    gap = np.array([[int(gap_s[0] * 30_000), int(gap_s[1] * 30_000)]], dtype=np.int64)
    inside = (whole.spike_samples >= gap[0, 0]) & (whole.spike_samples < gap[0, 1])
    recording = replace(
        whole,
        spike_samples=whole.spike_samples[~inside],
        spike_units=whole.spike_units[~inside],
        gap_samples=gap,
        mask_samples=np.array([[50 * 30_000, 50 * 30_000 + 10]], dtype=np.int64),
    )
    found = played(recording, run_daemon())
    assert_same(found, predicted_in_process(recording, tiny_model))
    assert found[-1].skipped_steps == 0
    assert {"mask"} < {reason for one in found for reason in (*one.reasons, "more")}
    assert max(one.missing for one in found) > 0


def test_it_knows_every_window_that_the_daemon_will_close(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon(hop_s=2.5)
    with Query(daemon.endpoints["query"]) as query:
        ends = window_ends(recording, query.status())
    assert ends == [one.end_sample for one in played(recording, daemon)]
    assert ends == [int(s * 30_000) for s in (10, 12.5, 15, 17.5, 20)]


def test_a_daemon_with_lateness_is_not_waited_for_in_vain(
    run_daemon: RunDaemon, recording: Recording, tiny_model: Model
) -> None:
    found = played(recording, run_daemon(lateness_s=3.0))
    assert_same(found, predicted_in_process(recording, tiny_model))
    assert found[-1].skipped_steps == 0


def test_the_unit_table_is_sent_again(
    run_daemon: RunDaemon, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "TABLE_EVERY_S", 0.0)
    daemon = run_daemon()
    played(recording, daemon)
    with Query(daemon.endpoints["query"]) as query:
        counters = query.status()["streams"]["random_0"]["counters"]
    assert counters["tables_repeated"] > 100
    assert counters["received"] == counters["accepted"]


def test_no_daemon_is_said_within_a_second(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "GONE_AFTER_S", 0.05)
    nowhere = "tcp://127.0.0.1:9"
    with pytest.raises(DaemonGoneError, match="serve running"):
        next(replay(recording, data=nowhere, results=nowhere, query=nowhere))


def test_a_daemon_that_ends_in_the_middle_ends_the_replay(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon()
    playing = replay(recording, speed=10.0, **where(daemon))
    next(playing)
    daemon.stop()
    with pytest.raises(DaemonGoneError):
        list(playing)


def test_a_window_that_never_comes_back_is_reported(
    run_daemon: RunDaemon, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "STALLED_S", 0.0)
    monkeypatch.setattr(Subscription, "receive", lambda self, timeout_s: None)
    daemon = run_daemon()
    playing = replay_module._Playing(recording, {**_status(daemon)}, stream="x", speed=None, start=0)
    with pytest.raises(NuclrStreamError, match="window 0 of stream 'x' has not come back"):
        list(playing._wait(Subscription.__new__(Subscription), due_s=0.0, published=1))


def test_another_source_on_the_same_stream_is_reported(run_daemon: RunDaemon, recording: Recording) -> None:
    daemon = run_daemon()
    playing = replay(recording, stream="probe", speed=5.0, **where(daemon))
    next(playing)
    with Publisher(daemon.endpoints["data"], stream="probe", sample_rate=30_000, epoch=4 * 10**12) as rig:
        rig.heartbeat()
        with pytest.raises(NuclrStreamError, match="another source took over stream 'probe'"):
            list(playing)


def _status(daemon: Daemon) -> dict[str, object]:
    with Query(daemon.endpoints["query"]) as query:
        return query.status()
