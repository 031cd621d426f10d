"""What an experimenter must know at once: stale predictions, degraded streams, losses. In words, with a remedy."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nuclr_stream.dashboard.probe import Probe
from nuclr_stream.dashboard.words import REASONS

LOST_SHARE = 0.01
"""From this share of a stream's spikes on that were not taken, the page warns."""
STALE_HOPS = 3
"""Predictions that are older than so many hops, and STALE_S more, are stale."""
STALE_S = 1.0

AGREES = 0.5
"""Below this agreement of plan and activity the page warns."""

_LOST_SPIKES = ("spikes_late", "spikes_unknown_unit", "spikes_out_of_range", "spikes_repeated")


@dataclass(frozen=True)
class Alert:
    """One banner. `stream` is empty for what concerns all of them."""

    level: Literal["error", "warning"]
    stream: str
    text: str
    detail: str


def alerts_of(probes: Iterable[Probe], *, lost: int) -> list[Alert]:
    """Return the alerts about `probes`, and about `lost` predictions that did not reach the page's server."""
    found: list[Alert] = []
    for probe in probes:
        alerts = (_degraded(probe), _stale(probe), _losing(probe), _off_plan(probe))
        found += [alert for alert in alerts if alert is not None]
    if lost:
        detail = "The page's server was too slow, or lost its connection. What is shown is the newest all the same."
        found.append(Alert("warning", "", f"{lost} predictions did not reach this page", detail))
    return sorted(found, key=lambda alert: alert.level != "error")


def reason_in_words(reason: str) -> str:
    """Return a reason of a state in words; one of a later release as it is."""
    return REASONS.get(reason, reason.replace("_", " "))


def _degraded(probe: Probe) -> Alert | None:
    state = probe.state
    if state is None or state.state != "degraded":
        return None
    rejected = any(reason == "duplicate" or reason.startswith("rejected_") for reason in state.reasons)
    silent = "source_silent" in state.reasons
    text = "source rejected" if rejected else "source silent" if silent else "degraded"
    detail = ". ".join(reason_in_words(reason) for reason in state.reasons)
    return Alert("error" if rejected or silent else "warning", probe.stream, f"{probe.stream}: {text}", f"{detail}.")


def _stale(probe: Probe) -> Alert | None:
    state, last = probe.state, probe.predictions
    if state is None or last is None or state.state == "ended" or "source_silent" in state.reasons:
        return None
    age_s = time.monotonic() - probe.received_at
    if age_s <= STALE_HOPS * last.hop_s + STALE_S:
        return None
    detail = "Data may have stopped, or the machine is too slow: see health."
    return Alert("error", probe.stream, f"{probe.stream}: no new prediction for {age_s:.0f} s", detail)


def _losing(probe: Probe) -> Alert | None:
    if probe.state is None:
        return None
    counters = probe.state.counters
    received = counters.get("spikes_received", 0)
    lost = {name: counters.get(name, 0) for name in _LOST_SPIKES}
    share = sum(lost.values()) / received if received else 0.0
    if share < LOST_SHARE:
        return None
    worst = max(lost, key=lambda name: lost[name]).removeprefix("spikes_").replace("_", " ")
    return Alert("warning", probe.stream, f"{probe.stream}: {share:.1%} of spikes not taken", f"Most of them: {worst}.")


def _off_plan(probe: Probe) -> Alert | None:
    plans = [one for one in probe.placement.get("plan", ()) if one.get("agreement") is not None]
    worst = min(plans, key=lambda one: float(one["agreement"]), default=None)
    if worst is None or worst["agreement"] >= AGREES:
        return None
    detail = f"At the best offset ({worst['offset_um']:+.0f} µm) they agree to {worst['agreement']:.0%} only."
    return Alert("warning", probe.stream, f"{probe.stream}: plan and activity disagree", detail)
