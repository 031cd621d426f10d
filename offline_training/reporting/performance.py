"""docs/performance.md from the files of results/speed/: figures are read, never typed.

A file holds the JSON document of `nuclr-stream bench` or of `nuclr-train bench`; which of the two is seen from its
fields. Measurements of different machines get tables of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from offline_training.reporting.files import ResultsError
from offline_training.reporting.tables import table

Result = dict[str, Any]

GOAL_RATIO, GOAL_MS = 1.1, 5.0
"""From the close of a window to its prediction at most so many times the bare encoder, and so much more."""
GOAL_SPIKES_PER_S = 1_000_000
INTRODUCTION = """\
# Performance

This page is generated from the files under `results/speed/` by `make bench`; no figure is typed by hand. Measure your
own machine in the same way, while nothing else runs on it: *other work* is the share of all its CPU time that went to
other processes during the measurement, and above a few percent the figures are too slow.
"""
STREAM = f"""\
* *Input*: random spikes in small batches through decoding and binning, windows cut included, in one thread. The goal is
  {GOAL_SPIKES_PER_S:,} spikes/s.
* *Bin close to prediction*: a real daemon on loopback TCP; from the arrival of the block that closes a window to the
  publication of its predictions, readouts included. The client's receiving is not in it.
* *Bare encoder*: one run of the encoder alone on a random window of as many units, after each step of the daemon, in
  the same process. Ratio and overhead compare equal percentiles. The goal is at most {GOAL_RATIO:g} x encoder +
  {GOAL_MS:g} ms.
"""
TRAINING = """\
Medians over steps of `nuclr-train bench`, which gives all rows the same batches by turns. A window is a pair of views.
Windows/s and the steps of ten minutes include the sampling of batches; seconds of a step do not. CPU time is that of
all threads together.
"""


def write_performance(speed: Path, page: Path) -> Path:
    """Write `page` from the JSON files in the folder `speed`. Raises ResultsError naming the file that is no result."""
    results = [_read(path) for path in sorted(speed.glob("*.json"))]
    if not results:
        raise ResultsError(f"{speed}: no JSON files; run `make bench`")
    live = sorted((r for r in results if "units" in r), key=lambda r: int(r["units"]))
    training = [r for r in results if "runs" in r]
    parts = [INTRODUCTION]
    if live:
        parts += ["## Live: from spikes to predictions\n", STREAM, *_grouped(live, _live_machine, _live)]
    if training:
        parts += ["## Training\n", TRAINING, *_grouped(training, _training_machine, _training)]
    page.write_text("\n".join(parts), encoding="utf-8")
    return page


def _read(path: Path) -> Result:
    try:
        result: Result = json.loads(path.read_text(encoding="utf-8"))
        _ = result["machine"]["other_work"], result["runs" if "runs" in result else "latency_ms"]
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path}: no result of a bench command ({error!r}); run `make bench`") from error
    return result


def _grouped(
    results: Sequence[Result], describe: Callable[[Result], str], tables: Callable[[list[Result]], Iterator[str]]
) -> Iterator[str]:
    for described in dict.fromkeys(map(describe, results)):
        yield f"{described}\n"
        yield from tables([result for result in results if describe(result) == described])


def _live_machine(result: Result) -> str:
    threads = f"{result['threads']} inference thread{'s' if result['threads'] != 1 else ''}"
    return f"{_machine(result)} Bundle {result['bundle']} on {result['provider']}, {threads}."


def _live(results: list[Result]) -> Iterator[str]:
    rows = [[str(r["units"]), f"{r['spikes_per_s']:,}", _share(r["machine"]["other_work"])] for r in results]
    yield table(["units", "input, spikes/s", "other work"], rows) + "\n"
    head = ["units", "steps", "", "bare encoder, ms", "bin close to prediction, ms", "ratio", "overhead, ms", "goal"]
    yield table(head, [row for result in results for row in _latency(result)]) + "\n"


def _latency(result: Result) -> Iterator[list[str]]:
    for name, bare in result["encoder_ms"].items():
        found, first = result["latency_ms"][name], name == "p50"
        yield [
            *(str(result[key]) if first else "" for key in ("units", "steps")),
            name,
            f"{bare:.2f}",
            f"{found:.2f}",
            f"{found / bare:.2f}",
            f"{found - bare:.2f}",
            "kept" if found <= GOAL_RATIO * bare + GOAL_MS else "missed",
        ]


def _training_machine(result: Result) -> str:
    gpu, sizes, settings = result["gpu"], result["config"]["encoder"], result["config"]["training"]
    units = settings["max_units_per_view"] or result["recordings"]["units"]
    on = f"GPU {gpu['name']}, at most {gpu['peak_bytes'] / 2**30:.1f} GiB of it" if gpu else "no GPU"
    return (
        f"{_machine(result)} torch {result['torch']}, {result['cpu_capability']}, {on}. Config {result['name']}: "
        f"{result['parameters'] / 1e6:.2f} M parameters (dim {sizes['dim']}, {sizes['heads']} heads of "
        f"{sizes['head_dim']}, feed-forward {sizes['ffn_hidden']}, {sizes['temporal_blocks']} + "
        f"{sizes['spatiotemporal_blocks']} blocks), batches of {settings['batch_windows']} pairs of at most {units} "
        f"units; {result['steps']} steps after {result['warm_up_steps']} to warm up."
    )


def _training(results: list[Result]) -> Iterator[str]:
    head = ["precision", "threads", "windows/s", "steps in 10 min", "s a step (range)", "CPU s a step", "other work"]
    on_gpu = any(result["gpu"] for result in results)
    rows = [_run(result, run, on_gpu=on_gpu) for result in results for run in result["runs"]]
    yield table([*head, "GPU busy"] if on_gpu else head, rows) + "\n"


def _run(result: Result, run: Result, *, on_gpu: bool) -> list[str]:
    low, high = run["step_s_range"]
    steps = 600 * run["windows_per_s"] / result["config"]["training"]["batch_windows"]
    return [
        run["precision"],
        str(run["threads"]),
        f"{run['windows_per_s']:.1f}",
        f"{steps:,.0f}",
        f"{run['step_s']:.3f} ({low:.3f}-{high:.3f})",
        f"{run['cpu_s']:.3f}",
        _share(result["machine"]["other_work"]),
        *([_share(run["gpu_busy"])] if on_gpu else []),
    ]


def _machine(result: Result) -> str:
    machine: dict[str, Any] = result["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    cores = f"{machine['cores']} core{'s' if machine['cores'] != 1 else ''}"
    return f"**{machine['cpu']}, {cores}**, {machine['system']}, Python {machine['python']}, {packages}."


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{100 * value:.0f} %"
