"""Rules over windows: hysteresis, what counts, and once per epoch."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from nuclr_stream.errors import ConfigError
from nuclr_stream.inference.model import Model
from nuclr_stream.rules.engine import Engine, Firing
from nuclr_stream.rules.settings import read_rules
from nuclr_stream.wire import Abstained, Predictions, TaskPredictions

UNIT = {"name": "pv", "when": "unit", "task": "cell_type", "class": "PV", "above": 0.8, "below": 0.6, "hold": 2}


def window(
    step: int, p_pv: list[float], *, epoch: int = 1, state: Any = "ready", why: list[int] | None = None
) -> Predictions:
    """A window in which units u0, u1, ... are PV with these probabilities."""
    units = len(p_pv)
    pv = np.array(p_pv, dtype=np.float32)
    task = TaskPredictions(
        name="cell_type",
        classes=("E", "PV", "SST", "VIP"),
        probabilities=np.stack([1 - pv, pv, 0 * pv, 0 * pv], axis=1),
        sets=np.ones((units, 4), dtype=np.bool_),
        why=np.array(why or [Abstained.NO] * units, dtype=np.uint8),
        stable_since=np.zeros(units, dtype=np.int64),
        flips=0,
    )
    return Predictions(
        stream="probeA",
        epoch=epoch,
        step=step,
        end_sample=100 * step,
        sample_rate=Fraction(100),
        origin=0,
        closed_ns=1,
        state=state,
        missing=0.0,
        active_units=units,
        skipped_steps=0,
        bundle="b",
        hop_s=1.0,
        window_s=10.0,
        unit_index=np.arange(units, dtype=np.uint32),
        unit_ids=tuple(f"u{u}" for u in range(units)),
        windows=np.ones(units, dtype=np.uint32),
        exposure=np.ones(units, dtype=np.float32),
        ood_score=np.zeros(units, dtype=np.float32),
        flags=np.zeros(units, dtype=np.uint8),
        tasks=(task,),
    )


def engine(model: Model, *rules: dict[str, Any], fired: tuple[str, ...] = ()) -> Engine:
    return Engine(read_rules(rules, [], model.manifest)[0], fired)


def placed(
    *segments: tuple[str, float, float, float], borders: tuple[tuple[str, str, float, float, float], ...] = ()
) -> dict[str, Any]:
    """A placement of one shank: segments (region, from, to, probability), borders (below, above, low, high, p)."""
    names = ("region", "from_um", "to_um", "probability")
    edges = ("below", "above", "low_um", "high_um", "probability")
    shank = {
        "shank": 0,
        "segments": [dict(zip(names, one, strict=True)) for one in segments],
        "boundaries": [dict(zip(edges, one, strict=True)) for one in borders],
    }
    return {"shanks": [shank]}


def run(rules: Engine, *windows: Predictions) -> list[tuple[int, str]]:
    """Step and subject of everything that fires."""
    return [(firing.step, firing.subject) for one in windows for firing in rules.take(one, dict)]


def test_a_unit_fires_once_it_has_held_for_as_many_windows_as_the_rule_wants(tiny_model: Model) -> None:
    windows = [window(step, [0.9, 0.9 if step > 2 else 0.5]) for step in range(1, 7)]
    assert run(engine(tiny_model, UNIT), *windows) == [(2, "u0"), (4, "u1")]


def test_between_both_thresholds_the_count_stands_and_below_it_begins_anew(tiny_model: Model) -> None:
    assert run(engine(tiny_model, UNIT), *(window(s, [p]) for s, p in enumerate([0.9, 0.7, 0.7, 0.9]))) == [(3, "u0")]
    assert run(engine(tiny_model, UNIT), *(window(s, [p]) for s, p in enumerate([0.9, 0.5, 0.9, 0.7]))) == []


def test_an_abstained_unit_begins_anew_and_a_degraded_window_says_nothing(tiny_model: Model) -> None:
    strange = window(1, [0.95], why=[Abstained.OUT_OF_DISTRIBUTION])
    assert run(engine(tiny_model, UNIT), window(0, [0.9]), strange, window(2, [0.9])) == []
    degraded = window(1, [0.1], state="degraded")
    assert run(engine(tiny_model, UNIT), window(0, [0.9]), degraded, window(2, [0.9])) == [(2, "u0")]
    assert run(engine(tiny_model, UNIT), *(window(s, [0.9], state="degraded") for s in range(9))) == []


def test_it_fires_once_an_epoch_and_again_in_the_next(tiny_model: Model) -> None:
    found = run(engine(tiny_model, UNIT), *(window(s, [p]) for s, p in enumerate([0.9, 0.9, 0.1, 0.9, 0.9, 0.9])))
    assert found == [(1, "u0")]
    rules = engine(tiny_model, UNIT)
    epochs = [window(0, [0.9]), window(0, [0.9], epoch=2), window(1, [0.9], epoch=2), window(2, [0.9], epoch=2)]
    assert run(rules, *epochs) == [(1, "u0")], "a new epoch counts from the beginning"


def test_what_fired_before_a_restart_does_not_fire_again(tiny_model: Model) -> None:
    first = [one for s in range(3) for one in engine_take(engine(tiny_model, UNIT | {"hold": 1}), window(s, [0.9]))]
    again = engine(tiny_model, UNIT | {"hold": 1}, fired=(first[0].event_id,))
    assert run(again, window(5, [0.9, 0.9])) == [(5, "u1")]


def engine_take(rules: Engine, one: Predictions) -> list[Firing]:
    return rules.take(one, dict)


def test_a_number_of_units_of_a_class(tiny_model: Model) -> None:
    rule = {"name": "many", "when": "count", "task": "cell_type", "class": "PV", "above": 3, "below": 2, "hold": 2}
    counts = [[0.9] * 3, [0.9, 0.9, 0.1], [0.9] * 3]
    rules = engine(tiny_model, rule)
    fired = [one for s, p in enumerate(counts) for one in rules.take(window(s, p), dict)]
    assert [(one.step, one.subject, one.value) for one in fired] == [(2, "", 3.0)]


def test_a_region_counts_where_it_is_long_enough_and_at_the_tip_if_asked(tiny_model: Model) -> None:
    rule = {"name": "th", "when": "region", "region": "TH", "hold": 1}
    deep = placed(("CTX", 0, 500, 1.0), ("TH", 500, 900, 0.95))
    tip = placed(("TH", 0, 200, 0.95), ("CTX", 200, 900, 1.0))
    thin = placed(("TH", 0, 20, 0.95), ("CTX", 20, 900, 1.0))
    cases = [(rule, deep, 1), (rule, thin, 0), (rule | {"min_um": 10}, thin, 1)]
    cases += [(rule | {"at_tip": True}, deep, 0), (rule | {"at_tip": True}, tip, 1)]
    cases += [(rule, {"shanks": []}, 0), (rule | {"above": 0.96}, deep, 0)]
    for one, document, count in cases:
        fired = engine(tiny_model, one).take(window(1, [0.5]), lambda document=document: document)
        assert [firing.subject for firing in fired] == ["shank 0"] * count, (one, document)


def test_a_border_counts_once_it_is_known_well_enough_and_far_enough_from_the_tip(tiny_model: Model) -> None:
    rule = {"name": "in", "when": "boundary", "lower": "TH", "upper": "CTX", "hold": 1, "min_um": 300}
    for low, high, pair, count in (
        (350, 450, ("TH", "CTX"), 1),
        (250, 350, ("TH", "CTX"), 0),
        (350, 900, ("TH", "CTX"), 0),
        (350, 450, ("CTX", "TH"), 0),
    ):
        document = placed(("TH", 0, 400, 1.0), borders=((*pair, low, high, 0.99),))
        fired = engine(tiny_model, rule).take(window(1, [0.5]), lambda document=document: document)
        assert len(fired) == count, (low, high, pair)
    wide = rule | {"max_interval_um": 600}
    document = placed(borders=(("TH", "CTX", 350, 900, 0.99),))
    assert len(engine(tiny_model, wide).take(window(1, [0.5]), lambda: document)) == 1


def test_a_rule_of_another_stream_is_silent(tiny_model: Model) -> None:
    assert run(engine(tiny_model, UNIT | {"hold": 1, "stream": "probeB"}), window(1, [0.9])) == []
    assert run(engine(tiny_model, UNIT | {"hold": 1, "stream": "probeA"}), window(1, [0.9])) == [(1, "u0")]


HOOK = {"kind": "webhook", "name": "hook", "url": "http://127.0.0.1:1/x"}


@pytest.mark.parametrize(
    ("rule", "sink", "words"),
    [
        (UNIT | {"class": "PVX"}, HOOK, r"rules.pv.class = 'PVX'.*E, PV, SST, VIP"),
        (UNIT | {"task": "mood"}, HOOK, "rules.pv.task.*no task mood.*brain_region, cell_type"),
        (UNIT | {"below": 0.9}, HOOK, "rules.pv.*below = 0.9 is above"),
        (UNIT | {"abvoe": 0.9}, HOOK, "rules.pv.abvoe"),
        (UNIT | {"when": "never"}, HOOK, "rules.pv"),
        (UNIT | {"above": 1.5}, HOOK, "rules.pv.above = 1.5"),
        (UNIT | {"sinks": ["horn"]}, HOOK, "no sink 'horn'; there are hook"),
        (UNIT, HOOK | {"url": "localhost"}, "sinks.hook.url = 'localhost'.*http://"),
        (UNIT, {"kind": "open_ephys_ttl", "name": "ttl", "line": 0}, "sinks.ttl.line = 0"),
        ({"name": "in", "when": "boundary", "lower": "TH", "upper": "XX"}, HOOK, "rules.in.upper = 'XX'"),
        ({"name": "in", "when": "region", "region": "XX"}, HOOK, "rules.in.region = 'XX'.*CTX, HPF, TH"),
    ],
)
def test_a_rule_that_could_never_fire_is_refused_by_name(
    tiny_model: Model, rule: dict[str, Any], sink: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read_rules([rule], [sink], tiny_model.manifest)


def test_names_differ(tiny_model: Model) -> None:
    with pytest.raises(ConfigError, match="two are named 'pv'"):
        read_rules([UNIT, UNIT], [], tiny_model.manifest)
