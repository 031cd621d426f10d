"""What the daemon counts and times, for Prometheus. Names begin with nuclr_stream_, units are base units.

No unit id is ever a label, and a stream is one only for the few gauges below: the number of series stays small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.5,
    1,
    2.5,
    5,
)


@dataclass(frozen=True)
class StreamFigures:
    """The figures of one stream.

    `abstained` are units by task and reason, reasons that occur only; `flips` changes of a top class by task since the
    stream is known, epochs that ended included.
    """

    units: int
    active_units: int
    progress: float
    missing: float
    skipped_steps: int
    units_out_of_distribution: int
    abstained: Mapping[tuple[str, str], int]
    flips: Mapping[str, int]
    degraded: bool = False
    waits_seconds: float = 0.0


@dataclass(frozen=True)
class Figures:
    """What the daemon knew when it last reported; replaced as a whole, never changed.

    `inputs` are messages and spikes of all streams by what became of them, `dropped` what belongs to no stream by
    reason, `not_recorded` predictions that the record lacks, `snapshots` how saving goes by the names of _SNAPSHOTS.
    """

    inputs: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    streams: Mapping[str, StreamFigures] = field(default_factory=dict)
    queue_bytes: int = 0
    ready: bool = False
    not_recorded: int = 0
    snapshots: Mapping[str, float] = field(default_factory=dict)


class Metrics(Collector):
    """All metrics of one daemon, on the registry that is handed in or on one of its own."""

    def __init__(self, *, provider: str, bundle: str, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = CollectorRegistry() if registry is None else registry
        self.figures = Figures()
        self._info = {"provider": provider, "bundle": bundle}
        self._predictions = Counter("nuclr_stream_predictions", "Predictions published", registry=registry)
        self._skipped = Counter("nuclr_stream_skipped_steps", "Steps overtaken by newer ones", registry=registry)
        self._errors = Counter("nuclr_stream_loop_errors", "Unexpected errors in the main loop", registry=registry)
        self._queries = Counter("nuclr_stream_queries", "Queries answered, by kind", ["kind"], registry=registry)
        self._latency = _histogram("nuclr_stream_step_latency_seconds", "Window closed to prediction out", registry)
        self._label = _histogram("nuclr_stream_label_seconds", "Encoder, exposure and readouts of a window", registry)
        registry.register(self)

    def predicted(self, *, latency_s: float, label_s: float) -> None:
        """Count one published prediction."""
        self._predictions.inc()
        self._latency.observe(latency_s)
        self._label.observe(label_s)

    def skipped(self, steps: int) -> None:
        """Count steps that were overtaken by newer ones."""
        self._skipped.inc(steps)

    def failed(self) -> None:
        """Count an unexpected error at the edge of the main loop."""
        self._errors.inc()

    def queried(self, kind: str) -> None:
        """Count one query; `kind` is one of the protocol's request names."""
        self._queries.labels(kind).inc()

    def text(self) -> bytes:
        """Return everything in the Prometheus text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield what stands in `figures`; called by the registry, from the HTTP thread."""
        figures = self.figures
        info = GaugeMetricFamily("nuclr_stream_info", "What runs, and where", labels=list(self._info))
        info.add_metric(list(self._info.values()), 1)
        yield info
        yield _by_reason("nuclr_stream_inputs", "Messages and spikes by what became of them", figures.inputs)
        yield _by_reason("nuclr_stream_dropped", "What belongs to no stream, by reason", figures.dropped)
        yield GaugeMetricFamily("nuclr_stream_streams", "Streams known", value=len(figures.streams))
        yield GaugeMetricFamily("nuclr_stream_queue_bytes", "Input not decoded yet", value=figures.queue_bytes)
        yield GaugeMetricFamily("nuclr_stream_ready", "Whether predictions can be expected", value=figures.ready)
        yield CounterMetricFamily("nuclr_stream_record_errors", "Predictions not recorded", value=figures.not_recorded)
        for name, text in _SNAPSHOTS.items():
            value = figures.snapshots.get(name, 0)
            yield CounterMetricFamily(f"nuclr_stream_snapshot{name}", text, value=value)
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"nuclr_stream_stream_{name}", text, labels=["stream"])
            for stream, values in figures.streams.items():
                value = getattr(values, name)
                if value or name not in _TROUBLES:
                    gauge.add_metric([stream], value)
            yield gauge
        yield from _of_tasks(figures.streams)


_SNAPSHOTS = {
    "s": "Snapshots of streams written",
    "_bytes": "Bytes of snapshots written",
    "_seconds": "Time that writing snapshots took",
    "_errors": "Snapshots that could not be written",
}
_TROUBLES = ("degraded", "waits_seconds")
"""Gauges of streams that are in trouble: the others have none, for the number of series is bounded."""
_GAUGES = {
    "degraded": "1 while the predictions of the stream are not to be relied on, see its reasons",
    "waits_seconds": "For how long a window has been waiting with nothing coming out",
    "units": "Units of the table",
    "active_units": "Units in the last window",
    "progress": "Towards the first window, 0 to 1",
    "missing": "Fraction of the last window without data",
    "skipped_steps": "Steps of this epoch overtaken by newer ones",
    "units_out_of_distribution": "Units that are unlike those of training",
}


def _of_tasks(streams: Mapping[str, StreamFigures]) -> Iterator[Metric]:
    abstained = GaugeMetricFamily(
        "nuclr_stream_stream_abstained_units",
        "Units for which no class is named, by task and reason",
        labels=["stream", "task", "why"],
    )
    flips = CounterMetricFamily(
        "nuclr_stream_stream_flips", "Changes of a unit's top class, by task", labels=["stream", "task"]
    )
    for stream, values in streams.items():
        for (task, why), units in values.abstained.items():
            abstained.add_metric([stream, task, why], units)
        for task, count in values.flips.items():
            flips.add_metric([stream, task], count)
    yield abstained
    yield flips


def _histogram(name: str, text: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, buckets=LATENCY_BUCKETS_S, registry=registry)


def _by_reason(name: str, text: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["reason"])
    for reason, value in counts.items():
        family.add_metric([reason], value)
    return family
