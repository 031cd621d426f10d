"""Published experiments: every archive read by its own rules, evaluated as published, beside the figures."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclr_stream.recordings.readers import open_recordings
from offline_training.commands.cli import main
from offline_training.config import UNLABELLED, TrainConfig
from offline_training.studies.reproduce import allen, bugeon, ibl, steinmetz
from offline_training.studies.reproduce.archive import Archive, ArchiveError, ending_at
from offline_training.studies.reproduce.download import download
from offline_training.studies.reproduce.experiment import as_table, reproduce
from offline_training.studies.reproduce.protocol import LabelledUnits, folds, score
from offline_training.studies.reproduce.published import INDUCTIVE, PUBLISHED, TRANSDUCTIVE, TRANSDUCTIVE_ZERO_SHOT
from tests.offline_training.archives import UNITS, write_allen, write_bugeon, write_ibl, write_steinmetz

ARCHIVES = {one.name: one for one in (allen.ARCHIVE, ibl.ARCHIVE, steinmetz.ARCHIVE, bugeon.ARCHIVE)}
WRITE = {"allen": write_allen, "ibl": write_ibl, "steinmetz": write_steinmetz, "bugeon": write_bugeon}
TINY = {"dim": 8, "heads": 1, "head_dim": 8, "ffn_hidden": 8, "temporal_blocks": 1, "spatiotemporal_blocks": 1}
TRACES = {"bins_per_second": "6250/1459", "bins_per_patch": 4, "patches": 4, "hop_s": 3.73504, "input_kind": "traces"}


def config_of(name: str) -> TrainConfig:
    """Two steps of a tiny encoder."""
    values: dict[str, Any] = {"name": "tiny", "encoder": TINY, "training": {"steps": 2, "batch_windows": 2}}
    window = TRACES if name == "bugeon" else {"hop_s": 10.0}
    return TrainConfig.parse(values | {"window": window, "rules": {"cut_silence": name != "bugeon"}})


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name) / "archive") for name, write in WRITE.items()}


@pytest.mark.parametrize("name", list(WRITE))
def test_an_experiment_goes_from_archive_to_table(archives: dict[str, Path], tmp_path: Path, name: str) -> None:
    names = ("SWC_038",) if name == "ibl" else ()
    result = reproduce(ARCHIVES[name], archives[name], tmp_path, config=config_of(name), held_out=names)
    assert json.loads((tmp_path / "reproduction.json").read_text()) == result
    text = as_table(result)
    for (archive, task), settings in PUBLISHED.items():
        for setting, (nuclr, *_) in settings.items() if archive == name else ():
            (row,) = [line for line in text.splitlines() if line.startswith(f"| {task} | {setting} |")]
            assert f"| {nuclr:.4f} |" in row
            ours = result["tasks"][task]["settings"][setting]["ours"]
            assert 0 <= ours["macro_f1"] <= 1 and f"| {ours['macro_f1']:.4f} |" in row
    assert "config tiny, seed 0, 2 steps" in text
    prepared = open_recordings(tmp_path / "recordings") if name != "bugeon" else [0] * 3
    assert len(prepared) == result["recordings"]
    again = reproduce(ARCHIVES[name], archives[name], tmp_path, config=config_of(name), held_out=names)
    assert again["encoders"] == result["encoders"], "a finished training is not repeated"


def test_the_inductive_encoder_never_sees_the_held_out(archives: dict[str, Path], tmp_path: Path) -> None:
    result = reproduce(steinmetz.ARCHIVE, archives["steinmetz"], tmp_path, config=config_of("steinmetz"))
    assert result["held_out"] == ["cori", "forssmann", "hench"]
    runs = {
        run: json.loads((tmp_path / "runs" / run / "run.json").read_text())["subjects"]
        for run in ("all_animals", "without_held_out")
    }
    assert runs == {
        "all_animals": ["cori", "forssmann", "hench", "moniz", "tatum"],
        "without_held_out": ["moniz", "tatum"],
    }


def test_allen_keeps_good_visual_units_until_five_minutes_before_optotagging(archives: dict[str, Path]) -> None:
    recordings = allen.read_allen(archives["allen"])
    assert [recording.recording_id for recording in recordings] == ["101", "102", "103", "104", "105"]
    first = recordings[0]
    assert first.subject_id == "101" and first.duration_s == 60.0, "light at 360 s"
    assert first.unit_ids.tolist() == [str(101000 + row) for row in range(UNITS)], "no hippocampus, no low presence"
    assert set(first.units["brain_region"]) == {"VISp"} and first.spike_samples.max() < 60 * 30000
    assert first.units["cell_type"].tolist() == ["Pvalb", ""] * (UNITS // 2)
    assert set(recordings[4].units["cell_type"]) == {""}, "wt is no cell type"
    assert first.mask_samples.tolist() == [[900000, 930001]]


def test_ibl_keeps_units_of_label_1_and_drops_the_last_300_s(archives: dict[str, Path]) -> None:
    recordings = ibl.read_ibl(archives["ibl"])
    assert [recording.subject_id for recording in recordings] == ["KS014", "NYU-11", "SWC_038"]
    first = recordings[0]
    assert first.recording_id == "KS014_2020-01-01_001_probe00" and first.session_date == "2020-01-01"
    assert first.unit_ids.tolist() == [f"KS014-{row}" for row in range(20)]
    assert 44.5 < first.duration_s < 45.0
    regions = first.units["brain_region"].tolist()
    assert regions[:4] == ["Isocortex", "TH", "Isocortex", ""], "ids of the left half are negative; root is no region"
    assert first.units["depth_um"][19] == 380


def test_ibl_asks_who_is_held_out(archives: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="name the animals to hold out"):
        reproduce(ibl.ARCHIVE, archives["ibl"], tmp_path, config=config_of("ibl"))
    with pytest.raises(ArchiveError, match="no recording of nobody; there are KS014, NYU-11, SWC_038"):
        reproduce(ibl.ARCHIVE, archives["ibl"], tmp_path, config=config_of("ibl"), held_out=("nobody",))


def test_steinmetz_has_a_recording_per_probe_and_channels_count_from_one(archives: dict[str, Path]) -> None:
    recordings = steinmetz.read_steinmetz(archives["steinmetz"])
    assert [recording.recording_id for recording in recordings[:2]] == ["cori_20170101_p0", "cori_20170101_p1"]
    assert recordings[0].units["brain_region"][:5].tolist() == ["VISp", "CA1", "LP", "MRN", "root"]
    task = TrainConfig.parse({"name": "x", "training": {"steps": 1}, "tasks": steinmetz.ARCHIVE.tasks}).tasks[
        "brain_region"
    ]
    assert task.names == ("HPF", "MB", "TH", "VIS")
    assert task.labels(recordings[0])[:5].tolist() == [3, 0, 2, 1, UNLABELLED]
    assert len(recordings[1].unit_ids) == UNITS and recordings[1].unit_ids[0] == f"cori_20170101_u{UNITS}"


def test_bugeon_divides_by_the_99th_percentile_of_the_session_and_parts_experiments(archives: dict[str, Path]) -> None:
    first = bugeon.read_bugeon(archives["bugeon"])[0]
    assert (first.recording_id, first.subject_id) == ("sb025_20191001", "sb025")
    assert first.num_samples == 90 + bugeon.GAP_FRAMES + 70 and first.gap_samples.tolist() == [[90, 90 + 256]]
    assert np.quantile(first.traces[:, first.observed], 0.99) == pytest.approx(1.0, abs=1e-5)
    assert len(first.unit_ids) == 21, "the neuron with a NaN is left out"
    assert first.units["ei"].tolist() == ["EC"] * 5 + ["IN"] * 16
    assert first.units["subclass"][[0, 5, 20]].tolist() == ["", "Pvalb", ""]


@pytest.mark.parametrize("name", list(WRITE))
def test_another_folder_is_rejected_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArchiveError, match=tmp_path.name):
        ARCHIVES[name].read(tmp_path)


def test_what_does_not_fit_is_rejected_by_name(tmp_path: Path) -> None:
    folder = write_steinmetz(tmp_path / "steinmetz")
    np.save(folder / "Cori_2017-01-01" / "clusters.peakChannel.npy", np.full(2 * UNITS, 6))
    with pytest.raises(ArchiveError, match=r"peakChannel\.npy: holds 6 of 5 channels"):
        steinmetz.read_steinmetz(folder)
    folder = write_bugeon(tmp_path / "bugeon")
    np.save(folder / "SB025" / "2019-10-01" / "Blank" / "01" / "frame.times.npy", 0.1 * np.arange(90))
    with pytest.raises(ArchiveError, match=r"10\.000 frames/s; 4\.284 are needed"):
        bugeon.read_bugeon(folder)
    folder = write_ibl(tmp_path / "ibl")
    next(folder.rglob("clusters.metrics.csv")).unlink()
    with pytest.raises(ArchiveError, match=r"neither clusters\.metrics\.pqt nor \.csv"):
        ibl.read_ibl(folder)


def test_nothing_left_before_the_end_is_an_error(archives: dict[str, Path]) -> None:
    (recording, *_) = steinmetz.read_steinmetz(archives["steinmetz"])
    assert ending_at(recording, 10.0).duration_s == 10.0
    with pytest.raises(ArchiveError, match="nothing is left of it before -5 s"):
        ending_at(recording, -5.0)


def units_of(subjects: str, labels: list[int]) -> LabelledUnits:
    """Units whose class shows in the first channel of their embedding."""
    label = np.array(labels)
    rng = np.random.default_rng(0)
    embedding = np.stack([label + rng.normal(0, 0.01, len(label)), rng.normal(size=len(label))], axis=1)
    return LabelledUnits(embedding.astype(np.float32), label, np.array(list(subjects)))


def test_the_settings_hold_out_units_animals_in_turn_or_the_held_out() -> None:
    units = units_of("aabbcc" * 5, [0, 1] * 15)
    ((train, test),) = folds(units, TRANSDUCTIVE, ["c"])
    assert test.sum() == 6 and not (train & test).any() and (train | test).all()
    in_turn = folds(units, TRANSDUCTIVE_ZERO_SHOT, ["c"])
    assert [set(units.subject[test]) for _, test in in_turn] == [
        {"a"},
        {"b"},
        {"c"},
    ]
    ((train, test),) = folds(units, INDUCTIVE, ["c"])
    assert set(units.subject[test]) == {"c"} and set(units.subject[train]) == {"a", "b"}
    everyone = folds(units, INDUCTIVE, ["a", "b", "c"])
    assert [set(units.subject[test]) for _, test in everyone] == [{"a"}, {"b"}, {"c"}], "nobody else has labels"


@pytest.mark.parametrize("balance", ["weights", "oversampling"])
def test_rare_classes_weigh_as_much_as_common_ones(balance: Any) -> None:
    """Overlapping classes, 60 to 6: unbalanced, everything would be called the common one."""
    rng = np.random.default_rng(1)
    label = np.array(([0] * 60 + [1] * 6) * 2)
    units = LabelledUnits(
        (label + rng.normal(0, 1.0, len(label)))[:, None].astype(np.float32), label, np.repeat(["a", "b"], 66)
    )
    found = score(units, INDUCTIVE, ["b"], balance)
    assert found["units"] == 66 and found["balanced_accuracy"] > 0.6
    with pytest.raises(ArchiveError, match="fewer than two classes to fit on"):
        score(replace(units, label=np.repeat([0, 1], 66)), INDUCTIVE, ["b"], balance)


@contextmanager
def figshare(files: dict[str, bytes], sums: dict[str, str]) -> Iterator[str]:
    """A server that answers as figshare's interface does."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[1]
            listed = [{"name": n, "download_url": f"{here}/f/{n}", "computed_md5": sums[n]} for n in files]
            content = json.dumps(listed).encode() if "/articles/7/files" in self.path else files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        here = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield here
        server.shutdown()
        thread.join()


