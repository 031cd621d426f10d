"""The document about where units lie: whole and plain JSON, the same from a file and from the daemon."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nuclr_stream import wire
from nuclr_stream.client.replay import replay
from nuclr_stream.client.subscriber import Query, QueryError
from nuclr_stream.commands.cli import app
from nuclr_stream.commands.label import write_labels
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.errors import ConfigError, NuclrStreamError, PlacementError
from nuclr_stream.inference.model import Model
from nuclr_stream.placement.plans import read_plan
from nuclr_stream.placement.report import MAX_DEPTHS, Document, Reports, placement_report
from nuclr_stream.placement.trajectory import Planned
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.stream.labeler import Labeler
from tests.nuclr_stream.conftest import make_recording, predicted_in_process, where

RunDaemon = Callable[..., Daemon]
PLAN = "region,from_um,to_um\nCTX,0,1500\nTH,1500,3000\n"


def bold(predictions: wire.Predictions) -> wire.Predictions:
    """The same predictions with nothing abstained."""
    tasks = tuple(replace(task, why=np.zeros_like(task.why)) for task in predictions.tasks)
    return replace(predictions, tasks=tasks)


def report(model: Model, depth_um: np.ndarray, **options: object) -> Document:
    """The report of 20 units at these depths, all on one shank."""
    predictions = bold(predicted_in_process(make_recording(), model)[-1])
    shank = np.full(20, -1, dtype=np.float32)
    part = model.task("brain_region")
    return placement_report(predictions, part, depth_um=depth_um.astype(np.float32), shank=shank, **options)  # type: ignore[arg-type]


def test_a_report_names_every_unit_and_covers_the_shank(tiny_model: Model) -> None:
    found = report(tiny_model, np.linspace(0, 3000, 20), plan=[Planned("CTX", 0, 100), Planned("TH", 100, 200)])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [unit["unit_id"] for unit in found["units"]] == [f"u{row}" for row in range(20)]
    (shank,) = found["shanks"]
    assert (shank["depth_um"][0], shank["segments"][0]["from_um"], shank["segments"][-1]["to_um"]) == (0, 0, 3000)
    assert len(shank["depth_um"]) == len(shank["probabilities"]) <= MAX_DEPTHS
    for unit in found["units"]:
        nearest = int(np.abs(np.array(shank["depth_um"]) - unit["depth_um"]).argmin())
        assert unit["probability"] == pytest.approx(max(shank["probabilities"][nearest]), abs=0.05)
    assert [one["shank"] for one in found["plan"]] == [-1]


def test_units_without_a_depth_have_no_region_of_it_and_keep_their_own(tiny_model: Model) -> None:
    depth_um = np.linspace(0, 3000, 20)
    depth_um[3] = np.nan
    unit = report(tiny_model, depth_um)["units"][3]
    assert (unit["depth_um"], unit["region"], unit["probability"]) == (None, None, None)
    assert unit["pooled_region"] in tiny_model.task("brain_region").classes


def test_a_stream_without_depths_has_that_reason(tiny_model: Model) -> None:
    found = report(tiny_model, np.full(20, np.nan))
    assert found["reason"] == "no_depth" and {unit["region"] for unit in found["units"]} == {None}


def test_single_predictions_are_as_they_were(tiny_model: Model) -> None:
    predictions = predicted_in_process(make_recording(), tiny_model)[-1]
    before = [task.probabilities.tobytes() for task in predictions.tasks]
    part = tiny_model.task("brain_region")
    depth_um = np.linspace(0, 3000, 20, dtype=np.float32)
    placement_report(predictions, part, depth_um=depth_um, shank=np.zeros(20, dtype=np.float32))
    assert [task.probabilities.tobytes() for task in predictions.tasks] == before


def test_label_writes_a_report_per_recording_also_for_one_too_short(tiny_model: Model, tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(PLAN)
    recordings = [make_recording(seed=1), make_recording(seed=2, duration_s=5.0)]
    reports = Reports(tiny_model.manifest, tmp_path / "out.json", tmp_path / "plan.csv")
    write_labels(
        recordings, lambda r: Labeler(tiny_model, stream=r.recording_id), tmp_path / "out.csv", on_end=reports.add
    )
    reports.write([recording.recording_id for recording in recordings])
    first, second = json.loads((tmp_path / "out.json").read_text())["recordings"]
    assert (first["stream"], len(first["units"]), len(first["plan"])) == ("random_1", 20, 1)
    assert second == {"stream": "random_2", "reason": "no_data", "shanks": [], "units": [], "plan": []}
    rows = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert {row["task"] for row in rows} == set(tiny_model.task_names)


def test_a_report_that_cannot_be_written_is_predictions_by_name(tiny_model: Model, tmp_path: Path) -> None:
    with pytest.raises(NuclrStreamError, match="--placement"):
        Reports(tiny_model.manifest, tmp_path / "nowhere" / "out.json").write([])


def test_a_bundle_without_regions_is_rejected_before_anything_runs(tiny_model: Model, tmp_path: Path) -> None:
    manifest = tiny_model.manifest
    other = manifest.model_copy(update={"tasks": tuple(t for t in manifest.tasks if t.name != "brain_region")})
    with pytest.raises(PlacementError, match="no task brain_region"):
        Reports(other, tmp_path / "out.json")


def test_the_command_writes_labels_and_where_the_units_lie(tiny_bundle: Path, tmp_path: Path) -> None:
    make_recording().save(tmp_path / "rig.npz")
    (tmp_path / "plan.csv").write_text(PLAN)
    command = ["label", str(tmp_path / "rig.npz"), "--bundle", str(tiny_bundle), "--out", str(tmp_path / "out.csv")]
    command += ["--abstain-below", "0"]
    placed = ["--placement", str(tmp_path / "out.json"), "--trajectory", str(tmp_path / "plan.csv")]
    CliRunner().invoke(app, command + placed, catch_exceptions=False)
    (found,) = json.loads((tmp_path / "out.json").read_text())["recordings"]
    assert (found["stream"], len(found["units"]), len(found["plan"])) == ("random_0", 20, 1)
    segment = found["shanks"][0]["segments"][0]
    assert 0 < segment["units"] <= 20 and 0 <= segment["units_agree"] <= 1
    (tmp_path / "out.csv").unlink()
    with pytest.raises(NuclrStreamError, match=r"--placement .*is there already"):
        CliRunner().invoke(app, command + placed, catch_exceptions=False)
    with pytest.raises(ConfigError, match="give both"):
        CliRunner().invoke(app, command + placed[2:], catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("region,from_um\nCTX,0\n", "line 2"),
        ("region,from_um,to_um\nCTX,0,100\nTH,deep,200\n", "line 3"),
        ("region,from_um,to_um\nCTX,0,100\nTH,50,200\n", "overlap"),
        ("", "no region"),
        ("\x00", "readable|no region|line"),
    ],
)
def test_a_plan_that_cannot_be_read_is_rejected_by_line(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "plan.csv").write_text(text)
    with pytest.raises(PlacementError, match=what):
        read_plan(tmp_path / "plan.csv")


def test_a_plan_that_is_not_there_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match="not a readable"):
        read_plan(tmp_path / "plan.csv")


def test_the_daemon_answers_with_the_report_of_its_last_predictions(
    run_daemon: RunDaemon, recording: Recording, tiny_model: Model
) -> None:
    daemon = run_daemon()
    with Query(daemon.endpoints["query"], timeout_s=5.0) as query:
        with pytest.raises(QueryError, match="unknown_stream"):
            query.placement("random_0")
        predictions = [one.predictions for one in replay(recording, **where(daemon))][-1]
        found = query.placement("random_0", plan=[("CTX", 0, 1500), ("TH", 1500, 3000)])
        with pytest.raises(QueryError, match="unknown_task"):
            query.placement("random_0", task="mood")
        with pytest.raises(QueryError, match="plan"):
            query.placement("random_0", plan=[("CTX", 0, 1500), ("TH", 500, 3000)])
    expected = placement_report(
        predictions,
        tiny_model.task("brain_region"),
        depth_um=recording.units["depth_um"].astype(np.float32),
        shank=np.full(20, -1, dtype=np.float32),
        plan=[Planned("CTX", 0, 1500), Planned("TH", 1500, 3000)],
    )
    assert found == expected
