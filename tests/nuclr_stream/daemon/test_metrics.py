"""Metrics and health: what Prometheus scrapes, what an orchestrator asks, and that both stay small and truthful."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from nuclr_stream.client import Publisher, Subscription
from nuclr_stream.client.replay import replay
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.daemon.health import Board, HealthServer
from nuclr_stream.daemon.metrics import LATENCY_BUCKETS_S, Figures, Metrics, StreamFigures
from nuclr_stream.errors import EndpointError
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.wire import Abstained
from tests.nuclr_stream.conftest import ended, until, where

RunDaemon = Callable[..., Daemon]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(provider="cpu", bundle="tiny-1", registry=CollectorRegistry())


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample of an exposition by name and label values."""
    families = text_string_to_metric_families(text)
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_counts_and_times(metrics: Metrics) -> None:
    metrics.predicted(latency_s=0.012, label_s=0.01)
    metrics.skipped(3)
    metrics.failed()
    metrics.queried("SnapshotRequest")
    metrics.figures = Figures(
        not_recorded=1,
        inputs={"received": 7},
        dropped={"malformed_kind": 2},
        streams={
            "a": StreamFigures(
                units=5,
                active_units=4,
                progress=0.5,
                missing=0.1,
                skipped_steps=3,
                units_out_of_distribution=2,
                abstained={("cell_type", "low_probability"): 3, ("cell_type", "no_data"): 1},
                flips={"cell_type": 6, "brain_region": 0},
            )
        },
        queue_bytes=99,
    )
    found = samples(metrics.text().decode())
    expected = {
        ("nuclr_stream_predictions_total", ()): 1,
        ("nuclr_stream_skipped_steps_total", ()): 3,
        ("nuclr_stream_loop_errors_total", ()): 1,
        ("nuclr_stream_record_errors_total", ()): 1,
        ("nuclr_stream_queries_total", ("SnapshotRequest",)): 1,
        ("nuclr_stream_info", ("tiny-1", "cpu")): 1,
        ("nuclr_stream_inputs_total", ("received",)): 7,
        ("nuclr_stream_dropped_total", ("malformed_kind",)): 2,
        ("nuclr_stream_streams", ()): 1,
        ("nuclr_stream_queue_bytes", ()): 99,
        ("nuclr_stream_stream_units", ("a",)): 5,
        ("nuclr_stream_stream_active_units", ("a",)): 4,
        ("nuclr_stream_stream_missing", ("a",)): 0.1,
        ("nuclr_stream_stream_units_out_of_distribution", ("a",)): 2,
        ("nuclr_stream_stream_abstained_units", ("a", "cell_type", "low_probability")): 3,
        ("nuclr_stream_stream_abstained_units", ("a", "cell_type", "no_data")): 1,
        ("nuclr_stream_stream_flips_total", ("a", "cell_type")): 6,
        ("nuclr_stream_stream_flips_total", ("a", "brain_region")): 0,
        ("nuclr_stream_step_latency_seconds_bucket", ("0.01",)): 0,
        ("nuclr_stream_step_latency_seconds_bucket", ("0.02",)): 1,
        ("nuclr_stream_label_seconds_sum", ()): 0.01,
    }
    assert expected.items() <= found.items()


def test_names_are_prefixed_and_buckets_are_the_documented_ones(metrics: Metrics) -> None:
    found = samples(metrics.text().decode())
    assert all(name.startswith("nuclr_stream_") for name, _ in found)
    edges = [float(labels[0]) for name, labels in found if name == "nuclr_stream_step_latency_seconds_bucket"]
    assert edges == [*LATENCY_BUCKETS_S, float("inf")]


def test_series_stay_few_with_every_stream_and_every_reason(metrics: Metrics) -> None:
    reasons = {f"reason_{k}": 1 for k in range(40)}
    tasks = ("cell_type", "brain_region")
    abstained = {(task, why): 1 for task in tasks for why in ("no_data", "low_probability")}
    streams = {f"probe{k}": StreamFigures(1, 1, 1.0, 0.0, 0, 1, abstained, dict.fromkeys(tasks, 1)) for k in range(12)}
    metrics.figures = Figures(inputs=reasons, dropped=reasons, streams=streams)
    for kind in ("SnapshotRequest", "EmbeddingsRequest", "EmbedWindowRequest", "StatusRequest"):
        metrics.queried(kind)
    assert len(samples(metrics.text().decode())) <= 300


