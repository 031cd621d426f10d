"""What the page knows of a probe: rows are the predictions', geometry is the unit table's, joined by unit id."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nuclr_stream.dashboard.probe import Probe, entropy
from nuclr_stream.wire import ActivityReply, ActivityRequest
from tests.nuclr_stream.dashboard.stand_in import FakeProbe


def units_of(fake: FakeProbe, *, counts: bool = False) -> ActivityReply:
    return fake.activity(ActivityRequest(request_id=1, stream=fake.stream, counts=counts))


def known(fake: FakeProbe) -> Probe:
    probe = Probe(fake.stream)
    probe.take_state(fake.stream_state(instance=1))
    probe.take_units(units_of(fake))
    if not fake.table_only:
        probe.take_predictions(fake.predictions(instance=1))
    return probe


def test_shanks_and_depths_are_those_of_the_unit_whatever_the_order_of_the_table() -> None:
    fake, probe = FakeProbe("a", units=12, shanks=4), Probe("a")
    table = units_of(fake)
    order = np.random.default_rng(0).permutation(12)
    turned = {name: getattr(table, name)[order] for name in ("unit_index", "shank", "x_um", "depth_um", "channel")}
    probe.take_predictions(fake.predictions(instance=1))
    probe.take_units(replace(table, **turned, unit_ids=tuple(table.unit_ids[k] for k in order)))
    header, arrays = probe.layout_frame()
    assert header["unit_ids"] == list(fake.ids)
    np.testing.assert_array_equal(arrays["shank"], fake.shank)
    np.testing.assert_array_equal(arrays["depth_um"], fake.depth)


def test_what_the_source_does_not_say_stays_unknown() -> None:
    _, arrays = known(FakeProbe("a", units=5, depths=False, shanks=0)).layout_frame()
    assert np.isnan(arrays["depth_um"]).all()
    assert (arrays["shank"] == -1).all()


def test_during_warm_up_the_units_of_the_table_are_the_rows() -> None:
    probe = known(FakeProbe("a", units=5, table_only=True, progress=0.4))
    assert probe.layout_frame()[0]["unit_ids"] == [f"u{k}" for k in range(5)]
    assert probe.summary()["state"] == "warming_up" and probe.summary()["progress"] == 0.4
    assert probe.full() == {} and probe.brief(0) == {}


def test_a_new_epoch_forgets_the_predictions_before_it() -> None:
    fake = FakeProbe("a", units=5)
    probe = known(fake)
    probe.take_state(replace(fake.stream_state(instance=1), epoch=8))
    assert probe.predictions is None and probe.geometry_is_due


def test_arrays_say_what_the_predictions_say() -> None:
    fake = FakeProbe("a", units=40)
    probe, task = known(fake), fake.predictions(instance=1).tasks[0]
    full, slow = probe.full(), probe.slow()
    np.testing.assert_array_equal(full["top0"], task.probabilities.argmax(axis=1))
    np.testing.assert_allclose(full["p0"] / 255, task.probabilities.max(axis=1), atol=0.002)
    np.testing.assert_array_equal(full["why0"], task.why)
    np.testing.assert_array_equal(slow["set0"], task.sets.sum(axis=1))
    assert slow["stable0"].min() >= 0
    brief = probe.brief(0)
    np.testing.assert_array_equal(brief["p"] == 0, task.abstained)


def test_a_unit_without_a_prediction_is_stable_for_no_time() -> None:
    fake, probe = FakeProbe("a", units=2), Probe("a")
    last = fake.predictions(instance=1)
    never = replace(last.tasks[0], stable_since=np.array([-1, last.end_sample], dtype=np.int64))
    probe.take_predictions(replace(last, tasks=(never,)))
    stable = probe.slow()["stable0"]
    assert np.isnan(stable[0]) and stable[1] == 0


def test_rates_are_spikes_a_second_of_what_was_observed() -> None:
    fake = FakeProbe("a", units=6, missing=0.5)
    probe = known(fake)
    probe.activity = units_of(fake, counts=True)
    found = probe.activity_frame()
    assert found is not None
    header, arrays = found
    assert (header["bins"], header["bits"], arrays["observed"].sum()) == (500, 2, 250)
    np.testing.assert_allclose(arrays["rate"], probe.activity.counts.sum(axis=1) / 5.0, rtol=1e-5)


def test_entropy_is_one_for_no_idea_and_none_for_certainty() -> None:
    task = FakeProbe("a", units=2).predictions(instance=1).tasks[0]
    p = np.array([[0.25] * 4, [1, 0, 0, 0]], dtype=np.float32)
    assert entropy(replace(task, probabilities=p)).tolist() == [255, 0]


def test_one_unit_comes_with_its_distribution_set_history_and_evidence() -> None:
    probe = known(FakeProbe("a", units=4))
    header, arrays = probe.unit_frame("u2", {"units": []})
    assert [task["name"] for task in header["tasks"]] == ["cell_type", "brain_region"]
    assert abs(sum(header["tasks"][0]["probabilities"]) - 1) < 0.001
    assert header["evidence"] == {"units": []}
    assert len(arrays["time_s"]) == 1 and len(arrays["p0"]) == 4 and len(arrays["p1"]) == 3
