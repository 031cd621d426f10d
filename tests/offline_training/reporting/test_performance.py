"""docs/performance.md: every figure comes from a file, goals are judged, machines are kept apart."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nuclr_stream.bundle.manifest import load_bundle
from nuclr_stream.commands.bench import run_bench
from nuclr_stream.inference.model import Model
from offline_training.commands.cli import main
from offline_training.reporting.files import ResultsError
from offline_training.reporting.performance import write_performance

MACHINE = {
    **{"cpu": "Some CPU", "cores": 2, "system": "Linux x86_64", "python": "3.11.7"},
    **{"packages": {"numpy": "2.4.6", "onnxruntime": "1.31.1"}, "other_work": 0.014},
}


def live(units: int, *, encoder_ms: float, latency_ms: float, **other: Any) -> dict[str, Any]:
    """What `nuclr-stream bench --json` writes; p95 and p99 are 1 and 2 ms above p50."""
    return {
        **{"units": units, "steps": 50, "seed": 0, "bundle": "demo-0", "provider": "cpu", "threads": 1},
        "spikes_per_s": 1_234_567,
        "encoder_ms": {"p50": encoder_ms, "p95": encoder_ms + 1, "p99": encoder_ms + 2},
        "latency_ms": {"p50": latency_ms, "p95": latency_ms + 1, "p99": latency_ms + 2},
        "machine": MACHINE,
    } | other


def training(**other: Any) -> dict[str, Any]:
    """What `nuclr-train bench --json` writes."""
    sizes = {"dim": 64, "heads": 4, "head_dim": 16, "ffn_hidden": 256, "temporal_blocks": 2, "spatiotemporal_blocks": 3}
    run = {"windows_per_s": 16.0, "step_s": 0.5, "step_s_range": [0.4, 0.75], "cpu_s": 0.625}
    return {
        **{"name": "demo", "parameters": 403008, "steps": 12, "warm_up_steps": 3},
        "config": {"encoder": sizes, "training": {"batch_windows": 8, "max_units_per_view": 64}},
        "recordings": {"units": 120},
        **{"torch": "2.13.0", "cpu_capability": "AVX512", "gpu": None},
        "runs": [run | {"precision": "fp32", "threads": 1}, run | {"precision": "bf16", "threads": 2}],
        "machine": MACHINE,
    } | other


@pytest.fixture
def speed(tmp_path: Path) -> Path:
    (tmp_path / "speed").mkdir()
    return tmp_path / "speed"


def page_of(speed: Path, **documents: dict[str, Any]) -> str:
    """The page that is made from these files."""
    for name, document in documents.items():
        (speed / f"{name}.json").write_text(json.dumps(document))
    return write_performance(speed, speed.parent / "performance.md").read_text()


def test_latency_is_compared_with_the_bare_encoder_at_equal_percentiles(speed: Path) -> None:
    page = page_of(speed, stream_100=live(100, encoder_ms=10.0, latency_ms=15.0))
    assert "| 100 | 50 | p50 | 10.00 | 15.00 | 1.50 | 5.00 | kept |" in page
    assert "|  |  | p95 | 11.00 | 16.00 | 1.45 | 5.00 | kept |" in page
    assert "| 100 | 1,234,567 | 1 % |" in page
    assert "**Some CPU, 2 cores**, Linux x86_64, Python 3.11.7, numpy 2.4.6, onnxruntime 1.31.1." in page
    assert "Bundle demo-0 on cpu, 1 inference thread." in page


@pytest.mark.parametrize(("latency_ms", "verdict"), [(60.0, "kept"), (60.1, "missed")])
def test_the_goal_is_a_tenth_and_5_ms_above_the_encoder(speed: Path, latency_ms: float, verdict: str) -> None:
    row = next(
        line
        for line in page_of(speed, one=live(7, encoder_ms=50.0, latency_ms=latency_ms)).splitlines()
        if "p50" in line
    )
    assert row.endswith(f"| {verdict} |")


def test_populations_come_in_the_order_of_their_size(speed: Path) -> None:
    documents = {f"stream_{units}": live(units, encoder_ms=1.0, latency_ms=2.0) for units in (1000, 400, 100)}
    lines = [line.split("|")[1].strip() for line in page_of(speed, **documents).splitlines() if "1,234,567" in line]
    assert lines == ["100", "400", "1000"]


def test_training_is_shown_by_precision_and_threads(speed: Path) -> None:
    page = page_of(speed, training=training())
    assert "| fp32 | 1 | 16.0 | 1,200 | 0.500 (0.400-0.750) | 0.625 | 1 % |" in page
    assert "| bf16 | 2 | 16.0 | 1,200 |" in page
    assert "0.40 M parameters (dim 64, 4 heads of 16, feed-forward 256, 2 + 3 blocks)" in page
    assert "batches of 8 pairs of at most 64 units; 12 steps after 3 to warm up" in page
    assert "no GPU" in page and "GPU busy" not in page and "## Live" not in page


def test_a_gpu_is_named_with_its_use(speed: Path) -> None:
    document = training(gpu={"name": "Some GPU", "peak_bytes": 3 * 2**30})
    for run in document["runs"]:
        run["gpu_busy"] = 0.37
    page = page_of(speed, training=document)
    assert "GPU Some GPU, at most 3.0 GiB of it" in page and "| 1 % | 37 % |" in page


def test_machines_have_tables_of_their_own(speed: Path) -> None:
    other = MACHINE | {"cpu": "Other CPU", "cores": 1, "other_work": None}
    page = page_of(
        speed, a=live(100, encoder_ms=1.0, latency_ms=2.0), b=live(400, encoder_ms=1.0, latency_ms=2.0, machine=other)
    )
    first, second = page.index("**Some CPU, 2 cores**"), page.index("**Other CPU, 1 core**")
    assert first < page.index("| 100 | 1,234,567 | 1 % |") < second < page.index("| 400 | 1,234,567 | not known |")


def test_what_the_bench_writes_makes_a_page(speed: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuclr_stream.commands.bench.input_throughput", lambda *_, **__: 1.0)
    model = Model(load_bundle(tiny_bundle), provider="cpu", threads=1)
    figures = json.loads(json.dumps(run_bench(model, units=12, steps=1)))
    page = page_of(speed, stream_12=figures)
    assert f"{figures['encoder_ms']['p99']:.2f} | {figures['latency_ms']['p99']:.2f}" in page
    assert figures["machine"]["cpu"] in page and figures["seed"] == 0


def test_the_command_writes_the_page(
    speed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = speed.parent / "page.md"
    (speed / "training.json").write_text(json.dumps(training()))
    monkeypatch.setattr(sys, "argv", ["nuclr-train", "report-speed", "--speed", str(speed), "--page", str(page)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out.strip() == str(page) and page.read_text().startswith("# Performance\n")


@pytest.mark.parametrize("text", ["", "{}", '{"units": 3}', '{"machine": {"other_work": 0}}', "[1]"])
def test_a_file_that_is_no_result_is_named(speed: Path, text: str) -> None:
    (speed / "stream_100.json").write_text(text)
    with pytest.raises(ResultsError, match=r"stream_100\.json: no result of a bench command .*make bench"):
        write_performance(speed, speed.parent / "performance.md")


def test_without_measurements_there_is_no_page(speed: Path) -> None:
    with pytest.raises(ResultsError, match="run `make bench`"):
        write_performance(speed, speed.parent / "performance.md")
    assert not (speed.parent / "performance.md").exists()
