"""What the run is, and how its training went: config.json, run.json, metrics.jsonl and TensorBoard's clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from offline_training.reporting.files import ResultsError, read_json
from offline_training.reporting.report.page import Missing, Part, Picture, Section, Table
from offline_training.reporting.style import GREY, MUTED, panels

FloatArray = npt.NDArray[np.float64]
SMOOTH_SHARE = 0.02
"""The thick line is the median over so much of all steps."""
NAMES_SHOWN = 12


@dataclass(frozen=True)
class Run:
    """A run directory: its settings, run.json, and the metrics of K steps by name, each (K,)."""

    folder: Path
    config: dict[str, Any]
    info: dict[str, Any]
    metrics: dict[str, FloatArray]

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run. Raises ResultsError naming the file that is not there or damaged."""
        return cls(
            folder,
            read_json(folder / "config.json"),
            read_json(folder / "run.json"),
            _metrics(folder / "metrics.jsonl"),
        )

    @property
    def lead(self) -> str:
        """The run in one sentence."""
        info = self.info
        state = "finished" if info["finished"] else f"stopped after {info['step']} of {info['steps']} steps"
        return (
            f"{info['kind'] or 'No description of the recordings'}. {info['parameters'] / 1e6:.2f} M parameters, "
            f"{info['step']:,} steps on {info['machine']}; {state}."
        )


def run_sections(run: Run) -> list[Section]:
    """What the run is, and its losses, learning rate and speed over steps."""
    return [Section("The run", [_facts(run), _settings(run)]), Section("Training", _training(run))]


def _facts(run: Run) -> Table:
    info = run.info
    rows = [
        ["name", str(info["name"])],
        ["recordings", _listed(info["recordings"])],
        ["animals", _listed(info["subjects"])],
        ["seed", str(info["seed"])],
        ["steps", f"{info['step']:,} of {info['steps']:,}, {info['steps_per_epoch']:,} an epoch"],
        ["pairs of windows", f"{info['windows']:,} in {info['seconds'] / 60:.1f} minutes"],
        ["parameters", f"{info['parameters']:,}"],
        ["machine", f"{info['machine']}, {info['precision']}, torch {info['torch']}"],
    ]
    return Table(["", ""], rows, "Written by the training itself.")


def _settings(run: Run) -> Table:
    rows = [[name, _plain(section)] for name, section in run.config.items() if isinstance(section, dict) and section]
    return Table(["section", "settings"], rows, "The settings of the config, as they were used.")


def _plain(section: dict[str, Any]) -> str:
    if all(isinstance(value, dict) for value in section.values()):  # tasks: their classes say what they are
        return "; ".join(f"{name}: {', '.join(task.get('classes', task))}" for name, task in section.items())
    return ", ".join(f"{key} = {value}" for key, value in section.items())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    rest = len(names) - NAMES_SHOWN
    return f"{len(names)}: {shown}" + (f" and {rest} more" if rest > 0 else "")


def _training(run: Run) -> list[Part]:
    if not len(run.metrics.get("step", [])):
        return [Missing(f"{run.folder.name}/metrics.jsonl holds no step yet.")]
    first, last = (float(np.median(part)) for part in _ends(run.metrics["loss"]))
    loss = Picture(
        _loss_figure(run),
        alt=f"Loss over {int(run.metrics['step'][-1])} steps, from {first:.3f} to {last:.3f}, and its two terms.",
        caption=(
            f"Loss and its terms, every step (thin) and their running median (thick). Loss = numerator (pulls the two "
            f"views of a unit together) + denominator (pushes units of one population apart). Median of the first "
            f"tenth {first:.3f}, of the last {last:.3f}."
        ),
    )
    speed = _throughput(run)
    rate = Picture(
        _rate_figure(run, speed),
        alt="Learning rate and windows per second over the steps.",
        caption=(
            f"Left: learning rate. Right: windows/s, from the clock of TensorBoard's event files; the mean of the run "
            f"is {run.info['windows_per_s']:g}. Time spent on checkpoints is in it."
            if speed is not None
            else "Learning rate."
        ),
    )
    parts: list[Part] = [loss, rate]
    if speed is None:
        parts.append(
            Missing(
                "windows/s over steps: there are no TensorBoard event files with times in the run; its mean was "
                f"{run.info['windows_per_s']:g} windows/s."
            )
        )
    return parts


def _loss_figure(run: Run) -> Figure:
    present = [name for name in ("loss", "numerator", "denominator") if name in run.metrics]
    figure, axes = panels(1, len(present), height_in=2.7)
    for axis, name, colour in zip(axes, present, (MUTED[0], MUTED[2], MUTED[5]), strict=False):
        values = run.metrics[name]
        axis.plot(run.metrics["step"], values, color=GREY, linewidth=0.6)
        axis.plot(run.metrics["step"], _running_median(values), color=colour, linewidth=1.8)
        axis.set(title=name, xlabel="step", ylim=_bounds(values))
    return figure


def _rate_figure(run: Run, speed: tuple[FloatArray, FloatArray] | None) -> Figure:
    figure, axes = panels(1, 1 if speed is None else 2, height_in=2.4)
    axes[0].plot(run.metrics["step"], run.metrics["lr"], color=MUTED[0])
    axes[0].set(title="learning rate", xlabel="step", ylim=(0, None))
    axes[0].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    if speed is not None:
        axes[1].plot(*speed, color=GREY, linewidth=0.6)
        axes[1].plot(speed[0], _running_median(speed[1]), color=MUTED[1], linewidth=1.8)
        axes[1].set(title="windows/s", xlabel="step", ylim=(0, 1.3 * float(np.quantile(speed[1], 0.98))))
    return figure


def _throughput(run: Run) -> tuple[FloatArray, FloatArray] | None:
    """Steps and the windows/s that led to each, from the times at which TensorBoard was written; None without them."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    events = {
        event.step: event.wall_time
        for path in sorted(run.folder.glob("events.out.tfevents.*"), key=lambda p: p.stat().st_mtime_ns)
        for event in EventFileLoader(str(path)).Load()
        if event.summary.value and event.summary.value[0].tag == "loss"
    }
    steps = np.array(sorted(events), dtype=np.float64)
    if len(steps) < 3:
        return None
    windows = np.concatenate([[0], np.cumsum(run.metrics["windows"])])
    seen = windows[np.searchsorted(run.metrics["step"], steps, side="right")]
    passed = np.diff([events[int(step)] for step in steps])
    good = passed > 0  # a resumed run's clock may have been set back
    return steps[1:][good], (np.diff(seen) / np.where(good, passed, 1))[good]


def _running_median(values: FloatArray) -> FloatArray:
    half = max(1, round(SMOOTH_SHARE * len(values) / 2))
    padded = np.pad(values, half, mode="reflect" if len(values) > half else "edge")
    found: FloatArray = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
    return found


def _bounds(values: FloatArray) -> tuple[float, float]:
    """Limits of an axis that a few wild steps cannot blow up."""
    low, high = np.quantile(values, [0.001, 0.999])
    room = 0.08 * max(high - low, 1e-6)
    return float(low - room), float(high + room)


def _ends(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    tenth = max(1, len(values) // 10)
    return values[:tenth], values[-tenth:]


def _metrics(path: Path) -> dict[str, FloatArray]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: not readable ({error}); every line must be one JSON object") from error
    names = [name for name in (lines[0] if lines else ()) if all(name in line for line in lines)]
    return {name: np.array([line[name] for line in lines], dtype=np.float64) for name in names}
