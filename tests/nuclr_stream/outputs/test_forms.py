"""Every form that predictions are written in, opened by the tool that it is for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import spikeinterface as si
from nwbinspector import Importance, inspect_nwbfile
from phylib.io.model import TemplateModel
from pynwb import NWBHDF5IO
from spikeinterface.curation import apply_curation, validate_curation_dict

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.inference.model import Model
from nuclr_stream.notebook.label import label
from nuclr_stream.outputs.files import new_file
from nuclr_stream.outputs.label import write_labels
from nuclr_stream.outputs.log import from_line, read_log, to_line
from nuclr_stream.outputs.result import Result, labelled, result_of
from nuclr_stream.outputs.sorting import set_properties
from nuclr_stream.outputs.summary import in_words
from nuclr_stream.outputs.wide import unit_columns
from nuclr_stream.recordings.readers import open_recordings
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.stream.labeler import Labeler
from tests.nuclr_stream.conftest import assert_same, predicted_in_process
from tests.nuclr_stream.recorded_files import new_nwb, recording, trains_s

SPIKES = recording(5, duration_s=12.2)
"""Three windows, also where a recording ends with its last spike."""
HALF = {"cell_type": 0.6, "brain_region": 0.0}
"""Thresholds that call some cell types and every region."""


def written(model: Model, path: Path, *recordings: Recording, source: Path | None = None, **options: object) -> Path:
    """Label recordings into `path`."""

    def labeler_of(one: Recording) -> Labeler:
        return Labeler(model, stream=one.recording_id, abstain=HALF)

    found = recordings or (SPIKES,)
    sources = {one.recording_id: source for one in found} if source else {}
    write_labels(found, labeler_of, path, sources=sources, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def result(tiny_model: Model) -> Result:
    labeler = Labeler(tiny_model, stream=SPIKES.recording_id, abstain=HALF)
    *_, latest = labelled(SPIKES, labeler)
    return result_of(SPIKES, labeler, latest)


def called(result: Result, task: str) -> list[str]:
    """The class of every unit, "undecided" where none is called."""
    (column,) = (column for column in unit_columns(result) if column.name == f"predicted_{task}")
    return [value or "undecided" for value in column.values]


# -- tables and the log -----------------------------------------------------------------------------------------------


def test_parquet_holds_the_rows_of_csv_with_types_that_pyarrow_reads(tiny_model: Model, tmp_path: Path) -> None:
    table = pyarrow.parquet.read_table(written(tiny_model, tmp_path / "a.parquet", every_s=5.0))
    assert table.num_rows == 12 * 2 * 3
    frame = table.to_pandas()
    assert set(frame["final"]) == {0, 1} and frame["stable_since_s"].isna().sum() == 12 * 2, "before the first window"
    csv = written(tiny_model, tmp_path / "a.csv", every_s=5.0).read_text().splitlines()
    assert table.schema.names == csv[0].split(",") and len(csv) == 1 + table.num_rows
    last = dict(zip(csv[0].split(","), csv[-1].split(","), strict=True))
    assert float(last["p_TH"]) == frame["p_TH"].iloc[-1] and last["prediction"] == frame["prediction"].iloc[-1]


def test_the_log_gives_every_prediction_back_bit_by_bit(tiny_model: Model, tmp_path: Path) -> None:
    def labeler_of(one: Recording) -> Labeler:
        return Labeler(tiny_model, stream="offline")

    write_labels([SPIKES], labeler_of, tmp_path / "a.jsonl")
    assert_same(list(read_log(tmp_path / "a.jsonl")), predicted_in_process(SPIKES, tiny_model))


def test_a_log_that_was_cut_off_or_changed_is_not_believed(result: Result, tmp_path: Path) -> None:
    line = to_line(result.predictions)
    (tmp_path / "a.jsonl").write_text(line + "\n" + line[:99])
    assert len(list(read_log(tmp_path / "a.jsonl"))) == 1, "a crash cuts the last line"
    (tmp_path / "a.jsonl").write_text(line + "\n" + line[:99] + "\n")
    with pytest.raises(NuclrStreamError, match=r"a\.jsonl: line 2"):
        list(read_log(tmp_path / "a.jsonl"))
    for old, new, words in (('"v": 1', '"v": 2', "v is 2"), ('"missing": 0.0', '"missing": 7', "missing")):
        with pytest.raises(ValueError, match=words):
            from_line(line.replace(old, new))


# -- phy, SpikeInterface ----------------------------------------------------------------------------------------------


def phy_folder(folder: Path) -> Path:
    """A folder that phy opens: the spikes, one template a cluster, four channels."""
    folder.mkdir()
    spikes, clusters = len(SPIKES.spike_samples), np.array([int(u) for u in SPIKES.unit_ids])
    rows = SPIKES.spike_units.astype(np.int64)
    arrays = {
        "spike_times": SPIKES.spike_samples,
        "spike_clusters": clusters[rows].astype(np.int32),
        "spike_templates": rows.astype(np.int32),
        "amplitudes": np.ones(spikes),
        "templates": np.ones((len(clusters), 8, 4), dtype=np.float32),
        "channel_map": np.arange(4),
        "channel_positions": np.stack([np.zeros(4), 20.0 * np.arange(4)], axis=1),
        "whitening_mat": np.eye(4),
        "whitening_mat_inv": np.eye(4),
        "similar_templates": np.eye(len(clusters)),
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    (folder / "params.py").write_text(
        "dat_path = []\nn_channels_dat = 4\ndtype = 'int16'\noffset = 0\nsample_rate = 30000.\n"
    )
    return folder


def test_phy_shows_class_probability_and_reason_as_columns(tiny_model: Model, tmp_path: Path, result: Result) -> None:
    folder = phy_folder(tmp_path / "sorted")
    (read,) = open_recordings(folder)
    written(tiny_model, folder / "cluster_nuclr.tsv", read)
    model = TemplateModel(dir_path=folder, n_channels_dat=4, sample_rate=30000.0, dat_path=[])
    fields = model.metadata
    model.close()
    assert [fields["nuclr_cell_type"][int(u)] for u in SPIKES.unit_ids] == called(result, "cell_type")
    tops = result.predictions.tasks[0].probabilities.max(axis=1)
    found = [float(fields["nuclr_cell_type_p"][int(u)]) for u in SPIKES.unit_ids]
    np.testing.assert_allclose(found, tops, atol=1e-4)
    assert set(fields["nuclr_cell_type_why"].values()) == {"called", "low_probability"}
    (again,) = open_recordings(folder)
    assert again.units["nuclr_brain_region"].tolist() == called(result, "brain_region")


@pytest.mark.parametrize(
    ("name", "ids", "words"),
    [
        ("labels.tsv", None, "cluster_NAME.tsv"),
        ("cluster_info.tsv", None, "cluster_NAME.tsv"),
        ("cluster_nuclr.tsv", "u", "whole numbers"),
    ],
)
def test_what_phy_could_not_read_is_refused(
    tiny_model: Model, tmp_path: Path, name: str, ids: str | None, words: str
) -> None:
    one = replace(SPIKES, unit_ids=np.array([f"{ids}{u}" for u in SPIKES.unit_ids])) if ids else SPIKES
    with pytest.raises(NuclrStreamError, match=words):
        written(tiny_model, tmp_path / name, one)
    assert not list(tmp_path.iterdir())


def test_spikeinterface_takes_the_curation_and_makes_properties_of_it(
    tiny_model: Model, tmp_path: Path, result: Result
) -> None:
    document = json.loads(written(tiny_model, tmp_path / "a.json").read_text())
    validate_curation_dict(document)
    clusters = np.array([int(u) for u in SPIKES.unit_ids])[SPIKES.spike_units]
    sorting = si.NumpySorting.from_samples_and_labels([SPIKES.spike_samples], [clusters], 30000.0)
    curated = apply_curation(sorting, document)
    order = [SPIKES.unit_ids.tolist().index(str(u)) for u in curated.unit_ids]
    assert curated.get_property("predicted_cell_type").tolist() == [called(result, "cell_type")[u] for u in order]


def test_columns_become_properties_of_the_sorting_that_they_are_of(tiny_model: Model, result: Result) -> None:
    clusters = np.array([int(u) for u in SPIKES.unit_ids])[SPIKES.spike_units]
    sorting = si.NumpySorting.from_samples_and_labels([SPIKES.spike_samples], [clusters], 30000.0)
    names = set_properties(sorting, label(sorting, bundle=tiny_model, abstain=HALF))
    order = [SPIKES.unit_ids.tolist().index(str(u)) for u in sorting.unit_ids]
    assert sorting.get_property("predicted_cell_type").tolist() == [called(result, "cell_type")[u] for u in order]
    assert {"predicted_cell_type_p_PV", "ood_score"} <= set(names) <= set(sorting.get_property_keys())
    assert set_properties(sorting, result) == names
    other = si.NumpySorting.from_samples_and_labels([SPIKES.spike_samples], [clusters + 1], 30000.0)
    with pytest.raises(NuclrStreamError, match="unit 1 of the sorting has no row"):
        set_properties(other, result)


# -- NWB --------------------------------------------------------------------------------------------------------------


def nwb_of(path: Path) -> Path:
    """A session with its units in a file, as a pipeline leaves it."""
    file = new_nwb()
    file.add_unit_column("quality", "of the sorter")
    for unit_id, train in zip(SPIKES.unit_ids, trains_s(SPIKES), strict=True):
        file.add_unit(id=int(unit_id), spike_times=train, obs_intervals=[[0.0, 12.2]], quality="good")
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


UNSAID = {"check_units_resolution_is_set", "check_subject_exists", "check_subject_species_exists", "check_subject_sex"}
"""What the inspector misses that is nothing about predictions."""


def complaints(path: Path) -> set[str]:
    """What nwbinspector finds critical, or a violation of best practice, in the units."""
    levels = (Importance.CRITICAL, Importance.BEST_PRACTICE_VIOLATION, Importance.ERROR)
    return {one.check_function_name for one in inspect_nwbfile(nwbfile_path=path) if one.importance in levels}


def test_a_copy_of_the_nwb_file_has_the_predictions_beside_its_own_columns(
    tiny_model: Model, tmp_path: Path, result: Result
) -> None:
    source = nwb_of(tmp_path / "day.nwb")
    before = source.read_bytes()
    (read,) = open_recordings(source)
    out = written(tiny_model, tmp_path / "out.nwb", read, source=source)
    with NWBHDF5IO(out, "r") as io:
        units = io.read().units.to_dataframe()
    assert source.read_bytes() == before
    assert units["quality"].tolist() == ["good"] * 12 and [len(t) for t in units["spike_times"]] == [
        len(t) for t in trains_s(SPIKES)
    ]
    assert [value or "undecided" for value in units["predicted_cell_type"]] == called(result, "cell_type")
    np.testing.assert_allclose(units["predicted_cell_type_p_PV"], result.predictions.tasks[0].probabilities[:, 1])
    assert set(units["prediction_bundle"]) == {tiny_model.bundle_id} and set(units["prediction_windows"]) == {3}
    assert not complaints(out) - UNSAID
    with pytest.raises(NuclrStreamError, match="column predicted_cell_type already"):
        written(tiny_model, tmp_path / "twice.nwb", read, source=out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day.nwb", "out.nwb"]


def test_another_recording_becomes_a_new_nwb_file_that_reads_back(tiny_model: Model, tmp_path: Path) -> None:
    out = written(tiny_model, tmp_path / "new.nwb")
    (back,) = open_recordings(out)
    assert np.array_equal(back.spike_samples, SPIKES.spike_samples)
    with NWBHDF5IO(out, "r") as io:
        assert {"unit_name", "depth_um", "predicted_cell_type"} <= set(io.read().units.colnames)


def test_an_nwb_file_without_a_date_or_of_two_sessions_is_refused(tiny_model: Model, tmp_path: Path) -> None:
    with pytest.raises(NuclrStreamError, match="session_date as YYYY-MM-DD"):
        written(tiny_model, tmp_path / "a.nwb", replace(SPIKES, session_date=""))
    with pytest.raises(NuclrStreamError, match="holds 2 recordings"):
        written(tiny_model, tmp_path / "a.nwb", SPIKES, recording(6, duration_s=2.0))
    assert not list(tmp_path.iterdir())


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_a_user_has_is_never_replaced_without_force(tiny_model: Model, tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.json", "cluster_nuclr_cell_type.tsv"):
        (tmp_path / name).write_text("mine")
        target = tmp_path / name.replace("_cell_type", "")
        with pytest.raises(NuclrStreamError, match="--force"):
            written(tiny_model, target)
        assert (tmp_path / name).read_text() == "mine"
        written(tiny_model, target, force=True)
        assert (tmp_path / name).read_text() != "mine"
    assert not list(tmp_path.glob("*.part*"))


def test_a_file_that_appears_meanwhile_is_not_replaced_either(tmp_path: Path) -> None:
    with pytest.raises(NuclrStreamError, match="is there already"), new_file(tmp_path / "a", force=False) as temporary:
        temporary.write_text("ours")
        (tmp_path / "a").write_text("theirs")
    assert (tmp_path / "a").read_text() == "theirs" and len(list(tmp_path.iterdir())) == 1


def test_an_unknown_ending_is_refused_with_those_that_there_are(tiny_model: Model, tmp_path: Path) -> None:
    with pytest.raises(NuclrStreamError, match=r"\.csv .*\.parquet .*\.nwb"):
        written(tiny_model, tmp_path / "a.xlsx")


# -- the summary ------------------------------------------------------------------------------------------------------


def test_the_summary_counts_every_unit_once_per_task_and_names_reasons_and_regions(
    tiny_model: Model, result: Result
) -> None:
    head, *lines = in_words(result)
    assert head == f"m1_s5: 12 units, 12.2 s, bundle {tiny_model.bundle_id}"
    types = next(line for line in lines if "cell type" in line)
    undecided = called(result, "cell_type").count("undecided")
    assert 0 < undecided < 12 and f"not called {undecided} (low probability {undecided})" in types
    assert any("predicted, from the tip" in line and " um (" in line for line in lines)
    short = recording(5, duration_s=3.0)
    labeler = Labeler(tiny_model, stream="short")
    assert list(labelled(short, labeler)) == []
    assert "shorter than a window" in list(in_words(result_of(short, labeler, None)))[1]