# -- over http --------------------------------------------------------------------------------------------------------


@pytest.fixture
def served() -> Iterator[tuple[Board, str]]:
    board = Board()
    server = HealthServer(0, board, lambda: b"# metrics\n")
    yield board, server.endpoint
    server.close()


def test_live_means_the_loop_turned_within_a_second(served: tuple[Board, str]) -> None:
    board, url = served
    board.tick_ns = time.monotonic_ns()
    assert get(url + "/livez") == (200, "ok\n")
    board.tick_ns -= 2 * 10**9
    code, text = get(url + "/livez")
    assert (code, text[:17]) == (503, "main loop silent ")


def test_ready_gives_the_reasons_when_it_is_not(served: tuple[Board, str]) -> None:
    board, url = served
    assert get(url + "/readyz") == (503, "starting\n")
    board.not_ready = ()
    assert get(url + "/readyz") == (200, "ok\n")


def test_status_metrics_and_nothing_else(served: tuple[Board, str]) -> None:
    board, url = served
    board.status = {"bundle": "tiny"}
    assert json.loads(get(url + "/status")[1]) == {"bundle": "tiny"}
    assert get(url + "/metrics") == (200, "# metrics\n")
    assert get(url + "/etc/passwd")[0] == 404


def test_a_client_that_hangs_up_or_talks_nonsense_harms_nobody(served: tuple[Board, str]) -> None:
    board, url = served
    host, port = url.removeprefix("http://").split(":")
    for nonsense in (b"", b"\xff" * 100 + b"\r\n\r\n", b"GET /metrics HTTP/1.0\r\n\r\n"):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(nonsense)
    board.not_ready = ()
    assert get(url + "/readyz")[0] == 200


def test_a_taken_http_port_is_rejected_by_name(served: tuple[Board, str]) -> None:
    port = int(served[1].rsplit(":", 1)[1])
    with pytest.raises(EndpointError, match=rf"http_port {port} .*--http-port"):
        HealthServer(port, Board(), lambda: b"")


# -- of a real daemon -------------------------------------------------------------------------------------------------


def test_a_daemon_is_live_and_ready_and_accounts_for_what_it_received(
    run_daemon: RunDaemon, recording: Recording
) -> None:
    daemon = run_daemon()
    predicted = [received.predictions for received in replay(recording, **where(daemon))]
    assert len(predicted) == 11
    with (
        Subscription("", **where(daemon, "results", "query")) as subscription,
        Publisher(daemon.endpoints["data"], stream="random_0", sample_rate=30_000, epoch=1) as stale,
    ):
        stale.heartbeat()
        for _ in range(2):  # the first may come with the snapshot, the second with a report
            until(subscription, lambda m: ended(m) and m.counters.get("rejected_stale_epoch") == 1)
    url = daemon.endpoints["http"]
    assert get(url + "/livez")[0] == get(url + "/readyz")[0] == 200
    found = samples(get(url + "/metrics")[1])
    assert found["nuclr_stream_predictions_total", ()] == 11
    assert found["nuclr_stream_step_latency_seconds_count", ()] == 11
    for task in (0, 1):
        name, last = predicted[-1].tasks[task].name, predicted[-1].tasks[task]
        flips = sum(one.tasks[task].flips for one in predicted)
        tops = np.array([one.tasks[task].probabilities.argmax(axis=1) for one in predicted])
        assert (
            found["nuclr_stream_stream_flips_total", ("random_0", name)]
            == flips
            == np.diff(tops, axis=0).astype(bool).sum()
        )
        for why in Abstained:
            units = found.get(("nuclr_stream_stream_abstained_units", ("random_0", name, why.word)), 0)
            assert units == (0 if why == Abstained.NO else (last.why == why).sum())
    assert (
        found["nuclr_stream_stream_units_out_of_distribution", ("random_0",)] == predicted[-1].out_of_distribution.sum()
    )
    inputs = {labels[0]: value for (name, labels), value in found.items() if name == "nuclr_stream_inputs_total"}
    assert inputs["received"] == inputs["accepted"] + inputs["rejected_stale_epoch"]
    assert inputs["spikes_received"] == inputs["spikes_accepted"] == len(recording.spike_samples)
