"""The figures of placement: simulated probes tell the truth about their borders, and scores count what they say."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nuclr_stream.errors import ConfigError
from nuclr_stream.placement.regions import DEFAULTS
from nuclr_stream.recordings.recording import Recording
from offline_training.commands.cli import app
from offline_training.simulation.animals import simulate
from offline_training.simulation.biology import REGIONS_FROM_TIP
from offline_training.simulation.network import as_recording
from offline_training.simulation.network_cells import draw_neurons
from offline_training.simulation.network_drive import draw_network_animal, network_rng
from offline_training.simulation.network_sorting import SortedUnits
from offline_training.simulation.probes import SimulatedProbe, borders_of_animal, borders_of_network, draw_probe
from offline_training.studies import placement as evaluation
from offline_training.studies.placement import (
    Interval,
    choose_settings,
    draw_plan,
    evaluate_placement,
    score_probe,
    summary,
    table,
)

RESULT = Path(__file__).parents[3] / "results" / "placement" / "placement.json"


def sure(probe: SimulatedProbe) -> SimulatedProbe:
    """The same probe with units that know their region, every unit where its region is."""
    region = probe.region_at(probe.depth_um)
    known = 0.94 * (probe.classes == region[:, None]) + 0.06 / len(probe.classes)
    times = len(probe.seconds)
    return replace(
        probe,
        region=region,
        probabilities=np.repeat(known[None], times, axis=0),
        abstained=np.zeros((times, len(region)), dtype=bool),
    )


def test_the_units_of_an_animal_change_region_at_its_borders() -> None:
    recording = simulate(77, units=160, duration_s=1.0)
    borders = borders_of_animal(77, 160)
    expected = np.array(REGIONS_FROM_TIP)[np.searchsorted(borders, recording.units["depth_um"])]
    far = np.abs(recording.units["depth_um"][:, None] - borders).min(axis=1) > 41
    assert (expected == recording.units["brain_region"])[far].all() and far.sum() > 80


def test_a_seed_is_a_probe_and_keeps_its_regions_apart() -> None:
    one, same, other = draw_probe(1), draw_probe(1), draw_probe(2)
    assert np.array_equal(one.probabilities, same.probabilities)
    assert one.borders_um.tolist() != other.borders_um.tolist()
    for probe in (one, other):
        assert np.diff([0.0, *probe.borders_um]).min() >= 200 and len(set(probe.order)) == len(probe.order) >= 3


def test_drawn_units_are_right_as_often_as_they_say_and_more_often_later() -> None:
    probes = [draw_probe(seed) for seed in range(60)]
    accuracy, promised = np.zeros(2), np.zeros(2)
    for time in range(2):
        predicted = np.concatenate([probe.probabilities[time] for probe in probes])
        truth = np.concatenate([probe.region for probe in probes])
        accuracy[time] = (probes[0].classes[predicted.argmax(axis=1)] == truth).mean()
        promised[time] = predicted.max(axis=1).mean()
    np.testing.assert_allclose(promised, accuracy, atol=0.03)
    assert accuracy[1] > accuracy[0] + 0.2


def test_a_probe_is_kept_whole(tmp_path: Path) -> None:
    probe = draw_probe(3)
    probe.save(tmp_path / "probe.npz")
    for name, value in asdict(SimulatedProbe.load(tmp_path / "probe.npz")).items():
        np.testing.assert_array_equal(value, getattr(probe, name))


def test_a_probe_whose_units_know_is_placed_without_a_mistake() -> None:
    score = score_probe(sure(draw_probe(4)), 0)
    assert score.placed and score.order_right and score.false_borders == 0
    assert score.accuracy_single == 1 and score.accuracy_by_depth > 0.97 and score.accuracy_placed > 0.97
    assert all(one is not None and one.miss_um == 0 for one in (*score.found, *score.in_order))
    assert score.offset is not None and score.offset.error_um < 200


def test_a_probe_whose_units_say_the_wrong_regions_has_false_borders_and_none_of_the_true() -> None:
    probe = sure(draw_probe(4))
    turned = replace(probe, probabilities=np.roll(probe.probabilities, 1, axis=2))
    score = score_probe(turned, 0)
    assert score.accuracy_single == 0 and not score.order_right
    matched = sum(one is not None for one in score.found)
    assert score.false_borders == len(probe.borders_um) - matched > 0


def test_a_probe_that_is_not_placed_counts_as_that() -> None:
    probe = draw_probe(5)
    silent = replace(probe, exposure=np.zeros_like(probe.exposure))
    found = summary([score_probe(silent, 0)])
    assert (found["placed"], found["borders_found"], found["coverage"], found["offset_coverage"]) == (0, 0, None, None)
    assert found["borders"] == len(probe.borders_um)


def test_a_plan_is_off_by_its_offset_and_keeps_the_order() -> None:
    probe = draw_probe(6)
    offset_um, plan = draw_plan(probe)
    assert [one.region for one in plan] == probe.order.tolist()
    assert all(one.from_um < one.to_um for one in plan)
    assert np.abs([one.to_um + offset_um for one in plan[:-1]] - probe.borders_um).max() < 500


def test_coverage_counts_borders_and_its_range_comes_from_probes() -> None:
    score = score_probe(sure(draw_probe(4)), 0)
    inside, outside = Interval(1, 10, 0), Interval(50, 10, 45)
    scores = [replace(score, found=(inside, inside)), replace(score, found=(outside, None))]
    found = summary(scores)
    assert (found["borders"], found["borders_found"], found["coverage"]) == (4, 3, pytest.approx(0.6667))
    assert found["coverage_range"] == [0.0, 1.0]


def test_chosen_settings_know_how_alike_neighbours_err_and_keep_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "CORRELATIONS", (0.0, 0.2, 5.0))
    monkeypatch.setattr(evaluation, "DISTANCES_UM", (100.0,))
    monkeypatch.setattr(evaluation, "BORDER_SDS_UM", (10.0, 300.0))
    chosen = choose_settings({"drawn": [draw_probe(seed, seconds=(60.0,)) for seed in range(12)]})
    assert (chosen.correlation, chosen.border_sd_um) == (0.2, 10.0)


def test_a_result_holds_its_seeds_settings_and_a_table(tmp_path: Path) -> None:
    out = tmp_path / "placement" / "result.json"
    result = evaluate_placement(
        draw_probe, tuning=[1], scored=[2, 3], drawn=2, facts={"bundle": "none", "units": 0}, out=out
    )
    assert json.loads(out.read_text()) == result
    assert result["seeds"]["animals"] == [2, 3] and not {*result["seeds"]["drawn"]} & {*result["tuning_seeds"]["drawn"]}
    lines = table(result).splitlines()
    assert sum(line.startswith("| 10 s |") for line in lines) == 2
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_the_shipped_settings_are_those_of_the_published_result_and_keep_their_promise() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert result["settings"] == result["chosen"] == asdict(DEFAULTS)
    assert len(result["seeds"]["animals"]) >= 100
    for population in result["seeds"]:
        assert not {*result["seeds"][population]} & {*result["tuning_seeds"][population]}


def run(*arguments: str | Path) -> dict:
    """The result that `nuclr-train placement` prints."""
    done = CliRunner().invoke(app, ["placement", *map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1])


def test_the_command_plays_animals_through_a_bundle_once(tiny_bundle: Path, tmp_path: Path) -> None:
    out, runs = tmp_path / "placement.json", tmp_path / "runs"
    few = ["--animals", "1", "--tuning-animals", "1", "--drawn", "1", "--seconds", "10"]
    command = ["--bundle", tiny_bundle, "--out", out, "--runs", runs, *few]
    first = run(*command)
    kept = {path: path.read_bytes() for path in runs.iterdir()}
    assert run(*command) == first
    assert len(kept) == 2 and {path: path.read_bytes() for path in runs.iterdir()} == kept


def network_recording(folder: Path, seed: int, index: int) -> Path:
    """The cells of a network animal in their places, every twentieth of them, with random spikes instead of its own."""
    rng = network_rng(seed, index)
    animal = draw_network_animal(rng)
    neurons = draw_neurons(rng, animal)
    chosen = slice(None, None, 20)
    units = len(neurons.region[chosen])
    session = SortedUnits(
        spike_s=np.sort(rng.uniform(0, 12, 40 * units)),
        spike_unit=rng.integers(0, units, 40 * units).astype(np.int32),
        region=neurons.region[chosen],
        kind=neurons.kind[chosen],
        depth_um=neurons.height_um[chosen],
        electrode=np.zeros(units, np.int32),
    )
    path = folder / f"network_{seed}_{index:03d}.npz"
    as_recording(session, seed=seed, index=index, duration_s=12.0).save(path)
    return path


def test_the_cells_of_a_network_change_region_at_its_borders(tmp_path: Path) -> None:
    recording = Recording.load(network_recording(tmp_path, 1, 0))
    order, borders_um = borders_of_network(1, 0)
    assert order == ("TH", "DG", "CA1"), "from the tip up"
    expected = np.array(order)[np.searchsorted(borders_um, recording.units["depth_um"])]
    assert np.array_equal(expected, recording.units["brain_region"])


def test_networks_are_scored_by_their_own_borders(tiny_bundle: Path, tmp_path: Path) -> None:
    files = [network_recording(tmp_path, 2, index) for index in (0, 1)]
    out = tmp_path / "network.json"
    command = ["--bundle", tiny_bundle, "--out", out, "--runs", tmp_path / "runs", "--seconds", "10"]
    result = run(*command, "--recordings", tmp_path)
    assert json.loads(out.read_text()) == result and result["chosen"] is None
    score = result["scores"]["animals"]["10"]
    assert score["probes"] == len(files)
    assert score["borders"] == sum(len(borders_of_network(2, index)[1]) for index in (0, 1))


def test_easy_animals_are_not_scored_with_a_bundle_that_knows_other_regions(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--bundle demo: it knows .*; give --recordings of simulated networks"):
        run("--out", tmp_path / "never.json")
    with pytest.raises(ConfigError, match=r"no network_<seed>_<index>\.npz in it"):
        run("--out", tmp_path / "never.json", "--recordings", tmp_path)
