"""What a client can ask about units: where they lie, what they did in the last window, why they are predicted so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nuclr_stream import wire
from nuclr_stream.client import Publisher, Query, QueryError, Subscription
from nuclr_stream.client.replay import replay
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.prediction.pool import LogLinearPool, log_softmax
from nuclr_stream.recordings.recording import Recording
from tests.nuclr_stream.conftest import until, where

RunDaemon = Callable[..., Daemon]


@pytest.fixture
def played(run_daemon: RunDaemon, recording: Recording) -> Daemon:
    """A daemon into which the small recording was played."""
    daemon = run_daemon()
    list(replay(recording, **where(daemon)))
    return daemon


def test_units_are_known_before_the_first_window_with_what_the_source_knows_of_them(run_daemon: RunDaemon) -> None:
    daemon = run_daemon()
    with (
        Publisher(daemon.endpoints["data"], stream="rig", sample_rate=30_000, epoch=5) as rig,
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        Query(daemon.endpoints["query"]) as query,
    ):
        rig.units(["a", "b"], shank=[3, -1], x_um=[16.0, np.nan], depth_um=[120.0, np.nan])
        rig.spikes([], [], stop=3_000)
        until(subscription, lambda message: isinstance(message, wire.StreamState) and message.units == 2)
        found = query.activity("rig", counts=True)
    assert (found.unit_ids, found.shank.tolist(), found.epoch) == (("a", "b"), [3, -1], 5)
    np.testing.assert_array_equal(found.x_um, np.float32([16, np.nan]))
    np.testing.assert_array_equal(found.depth_um, np.float32([120, np.nan]))
    assert found.counts.shape == (2, 0)


def test_counts_are_those_of_the_last_window_and_only_sent_when_asked_for(played: Daemon, recording: Recording) -> None:
    with Query(played.endpoints["query"]) as query:
        found, without = query.activity("random_0", counts=True), query.activity("random_0")
    assert found.counts.shape == (20, 500)
    assert found.observed.all()
    assert without.counts.shape == (20, 0)
    last = recording.spike_samples >= found.end_sample - 10 * 30_000
    spikes = np.bincount(recording.spike_units[last & (recording.spike_samples < found.end_sample)], minlength=20)
    order = [recording.unit_ids.tolist().index(unit_id) for unit_id in found.unit_ids]
    assert found.counts.sum(axis=1).tolist() == spikes[order].tolist()


def test_bins_without_data_are_told_from_silent_ones(run_daemon: RunDaemon) -> None:
    daemon = run_daemon()
    with (
        Publisher(daemon.endpoints["data"], stream="rig", sample_rate=30_000, epoch=5) as rig,
        Subscription("rig", **where(daemon, "results", "query")) as subscription,
        Query(daemon.endpoints["query"]) as query,
    ):
        units = rig.units(["a", "b"])
        rig.spikes([10, 20], units, stop=150_000)
        rig.skip(180_000)
        rig.spikes([], [], stop=300_000)
        until(subscription, lambda message: isinstance(message, wire.Predictions))
        found = query.activity("rig", counts=True)
    seconds = found.observed.reshape(10, 50)
    assert seconds.any(axis=1).tolist() == [True] * 5 + [False] + [True] * 4


def test_evidence_makes_the_published_probabilities_again(played: Daemon) -> None:
    with Query(played.endpoints["query"]) as query:
        predictions = next(m for m in query.snapshot("random_0").messages if isinstance(m, wire.Predictions))
        document = query.evidence("random_0", ["u3", "nobody", "u7"])
    assert [unit["unit_id"] for unit in document["units"]] == ["u3", "u7"]
    assert (document["step"], document["end_sample"]) == (predictions.step, predictions.end_sample)
    row = predictions.unit_ids.index("u3")
    for task in predictions.tasks:
        found = document["units"][0]["tasks"][task.name]
        assert document["classes"][task.name] == list(task.classes)
        assert found["pool"] == 0 and 0 <= found["abstain_below"] < 1
        logs = [p["weight"] * np.log(np.maximum(p["probabilities"], 1e-9)) for p in found["predictors"].values()]
        np.testing.assert_allclose(
            np.exp(log_softmax(np.sum(logs, axis=0)[None]))[0], task.probabilities[row], atol=0.02
        )


def test_evidence_about_what_is_not_there_says_so(run_daemon: RunDaemon) -> None:
    daemon = run_daemon()
    with Query(daemon.endpoints["query"]) as query:
        with pytest.raises(QueryError, match="unknown_stream"):
            query.evidence("nowhere", ["a"])
        with pytest.raises(QueryError, match="unknown_stream"):
            query.activity("nowhere")


def test_thresholds_and_weights_are_those_at_the_exposure_of_the_unit() -> None:
    pool = LogLinearPool(
        predictors=("embedding", "statistics"),
        n=(1.0, 4.0),
        weight=((0.2, 0.8), (0.5, 0.5)),
        abstain_below=(0.9, 0.5),
        set_above=(0.1, 0.1),
    )
    exposure = np.array([1.0, 2.0, 4.0], dtype=np.float32)
    np.testing.assert_allclose(pool.least(exposure), [0.9, 0.7, 0.5])
    np.testing.assert_allclose(pool.at(pool.weight[0], exposure), [0.2, 0.5, 0.8])
    np.testing.assert_allclose(pool.least(exposure, 0.3), 0.3)
