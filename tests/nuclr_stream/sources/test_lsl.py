"""LSL as a source: real pylsl outlets, real inlets, and everything that LSL does not tell of by itself."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nuclr_stream.errors import ConfigError
from nuclr_stream.sources import lsl
from nuclr_stream.sources.lsl import LABELS, WATERMARK, LslSource
from nuclr_stream.sources.lsl_output import LslOutput
from nuclr_stream.wire import SpikeBatch, UnitTable
from tests.nuclr_stream.sources.daemon_inbox import daemon_inbox
from tests.nuclr_stream.sources.test_open_ephys_control import predictions_of

pylsl = pytest.importorskip("pylsl", reason="pylsl, or the liblsl that it wraps, is not installed")


@pytest.fixture(scope="module", autouse=True)
def only_this_machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have liblsl find its peers on the loopback, whatever network there is. It reads this once, at its first use."""
    config = tmp_path_factory.mktemp("lsl") / "lsl_api.cfg"
    config.write_text("[multicast]\nResolveScope = machine\n[lab]\nKnownPeers = {127.0.0.1}\n[log]\nlevel = -2\n")
    pylsl.set_config_filename(str(Path(config)))


def spikes_outlet(name: str, units: Sequence[str], *, rate: str = "30000", labels: Sequence[str] = LABELS) -> Any:
    """An outlet of spikes as docs/sources.md describes it."""
    info = pylsl.StreamInfo(name, "Spikes", len(labels), pylsl.IRREGULAR_RATE, "double64", name)
    info.set_channel_labels(list(labels))
    info.desc().append_child_value("sample_rate", rate)
    listed = info.desc().append_child("units")
    for unit in units:
        listed.append_child("unit").append_child_value("label", unit)
    return pylsl.StreamOutlet(info)


def found(source: LslSource, outlet: Any) -> None:
    """Turn until the source has found the outlet and takes its data."""
    for _ in range(100):
        source.turn(0.2)
        if outlet.have_consumers():
            return
    raise AssertionError("the outlet was not found within 20 s")


def taken(source: LslSource, rows: int) -> None:
    """Turn until so many rows have come in all."""
    for _ in range(200):
        if source.counters["rows"] >= rows:
            return
        source.turn(0.2)
    raise AssertionError(f"{source.counters['rows']} rows came instead of {rows}")


def test_spikes_arrive_with_their_units_and_lost_rows_are_missing() -> None:
    name = f"rig-{uuid.uuid4().hex[:8]}"
    with daemon_inbox() as inbox:
        outlet, source = spikes_outlet(name, ["a", "b"], rate="390625/16"), LslSource(name, endpoint=inbox.endpoint)
        found(source, outlet)
        rows = [(0, 0, 100), (1, 1, 90), (2, WATERMARK, 600), (3, 0, 700), (7, 1, 800), (8, WATERMARK, 1200)]
        outlet.push_chunk([[float(value) for value in row] for row in rows])
        taken(source, len(rows))
        source.close()
        inbox.take(ends=1)
        assert inbox.spikes() == Counter([("a", 100), ("a", 700), ("b", 800)])
        assert source.counters["rows_lost"] == 3
        assert [batch.start for batch in inbox.of(SpikeBatch)][:1] == [100]
        assert not any(a <= 750 < b for a, b in inbox.observed(inbox.epochs[0])), "where rows were lost is no silence"
        assert str(inbox.messages[0].sample_rate) == "390625/16"
        assert source.writer is not None and source.writer.counters["spikes_late"] == 1


def test_an_outlet_that_comes_back_is_a_new_epoch_with_its_own_units() -> None:
    name = f"rig-{uuid.uuid4().hex[:8]}"
    with daemon_inbox() as inbox:
        source = LslSource(name, endpoint=inbox.endpoint)
        for units, sample in ((["a", "b"], 1000), (["b", "c"], 50)):
            outlet = spikes_outlet(name, units)
            found(source, outlet)
            before = source.counters["rows"]
            outlet.push_chunk([[0.0, 1.0, float(sample)], [1.0, float(WATERMARK), float(sample + 500)]])
            taken(source, before + 2)
            del outlet
        source.close()
        inbox.take(ends=2)
    assert [sorted(inbox.spikes(epoch)) for epoch in inbox.epochs] == [[("b", 1000)], [("c", 50)]]
    tables = {table.epoch: table for table in inbox.of(UnitTable)}
    assert [(tables[e].unit_ids, tables[e].continues) for e in inbox.epochs] == [
        (("a", "b"), False),
        (("b", "c"), True),
    ]
    assert source.counters["outlets"] == 2


