"""The record of a daemon as CSV and as lines of JSON: every window, unit and task that was published."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from nuclr_stream.client.replay import replay
from nuclr_stream.commands.cli import app
from nuclr_stream.daemon.daemon import Daemon
from nuclr_stream.daemon.records import RecordWriter
from nuclr_stream.errors import ConfigError, NuclrStreamError
from nuclr_stream.outputs.log import read_log
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.wire import Event, Predictions, encode
from tests.nuclr_stream.conftest import where
from tests.nuclr_stream.wire_examples import MESSAGES, TASK


def written(*arguments: str) -> str:
    """What `nuclr-stream records` writes to stdout."""
    done = CliRunner().invoke(app, ["records", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def kept(path: Path, *messages: Predictions | Event) -> Path:
    """A record file of these messages."""
    writer = RecordWriter(path)
    for message in messages:
        writer.write(encode(message))
    writer.close()
    return path


def test_every_window_unit_and_task_that_a_daemon_published_is_a_row(
    run_daemon: Callable[..., Daemon], recording: Recording, tmp_path: Path
) -> None:
    file = tmp_path / "kept.rec"
    daemon = run_daemon(record=str(file))
    published = [received.predictions for received in replay(recording, **where(daemon))]
    rows = list(csv.DictReader(io.StringIO(written(str(file), "--csv"))))
    assert len(rows) == 11 * 20 * 2
    assert [float(row["time_s"]) for row in rows[::40]] == [float(second) for second in range(10, 21)]
    last, task = published[-1], published[-1].tasks[1]
    for u, row in enumerate(row for row in rows[-40:] if row["task"] == task.name):
        assert row["unit_id"] == last.unit_ids[u]
        assert row["prediction"] == task.classes[task.probabilities[u].argmax()]
        assert [float(row[f"p_{c}"]) for c in task.classes] == [round(float(p), 6) for p in task.probabilities[u]]
    windows = [json.loads(line) for line in written(str(file), "--jsonl").splitlines()]
    assert [one["published_ns"] for one in windows] == [one.published_ns for one in published]
    assert [one["seq"] for one in windows] == list(range(1, 12))
    unit = windows[-1]["units"][3]
    assert (unit["unit_id"], unit["windows"], [task["task"] for task in unit["tasks"]]) == (
        last.unit_ids[3],
        11,
        ["cell_type", "brain_region"],
    )


def test_a_record_of_two_bundles_has_the_columns_of_both_and_other_messages_are_passed_over(tmp_path: Path) -> None:
    one = MESSAGES["predictions"]
    assert isinstance(one, Predictions)
    other = replace(one, tasks=(replace(TASK, name="waveform_class", classes=("narrow", "broad")),))
    event = MESSAGES["event"]
    assert isinstance(event, Event)
    rows = list(csv.DictReader(io.StringIO(written(str(kept(tmp_path / "a.rec", one, event, other)), "--csv"))))
    assert [name for name in rows[0] if name.startswith("p_")] == ["p_E", "p_PV", "p_narrow", "p_broad"]
    assert [(row["unit_id"], row["p_E"], row["p_narrow"]) for row in rows] == [
        *(("a", "0.75", ""), ("µ2", "0.5", "")),
        *(("a", "", "0.75"), ("µ2", "", "0.5")),
    ]
    assert (rows[0]["stable_since_s"], rows[1]["stable_since_s"]) == ("0.01", "")
    assert (rows[0]["set"], rows[1]["flags"], rows[1]["why"]) == ("E", "small_population|ood_rate", "low_probability")


def test_without_readouts_there_is_a_row_per_unit(tmp_path: Path) -> None:
    one = MESSAGES["predictions"]
    assert isinstance(one, Predictions)
    text = written(str(kept(tmp_path / "a.rec", replace(one, tasks=()))), "--csv")
    assert [(row["unit_id"], row["windows"]) for row in csv.DictReader(io.StringIO(text))] == [("a", "3"), ("µ2", "0")]


def test_out_writes_by_its_ending_what_stdout_shows_and_replaces_nothing(tmp_path: Path) -> None:
    one = MESSAGES["predictions"]
    assert isinstance(one, Predictions)
    file = str(kept(tmp_path / "a.rec", one))
    for ending, form in ((".csv", "--csv"), (".jsonl", "--jsonl")):
        out = tmp_path / f"a{ending}"
        written(file, "--out", str(out))
        assert out.read_text(encoding="utf-8") == written(file, form)
        with pytest.raises(NuclrStreamError, match="--force"):
            written(file, "--out", str(out))
        written(file, "--out", str(out), "--force")
    written(file, "--out", str(tmp_path / "a.parquet"))
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [(row["unit_id"], row["windows"], row["p_E"]) for row in table] == [("a", 3, 0.75), ("µ2", 0, 0.5)]
    (same,) = read_log(tmp_path / "a.jsonl")
    assert encode(same) == encode(one)
    with pytest.raises(ConfigError, match=r"\.csv, \.parquet or \.jsonl"):
        written(file, "--out", str(tmp_path / "a.nwb"))


def test_one_form_must_be_chosen_and_the_file_be_a_record(tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "thesis.tex"
    file.write_bytes(np.arange(9).tobytes())
    for forms in ([], ["--csv", "--jsonl"]):
        with pytest.raises(ConfigError, match="--csv or --jsonl"):
            runner.invoke(app, ["records", str(file), *forms], catch_exceptions=False)
    with pytest.raises(NuclrStreamError, match=r"thesis\.tex"):
        runner.invoke(app, ["records", str(file), "--csv"], catch_exceptions=False)
    with pytest.raises(NuclrStreamError, match=r"nothing\.rec"):
        runner.invoke(app, ["records", str(tmp_path / "nothing.rec"), "--csv"], catch_exceptions=False)
