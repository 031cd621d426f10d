"""What becomes of the others when units come, go, merge or are renumbered: their context is the units there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from nuclr_stream.inference.model import Model
from nuclr_stream.stream.labeler import Labeler, Labelled
from nuclr_stream.wire import SpikeBatch, UnitAction
from tests.nuclr_stream.streams import RATE, Source

UNITS = 14


def second(source: Source, start_s: int, units: list[int]) -> SpikeBatch:
    """A second in which each unit fires at times of its own, whoever else there is."""
    spikes = []
    for unit in units:
        rng = np.random.default_rng([start_s, unit])
        spikes += [(start_s * RATE + int(sample), unit) for sample in rng.integers(0, RATE, 6)]
    return source.spikes(start_s * RATE, (start_s + 1) * RATE, sorted(spikes))


def run(model: Model, change: Any = None, *, at_s: int = 12, seconds: int = 25, units: int = UNITS) -> list[Labelled]:
    """What comes of a stream of `units` units; `change` sends what it wants at `at_s`, and says who fires then."""
    source, labeler = Source(), Labeler(model, stream="probeA")
    labeler.push(source.units(units))
    firing, found = list(range(units)), []
    for now in range(seconds):
        if change is not None and now == at_s:
            message, firing = change(source)
            labeler.push(message)
        labeler.push(second(source, now, firing))
        while (labelled := labeler.step()) is not None:
            found.append(labelled)
    return found


def last_of(labelled: Labelled, unit_ids: list[str]) -> np.ndarray:
    rows = [labelled.predictions.unit_ids.index(unit_id) for unit_id in unit_ids]
    return labelled.last[rows]


def test_a_retired_unit_is_no_context_of_the_others_from_the_next_window_on(tiny_model: Model) -> None:
    gone = UNITS - 1
    with_it = run(tiny_model, lambda source: (source.table([(UnitAction.RETIRE, gone, 0)]), list(range(gone))))
    without = run(tiny_model, units=gone)
    others = [f"u{unit}" for unit in range(gone)]
    for one, other in zip(with_it, without, strict=True):
        same = np.allclose(last_of(one, others), last_of(other, others), atol=1e-6)
        assert same == (one.predictions.end_sample > 12 * RATE), one.predictions.end_sample


def test_an_added_unit_is_context_only_after_a_window_of_its_own(tiny_model: Model) -> None:
    def add(source: Source) -> Any:
        table = source.table([(UnitAction.ADD, UNITS, "new")], added=12 * RATE)
        return table, list(range(UNITS + 1))

    grown, plain = run(tiny_model, add), run(tiny_model)
    others = [f"u{unit}" for unit in range(UNITS)]
    for one, other in zip(grown, plain, strict=True):
        same = np.allclose(last_of(one, others), last_of(other, others), atol=1e-6)
        assert same == (one.predictions.end_sample < 22 * RATE), one.predictions.end_sample
    windows = dict(zip(grown[-1].predictions.unit_ids, grown[-1].predictions.windows.tolist(), strict=True))
    assert (windows["new"], windows["u0"]) == (4, 16)


def test_a_merged_unit_is_one_in_the_context_of_the_others(tiny_model: Model) -> None:
    source_of, target = UNITS - 1, UNITS - 2
    merged = run(tiny_model, lambda source: (source.table([(UnitAction.MERGE, source_of, target)]), list(range(UNITS))))
    assert merged[-1].predictions.unit_ids == tuple(f"u{unit}" for unit in range(UNITS - 1))
    assert merged[-1].predictions.active_units == UNITS - 1


def test_renumbering_all_units_begins_all_anew_and_says_why_nothing_is_called(tiny_model: Model) -> None:
    def renumber(source: Source) -> Any:
        rows = [(UnitAction.ADD, UNITS + unit, f"v{unit}") for unit in range(UNITS)]
        return source.table(rows, full=True, added=12 * RATE), [UNITS + unit for unit in range(UNITS)]

    found = run(tiny_model, renumber)
    before, after = found[2].predictions, [one.predictions for one in found[3:]]
    assert before.unit_ids[0] == "u0"
    assert {one.unit_ids for one in after} == {tuple(f"v{unit}" for unit in range(UNITS))}
    waiting = [one for one in after if one.end_sample < 22 * RATE]
    assert waiting and all(not one.active_units and one.state == "degraded" for one in waiting)
    assert all(one.tasks[0].abstained.all() for one in waiting)
    assert all(one.active_units == UNITS for one in after if one.end_sample >= 22 * RATE)
    # four windows since then, or three: the second before the first holds no spike of a unit that is still there
    assert len(set(after[-1].windows.tolist())) == 1 and after[-1].windows[0] >= 3


def test_an_id_that_comes_back_is_another_unit_unless_it_keeps_its_index(tiny_model: Model) -> None:
    def reuse(source: Source) -> Any:
        rows = [(UnitAction.RETIRE, 0, 0), (UnitAction.ADD, UNITS, "u0")]
        return source.table(rows, added=12 * RATE), [*range(1, UNITS), UNITS]

    last = run(tiny_model, reuse)[-1].predictions
    windows = dict(zip(last.unit_ids, last.windows.tolist(), strict=True))
    assert (windows["u0"], windows["u1"]) == (4, 16), "nothing of the old one is left in it"