def test_binned_counts_become_spikes_of_their_bins_and_bins_that_never_came_are_missing() -> None:
    name = f"rig-{uuid.uuid4().hex[:8]}"
    info = pylsl.StreamInfo(name, "Counts", 2, 50.0, "float32", name)
    info.set_channel_labels(["a", "b"])
    with daemon_inbox() as inbox:
        outlet, source = pylsl.StreamOutlet(info), LslSource(name, endpoint=inbox.endpoint)
        found(source, outlet)
        now = pylsl.local_clock()
        for bin_index, counts in ((0, [1.0, 0.0]), (1, [0.0, 3.0]), (31, [2.0, 0.0])):
            outlet.push_sample(counts, now + bin_index / 50)
        taken(source, 3)
        source.close()
        inbox.take(ends=1)
    assert inbox.spikes() == Counter({("a", 0): 1, ("b", 1): 3, ("a", 31): 2})
    assert inbox.observed(inbox.epochs[0]) == [(0, 2), (31, 32)]
    assert source.counters["bins_lost"] == 29


def test_the_offset_of_the_senders_clock_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsl, "CLOCK_EVERY_S", 0.0)
    name = f"rig-{uuid.uuid4().hex[:8]}"
    with daemon_inbox() as inbox:
        outlet, source = spikes_outlet(name, ["a"]), LslSource(name, endpoint=inbox.endpoint)
        found(source, outlet)
        for _ in range(50):
            source.turn(0.1)
            if source.report()["clock_offset_s"] is not None:
                break
        source.close()
    assert abs(source.report()["clock_offset_s"]) < 0.5, "both are this machine's"


def test_a_stream_of_another_kind_is_rejected_with_what_is_expected() -> None:
    name = f"rig-{uuid.uuid4().hex[:8]}"
    with daemon_inbox() as inbox:
        outlet = spikes_outlet(name, ["a"], labels=["x", "y"])
        source = LslSource(name, endpoint=inbox.endpoint)
        with pytest.raises(ConfigError, match="sequence, unit, sample"):
            found(source, outlet)
        source.close()


def test_predictions_come_out_as_a_stream_a_task_with_the_time_at_which_the_window_closed() -> None:
    name = f"probe-{uuid.uuid4().hex[:8]}"
    called = replace(predictions_of("PV"), stream=name, closed_ns=time.monotonic_ns())
    abstained = replace(predictions_of(""), stream=name, closed_ns=time.monotonic_ns())
    output = LslOutput()
    output.take(called)
    (info,) = pylsl.resolve_byprop("name", f"{name}.cell_type", timeout=20.0)
    inlet = pylsl.StreamInlet(info, recover=False)
    inlet.open_stream(timeout=20.0)
    labels = inlet.info().get_channel_labels()
    unit = called.unit_ids[0]
    assert labels[:3] == ["end_sample", f"{unit} class", f"{unit} probability"]
    assert inlet.info().desc().child("classes").child("class").child_value("label") == "E"
    for predictions in (called, abstained):
        output.take(predictions)
    values, stamp = inlet.pull_sample(timeout=20.0)
    assert values[:2] == [called.end_sample, 1.0], "PV is the second class"
    assert values[2] == pytest.approx(0.9)
    assert abs(pylsl.local_clock() - stamp - (time.monotonic_ns() - called.closed_ns) / 1e9) < 1.0
    assert inlet.pull_sample(timeout=20.0)[0][1] == -1.0, "an abstained unit is called nothing"
    output.take(replace(called, unit_ids=tuple(f"{unit}x" for unit in called.unit_ids)))
    assert output.report()["counters"] == {"pushed": 4, "outlets": 2}, "other units are another outlet"
    inlet.close_stream()
    output.close()
