"""What people see: a table in a terminal, lines elsewhere; and how the demo scores itself."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from nuclr_stream.client.replay import Received
from nuclr_stream.commands import screen
from nuclr_stream.commands.demo import macro_f1, summary, top_classes
from nuclr_stream.commands.screen import Screen, headline
from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.wire import Abstained, Predictions, UnitFlag
from tests.nuclr_stream.conftest import predicted_in_process


@pytest.fixture
def predicted(recording: Recording, tiny_model: Model) -> list[Predictions]:
    return predicted_in_process(recording, tiny_model)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_a_line_now_and_then(predicted: list[Predictions]) -> None:
    console = Console(file=io.StringIO(), width=200)
    with Screen(console, line_every_s=4.0) as lines:
        for one in predicted:
            lines.show(one, "a note")
    found = shown(console).splitlines()
    assert [line.split()[1] for line in found] == ["10.0", "14.0", "18.0"]
    assert all(line.endswith("a note") for line in found)


def test_in_a_terminal_a_table_in_the_order_asked_for(
    predicted: list[Predictions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "REFRESH_S", 0.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=20, color_system=None)
    with Screen(console, order=["u7", "u3"]) as table:
        table.show(predicted[-1])
    text = shown(console)
    assert text.index("u7") < text.index("u3")
    assert "cell type" in text
    assert "12 of 20 units" in text
    assert "█" in text


def test_a_cell_says_how_long_a_class_stands_what_else_it_may_be_or_why_none_is_named(
    predicted: list[Predictions],
) -> None:
    task = replace(
        predicted[-1].tasks[0],
        probabilities=np.tile(np.array([0.1, 0.6, 0.2, 0.1], dtype=np.float32), (20, 1)),
        sets=np.array([[k == 1 or k == 3, True, True, k == 3] for k in range(20)]),
        why=np.array([0, 0, Abstained.OUT_OF_DISTRIBUTION, *[0] * 17], dtype=np.uint8),
        stable_since=np.full(20, 12.5 * 30_000, dtype=np.int64),
    )
    flags = np.full(20, UnitFlag.OOD_RATE | UnitFlag.SILENT, dtype=np.uint8)
    console = Console(file=io.StringIO(), force_terminal=True, width=140, height=40, color_system=None)
    with Screen(console) as table:
        table.show(replace(predicted[-1], tasks=(task,), flags=flags))
    rows = [line for line in shown(console).splitlines() if "PV" in line]
    assert [" ".join(row.split("│")[2].split()[1:]) for row in rows[:4]] == [
        *("███ same for 8 s or SST", "███ same for 8 s or E, SST"),
        *("███ out of distribution", "███ same for 8 s"),
    ], "a set of all classes is not shown"
    assert all("silent, ood rate" in row for row in rows)
    assert "20 out of distribution" in shown(console)


def test_names_that_look_like_markup_are_shown_as_they_are(predicted: list[Predictions]) -> None:
    strange = ("[/x]", "[red]u1", "[link=https://x]u2", *predicted[-1].unit_ids[3:])
    task = replace(predicted[-1].tasks[0], name="[/kind]", classes=("[b]E", "[/]", "[PV]", "[/x]"))
    last = replace(predicted[-1], unit_ids=strange, stream="[/probe]", tasks=(task,))
    terminal = Console(file=io.StringIO(), force_terminal=True, width=140, height=40, color_system=None)
    with Screen(terminal) as table:
        table.show(last, "[/note]")
    lines = Console(file=io.StringIO(), width=140)
    with Screen(lines) as plain:
        plain.show(last, "[/note]")
    assert all(name in shown(terminal) for name in (*strange[:3], "[/kind]", "[/probe]", "[/note]"))
    assert any(name in shown(terminal) for name in task.classes)
    assert "[/probe]" in shown(lines) and "[/kind] of" in shown(lines) and "[/note]" in shown(lines)


def test_a_terminal_is_not_refreshed_more_often_than_eyes_can_follow(predicted: list[Predictions]) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=20)
    with Screen(console) as table:
        table.show(predicted[0])
        before = shown(console)
        table.show(predicted[1])
        assert shown(console) == before


def test_the_headline_names_what_is_wrong(predicted: list[Predictions]) -> None:
    line = headline(replace(predicted[0], state="degraded", reasons=("gap",)))
    assert line.split()[:2] == ["offline", "10.0"]
    assert line.endswith("degraded  gap")


def test_macro_f1_by_hand() -> None:
    truth = np.array(["E", "E", "PV", "PV", "SST", ""])
    predicted = np.array(["E", "PV", "PV", "", "E", "E"])
    assert macro_f1(truth, predicted) == pytest.approx(np.mean([2 / 4, 2 / 4, 0]))
    assert macro_f1(truth, truth) == 1.0


def test_top_classes_ignore_abstention_and_give_nothing_to_units_without_a_window(
    predicted: list[Predictions], recording: Recording
) -> None:
    last = replace(
        predicted[-1], windows=np.array([0] + [1] * 19, dtype=np.uint32), unit_ids=tuple(f"u{k}" for k in range(20))
    )
    tops = top_classes(recording, last, "cell_type")
    assert tops[0] == ""
    task = last.tasks[0]
    assert tops[1:].tolist() == [task.classes[k] for k in task.probabilities.argmax(axis=1)[1:]]
    assert set(top_classes(recording, last, "another_task")) == {""}


def test_a_summary_needs_predictions_and_scores_only_what_is_known(
    predicted: list[Predictions], recording: Recording
) -> None:
    with pytest.raises(NuclrStreamError, match="shorter than one window"):
        summary(recording, [], wall_s=1.0, losses={})
    unknown = replace(recording, units={})
    found = summary(unknown, [Received(one, 0.004) for one in predicted], wall_s=2.0, losses={"gap": 1})
    assert found == {
        "predictions": 11,
        "recording_s": 20.0,
        "speed": 10.0,
        "latency_ms": {"p50": 4.0, "p95": 4.0, "p99": 4.0},
        "losses": {"gap": 1},
    }