def packed() -> bytes:
    """A zip file with the tar file of a session in it."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        entry = tarfile.TarInfo("spikes.times.npy")
        entry.size = 3
        file.addfile(entry, io.BytesIO(b"abc"))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("Cori_2016-12-14.tar", tar.getvalue())
    return zipped.getvalue()


def test_a_download_is_checked_unpacked_and_not_repeated(tmp_path: Path) -> None:
    archive: Archive = replace(steinmetz.ARCHIVE, figshare=7)
    content = packed()
    sums = {"all.zip": hashlib.md5(content, usedforsecurity=False).hexdigest()}
    with figshare({"all.zip": content}, sums) as api:
        folder = download(archive, tmp_path, api=api)
        assert (folder / "all" / "Cori_2016-12-14" / "spikes.times.npy").read_bytes() == b"abc"
        (tmp_path / "all.zip").write_bytes(content)
        sums["all.zip"] = "another sum, which nobody asks for"
        assert download(archive, tmp_path, api=api) == folder
        (tmp_path / "all.zip").unlink()
        with pytest.raises(ArchiveError, match=r"all\.zip: arrived with MD5"):
            download(archive, tmp_path, api=api)
    assert not (tmp_path / "all.zip").exists()


def test_without_network_or_a_client_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="without network, download it elsewhere and give --archive DIR"):
        download(steinmetz.ARCHIVE, tmp_path, api="http://127.0.0.1:1")
    with pytest.raises(ArchiveError, match=r"download it with its own client and give --archive DIR.*ONE-api"):
        download(ibl.ARCHIVE, tmp_path)


def test_every_archive_has_a_published_config_and_figures() -> None:
    for name, archive in ARCHIVES.items():
        assert {task for one, task in PUBLISHED if one == name} == set(archive.tasks)
        config = TrainConfig.load(Path(__file__).parents[3] / archive.config)
        assert config.window.input_kind == ("traces" if name == "bugeon" else "spikes")


def test_the_command_prints_the_table(
    archives: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.toml"
    encoder = "\n".join(f"{key} = {value}" for key, value in TINY.items())
    config.write_text(f'name = "tiny"\n[encoder]\n{encoder}\n[training]\nsteps = 1\nbatch_windows = 2\n')
    options = ["--archive", archives["ibl"], "--config", config, "--held-out", "KS014, SWC_038", "--seed", "3"]
    monkeypatch.setattr(
        sys, "argv", ["nuclr-train", "reproduce", "ibl", *map(str, options), "--out", str(tmp_path / "out")]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "config tiny, seed 3, 1 steps" in out and "held out: KS014, SWC_038." in out and "| 0.5295 |" in out
