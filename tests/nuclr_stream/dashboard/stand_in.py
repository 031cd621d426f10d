"""A stand-in for a daemon: real sockets, real messages, predictions made up. What a page can show is set, not awaited.

Units of every probe lie in three regions along depth; cell types are drawn with a fixed seed, probabilities wander a
little from step to step, so that histories have something to show.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import zmq

from nuclr_stream import wire
from nuclr_stream.bundle.manifest import TaskPart
from nuclr_stream.placement.report import placement_report
from nuclr_stream.placement.trajectory import Planned
from nuclr_stream.wire import Abstained, UnitFlag

CLASSES = {"cell_type": ("E", "PV", "SST", "VIP"), "brain_region": ("CTX", "HPF", "TH")}
SETS = ("embedding", "statistics", "coupling", "embedding_neighbourhood", "statistics_neighbourhood")
RATE = Fraction(30_000)
WINDOW_S, BINS = 10.0, 500


@dataclass
class FakeProbe:
    """One made-up stream; change its fields to change what is published.

    `shanks` 0 leaves the shank unknown, `depths` False the depth; `abstain` is the share of units without a call,
    `strange` the share out of distribution, `table_only` publishes no predictions: warming up.
    """

    stream: str
    units: int = 30
    shanks: int = 1
    depths: bool = True
    abstain: float = 0.25
    strange: float = 0.06
    table_only: bool = False
    state: Literal["ready", "warming_up", "degraded", "ended"] = "ready"
    reasons: tuple[str, ...] = ()
    progress: float = 1.0
    missing: float = 0.0
    hop_s: float = 1.0
    counters: dict[str, int] = field(default_factory=dict)
    step: int = 90
    epoch: int = 7
    silent: bool = False
    repeat: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.units, *self.stream.encode()])
        u = self.units
        self.ids = tuple(f"u{k}" for k in range(u))
        self.shank = rng.integers(0, max(self.shanks, 1), u).astype(np.int32) if self.shanks else np.full(u, -1, "i4")
        self.depth = np.round(rng.uniform(60, 3500, u) / 20).astype(np.float32) * 20
        self.x = (np.maximum(self.shank, 0) * 250 + rng.choice([8, 24, 40, 56], u)).astype(np.float32)
        if not self.depths:
            self.depth = np.full(u, np.nan, np.float32)
        border = 40 * np.maximum(self.shank, 0)
        region = np.where(self.depth > 2400 + border, 0, np.where(self.depth > 1150 + border, 1, 2))
        cell = rng.choice(4, u, p=[0.6, 0.18, 0.14, 0.08])
        self.rate = rng.gamma(1.3, 4.0, u)
        self.logits = {
            "cell_type": rng.normal(0, 0.7, (u, 4)) + rng.uniform(0.4, 4.2, (u, 1)) * np.eye(4)[cell],
            "brain_region": rng.normal(0, 0.6, (u, 3)) + rng.uniform(0.6, 3.4, (u, 1)) * np.eye(3)[region],
        }
        self.doubt = rng.uniform(0, 1, u)
        self.phase = rng.uniform(0, 6.28, u)
        self._placement: dict[str, Any] = {}
        self._made: list[wire.Predictions] = []

    def next_predictions(self, *, instance: int) -> wire.Predictions:
        """The predictions of the step that is due; those of `repeat` steps are made once and go round."""
        if not self.repeat:
            return self.predictions(instance=instance)
        if len(self._made) < self.repeat:
            self._made.append(self.predictions(instance=instance))
        now = time.monotonic_ns()
        return replace(
            self._made[self.step % len(self._made)],
            step=self.step,
            seq=self.step,
            end_sample=int((WINDOW_S + self.step * self.hop_s) * RATE),
            closed_ns=now - 20_000_000,
            published_ns=now,
        )

    def predictions(self, *, instance: int) -> wire.Predictions:
        """The predictions of the step that is due."""
        strange = self.doubt > 1 - self.strange
        end = int((WINDOW_S + self.step * self.hop_s) * RATE)
        tasks = []
        for name, classes in CLASSES.items():
            drift = 0.35 * np.sin(self.step / 9 + self.phase)[:, None] * np.cos(np.arange(len(classes)) * 2.1)
            e = np.exp(self.logits[name] + drift)
            p = (e / e.sum(axis=1, keepdims=True)).astype(np.float32)
            order = np.argsort(p.max(axis=1) + 0.05 * self.doubt)
            why = np.zeros(self.units, np.uint8)
            why[order[: round(self.abstain * self.units)]] = Abstained.LOW_PROBABILITY
            why[strange] = Abstained.OUT_OF_DISTRIBUTION
            if "population_below_minimum" in self.reasons:
                why[:] = Abstained.SMALL_POPULATION
            stable = (end - (1 + (self.doubt * self.step * 0.9).astype(int)) * int(RATE * Fraction(self.hop_s))).clip(0)
            tasks.append(
                wire.TaskPredictions(
                    name=name,
                    classes=classes,
                    probabilities=p,
                    sets=p > 0.12,
                    why=why,
                    stable_since=stable.astype(np.int64),
                    flips=int(self.step % 3),
                )
            )
        now = time.monotonic_ns()
        return wire.Predictions(
            stream=self.stream,
            epoch=self.epoch,
            step=self.step,
            seq=self.step,
            instance=instance,
            end_sample=end,
            sample_rate=RATE,
            origin=0,
            closed_ns=now - 21_000_000 - int(8e6 * self.doubt[self.step % self.units]),
            published_ns=now,
            state="degraded" if self.state == "degraded" else "ready",
            reasons=tuple(reason for reason in self.reasons if "_" not in reason or reason.startswith("population")),
            missing=self.missing,
            active_units=round(self.units * 0.96),
            skipped_steps=self.counters.get("skipped_steps", 0),
            bundle="rat@4be1c09f",
            hop_s=self.hop_s,
            window_s=WINDOW_S,
            unit_index=np.arange(self.units, dtype=np.uint32),
            unit_ids=self.ids,
            windows=np.full(self.units, self.step + 1, np.uint32),
            exposure=np.full(self.units, 1 + self.step * self.hop_s / WINDOW_S, np.float32),
            ood_score=np.where(strange, 1.4 + self.doubt, 0.3 + 0.6 * self.doubt).astype(np.float32),
            flags=np.where(strange, UnitFlag.OOD_EMBEDDING, 0).astype(np.uint8),
            tasks=tuple(tasks),
        )

    def stream_state(self, *, instance: int) -> wire.StreamState:
        """The state as it is set."""
        return wire.StreamState(
            stream=self.stream,
            epoch=self.epoch,
            instance=instance,
            state="warming_up" if self.table_only and self.state == "ready" else self.state,
            reasons=self.reasons,
            progress=self.progress,
            units=self.units,
            step=-1 if self.table_only else self.step,
            end_sample=0,
            watermark=0,
            skipped_steps=0,
            counters={"received": 900 + self.step, "spikes_received": 100_000, **self.counters},
        )

    def activity(self, request: wire.ActivityRequest) -> wire.ActivityReply:
        """The units, and Poisson spikes."""
        has_counts = request.counts and not self.table_only
        rng = np.random.default_rng(self.step)
        counts = rng.poisson(self.rate[:, None] * WINDOW_S / BINS, (self.units, BINS if has_counts else 0))
        observed = np.ones(counts.shape[1], dtype=np.bool_)
        if has_counts and self.missing:
            observed[200 : 200 + round(self.missing * BINS)] = False
        return wire.ActivityReply(
            request_id=request.request_id,
            stream=self.stream,
            epoch=self.epoch,
            version=1,
            end_sample=int((WINDOW_S + self.step * self.hop_s) * RATE),
            scale=1.0,
            unit_index=np.arange(self.units, dtype=np.uint32),
            shank=self.shank,
            x_um=self.x,
            depth_um=self.depth,
            channel=np.full(self.units, -1, np.int32),
            unit_ids=self.ids,
            counts=(counts * observed).astype(np.uint8),
            observed=observed,
        )

    def evidence(self, request: wire.EvidenceRequest) -> dict[str, Any]:
        """A document as the daemon makes it."""
        rng = np.random.default_rng(3)
        units = []
        for name in request.unit_ids:
            row, tasks = self.ids.index(name), {}
            for task in CLASSES:
                shares = {}
                for one in SETS:
                    e = np.exp(self.logits[task][row] * rng.uniform(0.3, 1.5) + rng.normal(0, 0.5, len(CLASSES[task])))
                    weight = float(rng.uniform(0.1, 0.5))
                    shares[one] = {"has_data": True, "probabilities": (e / e.sum()).round(4).tolist(), "weight": weight}
                tasks[task] = {"pool": 0, "exposure": 9.0, "abstain_below": 0.7, "set_above": 0.1, "predictors": shares}
            units.append({"unit_id": name, "tasks": tasks})
        return {"step": self.step, "units": units}

    def placement(self, plan: list[Planned]) -> dict[str, Any]:
        """The real placement of the made-up predictions, made once."""
        if not self._placement or plan:
            part = SimpleNamespace(name="brain_region", classes=CLASSES["brain_region"], prior=(1 / 3,) * 3)
            self._placement = placement_report(
                self.predictions(instance=1),
                cast(TaskPart, part),
                depth_um=self.depth,
                shank=self.shank.astype(np.float32),
                plan=plan,
            )
        return self._placement


class StandIn:
    """Publishes the probes and answers for them, in a thread, until closed. `endpoints` are `results` and `query`.

    `hop_s` of the clock on the wall; 0 publishes only when `publish` is called.
    """

    def __init__(self, *probes: FakeProbe, hop_s: float = 0.0, endpoints: dict[str, str] | None = None) -> None:
        self.probes = {probe.stream: probe for probe in probes}
        self.instance = time.time_ns() // 1000
        self.hop_s = hop_s
        self.lock = threading.Lock()
        self._context = zmq.Context()
        self._results, self._query = self._context.socket(zmq.PUB), self._context.socket(zmq.ROUTER)
        self._wake = self._context.socket(zmq.PAIR)
        self._wake.bind("inproc://wake")
        self._waker = self._context.socket(zmq.PAIR)
        self._waker.connect("inproc://wake")
        free = {"results": "tcp://127.0.0.1:*", "query": "tcp://127.0.0.1:*"}
        for name, socket in (("results", self._results), ("query", self._query)):
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind((endpoints or free)[name])
        sockets = {"results": self._results, "query": self._query}
        self.endpoints = {name: one.getsockopt_string(zmq.LAST_ENDPOINT) for name, one in sockets.items()}
        self._open = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def publish(self, *, step: bool = True) -> None:
        """Publish now, a step on."""
        self._waker.send(b"step" if step else b"state")

    def event(self, stream: str, kind: str, detail: str = "") -> None:
        """Publish an event."""
        self._waker.send(json.dumps([stream, kind, detail]).encode())

    def close(self) -> None:
        """End the thread and close everything: to a page the daemon is gone."""
        if not self._open:
            return
        self._open = False
        self._waker.send(b"end")
        self._thread.join(5)
        for socket in (self._results, self._query, self._wake, self._waker):
            socket.close(0)
        self._context.term()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._query, zmq.POLLIN)
        poller.register(self._wake, zmq.POLLIN)
        next_step = time.monotonic() + self.hop_s
        while self._open:
            due_s = next_step - time.monotonic() if self.hop_s else 0.4
            ready = dict(poller.poll(max(min(due_s, 0.4), 0) * 1000))
            with self.lock:
                if self._query in ready:
                    self._reply()
                said = self._wake.recv() if self._wake in ready else b""
                if said.startswith(b"["):
                    stream, kind, detail = json.loads(said)
                    now = time.monotonic_ns()
                    self._send(wire.Event(stream=stream, kind=kind, detail=detail, epoch=7, monotonic_ns=now))
                if (self.hop_s and time.monotonic() >= next_step) or said == b"step":
                    next_step += self.hop_s
                    self._step()
                if not ready or said:
                    self._states()

    def _step(self) -> None:
        for probe in self.probes.values():
            if not (probe.table_only or probe.silent):
                probe.step += 1
                self._send(probe.next_predictions(instance=self.instance))

    def _states(self) -> None:
        for probe in self.probes.values():
            self._send(probe.stream_state(instance=self.instance))
        self._send(self._daemon())

    def _daemon(self) -> wire.DaemonState:
        return wire.DaemonState(
            instance=self.instance,
            uptime_s=612.0,
            provider="CPUExecutionProvider",
            bundle="rat@4be1c09f",
            streams=tuple(self.probes),
        )

    def _send(self, message: wire.Output) -> None:
        self._results.send_multipart(wire.encode(message))

    def _reply(self) -> None:
        identity, *frames = self._query.recv_multipart()
        request = wire.decode(frames)
        assert isinstance(request, wire.Request)
        self._query.send_multipart([identity, *wire.encode(self._answer(request))])

    def _answer(self, request: wire.Request) -> wire.Reply:
        number = request.request_id
        if isinstance(request, wire.SnapshotRequest):
            messages: list[Any] = [self._daemon()]
            for probe in self.probes.values():
                messages.append(probe.stream_state(instance=self.instance))
                if not probe.table_only:
                    messages.append(probe.predictions(instance=self.instance))
            return wire.SnapshotReply(request_id=number, messages=tuple(messages))
        if isinstance(request, wire.StatusRequest):
            return wire.StatusReply(request_id=number, status=json.dumps({"version": "0.1.0", "threads": 1}))
        probe = self.probes.get(getattr(request, "stream", ""))
        if probe is None:
            return wire.ErrorReply(request_id=number, reason="unknown_stream")
        if isinstance(request, wire.ActivityRequest):
            return probe.activity(request)
        if isinstance(request, wire.EvidenceRequest):
            evidence = json.dumps(probe.evidence(request))
            return wire.EvidenceReply(request_id=number, stream=probe.stream, evidence=evidence)
        assert isinstance(request, wire.PlacementRequest)
        plan = [Planned(*row) for row in zip(request.regions, request.from_um, request.to_um, strict=True)]
        if probe.table_only:
            return wire.ErrorReply(request_id=number, reason="warming_up")
        document = json.dumps(probe.placement([replace(one) for one in plan]))
        return wire.PlacementReply(request_id=number, stream=probe.stream, placement=document)
