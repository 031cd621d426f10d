"""What the terminal view says, as plain rows and lines: probes, units by confidence, regions along depth, health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nuclr_stream.terminal.feed import Seen
from nuclr_stream.wire import Abstained, Event, Predictions, RuleFired, TaskPredictions, UnitFlag

Order = Literal["confidence", "depth", "id"]
ORDERS: tuple[Order, ...] = ("confidence", "depth", "id")
PROBES = ("probe", "state", "time", "units", "called", "missing", "latency", "age", "why")
HEALTHY = {"received", "accepted", "spikes_received", "spikes_accepted", "frames_received", "tables_repeated"}
"""Counters that grow while everything is well."""
BAR = 10


def probe_row(seen: Seen, stream: str, now: float) -> tuple[str, ...]:
    """Return the cells of PROBES; `now` is the monotonic time."""
    state, one = seen.states.get(stream), seen.predictions.get(stream)
    status = state.state if state else (one.state if one else "")
    reasons = state.reasons if state else (one.reasons if one else ())
    why = ", ".join(reasons).replace("_", " ")
    if one is None:
        progress = f"{100 * state.progress:.0f} % of the first window" if state and status == "warming_up" else ""
        units = str(state.units) if state else ""
        return (stream, status.replace("_", " "), "", units, "", "", "", "", why or progress)
    called = ", ".join(f"{task.name.replace('_', ' ')} {int((~task.abstained).sum())}" for task in one.tasks)
    return (
        stream,
        status.replace("_", " "),
        f"{float(one.end_sample / one.sample_rate):.1f} s",
        str(len(one.unit_ids)),
        called,
        f"{100 * one.missing:.0f} %",
        f"{(one.published_ns - one.closed_ns) / 1e6:.0f} ms",
        f"{now - seen.received[stream]:.1f} s",
        why,
    )


def health(seen: Seen) -> str:
    """Return one line about the daemon: what it is, and everything that was lost or went wrong."""
    if seen.gone:
        return f"{seen.gone} (this view waits)"
    if seen.daemon is None:
        return "waiting for the daemon"
    daemon = seen.daemon
    counts = dict(daemon.counters)
    for state in seen.states.values():
        for name, count in state.counters.items():
            counts[name] = counts.get(name, 0) + count
    skipped = sum(state.skipped_steps for state in seen.states.values())
    counts |= {"skipped_steps": skipped, "lost_by_this_view": seen.lost}
    bad = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in sorted(counts.items()) if n and name not in HEALTHY)
    return f"{daemon.bundle} on {daemon.provider}, up {daemon.uptime_s:.0f} s; {bad or 'nothing lost'}"


def event_line(event: Event | RuleFired) -> str:
    """Return an event in words."""
    if isinstance(event, RuleFired):
        return f"{event.stream} rule {event.rule} {event.subject} {event.value:.2f} ({1000 * event.latency_s:.0f} ms)"
    return f"{event.stream} {event.kind.replace('_', ' ')} {event.detail}".strip()


def unit_columns(one: Predictions) -> tuple[str, ...]:
    """Return the names of the columns of unit rows."""
    return ("unit", "depth", *(task.name.replace("_", " ") for task in one.tasks), "windows", "notes")


def unit_rows(
    one: Predictions, placement: Mapping[str, Any] | None, *, order: Order, task: int = 0
) -> list[tuple[str, ...]]:
    """Return a row for each unit: by confidence in task number `task`, called ones first; by depth; or by id."""
    depth = {unit["unit_id"]: unit["depth_um"] for unit in (placement or {}).get("units", ())}
    rows = _ordered(one, depth, order=order, task=task)
    found = []
    for u in rows:
        unit_id = one.unit_ids[u]
        depth_um = depth.get(unit_id)
        notes = ", ".join(UnitFlag(int(one.flags[u])).words).replace("_", " ")
        cells = [_cell(answer, u) for answer in one.tasks]
        found.append((unit_id, "" if depth_um is None else f"{depth_um:.0f}", *cells, str(one.windows[u]), notes))
    return found


def region_lines(placement: Mapping[str, Any] | None, *, height: int) -> list[str]:
    """Return the regions of every shank from the top down: a line a region, the borders between them.

    A region gets as many lines as it is long, so that the picture has the proportions of the probe.
    """
    if placement is None:
        return ["no regions: the bundle has none,", "or nothing is predicted yet"]
    lines = []
    for shank in placement["shanks"]:
        name = "" if shank["shank"] < 0 else f"shank {shank['shank']}: "
        if not shank["segments"]:
            lines.append(f"{name}{shank['reason'].replace('_', ' ')}")
            continue
        lines.append(f"{name}predicted, um from the tip")
        room = max(height // max(len(placement["shanks"]), 1) - len(shank["boundaries"]) - 1, 1)
        borders = list(reversed(shank["boundaries"]))
        for place, segment in enumerate(reversed(shank["segments"])):
            lines += _segment(segment, shank["segments"], room)
            if place < len(borders):
                border = borders[place]
                lines.append(f"{border['depth_um']:5.0f} ──── 90 %: {border['low_um']:.0f}-{border['high_um']:.0f}")
    return lines or [placement["reason"].replace("_", " ")]


def _segment(segment: Mapping[str, Any], segments: Sequence[Mapping[str, Any]], room: int) -> list[str]:
    whole = segments[-1]["to_um"] - segments[0]["from_um"]
    share = (segment["to_um"] - segment["from_um"]) / whole if whole > 0 else 1.0
    head = f"      ▌ {segment['region']} {100 * segment['probability']:.0f} %"
    return [head, *["      ▌"] * (max(round(share * room), 1) - 1)]


def _ordered(one: Predictions, depth: Mapping[str, float | None], *, order: Order, task: int) -> list[int]:
    units = list(range(len(one.unit_ids)))
    if order == "id" or not one.tasks:
        return sorted(units, key=lambda u: one.unit_ids[u])
    if order == "depth":  # from the top down, as on the probe; unknown ones last
        return sorted(units, key=lambda u: -float(depth.get(one.unit_ids[u]) or -np.inf))
    answer = one.tasks[task % len(one.tasks)]
    top = answer.probabilities.max(axis=1)
    return sorted(units, key=lambda u: (bool(answer.why[u]), -float(top[u])))


def _cell(task: TaskPredictions, u: int) -> str:
    """The top class with a bar as long as its probability; in brackets, with the reason, where it is not called."""
    top, why = int(task.probabilities[u].argmax()), Abstained(task.why[u])
    probability = float(task.probabilities[u, top])
    text = f"{'█' * round(BAR * probability):<{BAR}} {probability:.2f} "
    return text + (f"({task.classes[top]}?) {why.word.replace('_', ' ')}" if why else task.classes[top])
