"""Settings: defaults without a file, every one listed in configs/rig.toml, and clear errors."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from nuclr_stream.config import Settings, bind_error, load_settings, parse_priors
from nuclr_stream.errors import ConfigError, EndpointError

RIG = Path(__file__).parents[2] / "configs" / "rig.toml"


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_runs_without_any_file() -> None:
    assert load_settings() == Settings()


def test_rig_toml_lists_every_setting_with_its_default_and_one_comment() -> None:
    text = RIG.read_text()
    assert tomllib.loads(text) == {name: value for name, value in Settings() if value is not None}
    lines = [line.removeprefix("# ") for line in text.splitlines() if re.match(r"(# )?\w+ = |\[", line)]
    assert [re.split(" = |]", line.removeprefix("["))[0] for line in lines] == list(Settings.model_fields)
    assert all(line.count("# ") == 1 for line in lines)


def test_the_examples_of_settings_without_a_default_can_be_taken_as_they_are(tmp_path: Path) -> None:
    examples = [line[2:] for line in RIG.read_text().splitlines() if re.match(r"# \w+ = ", line)]
    settings = load_settings(written(tmp_path, "\n".join(examples)))
    assert (settings.hop_s, settings.half_life_s) == (1.0, 600.0)


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "threads = 3\nhop_s = 0.5\n")
    settings = load_settings(path, {"threads": 2})
    assert (settings.threads, settings.hop_s, settings.max_streams) == (2, 0.5, Settings().max_streams)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thread = 3", ["mine.toml", "'thread'", "did you mean 'threads'"]),
        ("results_endpiont = 'x'", ["'results_endpoint'"]),
        ("threads = 'many'", ["mine.toml", "threads", "'many'"]),
        ("http_port = 70000", ["http_port", "70000"]),
        ("provider = 'gpu'", ["provider", "'gpu'", "cuda"]),
        ("threads = ", ["mine.toml", "TOML"]),
        ("hop_s = 0.0", ["hop_s", "0.0", "greater than 0"]),
        ("half_life_s = -1.0", ["half_life_s", "-1.0"]),
        ("half_life_s = inf", ["half_life_s", "inf"]),
        ("[priors]\ncell_type = 3", ["priors.cell_type", "3"]),
        ("[priors.cell_type]\nPV = 'often'", ["priors.cell_type.PV", "'often'"]),
    ],
)
def test_bad_content_is_rejected_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(written(tmp_path, text))
    assert all(word in str(caught.value) for word in words), caught.value


def test_priors_are_weights_of_classes_by_task(tmp_path: Path) -> None:
    text = "half_life_s = 300\n[priors.cell_type]\nPV = 2\n'E / I' = 1\n[priors]\nbrain_region = { CTX = 0.5 }\n"
    settings = load_settings(written(tmp_path, text))
    assert settings.half_life_s == 300
    assert settings.priors == {"cell_type": {"PV": 2, "E / I": 1}, "brain_region": {"CTX": 0.5}}
    given = parse_priors(["cell_type.PV=2", "cell_type.E / I=1", "brain_region.CTX=.5"])
    assert given == settings.priors
    assert parse_priors(["region.CA1.a=b=3e1"]) == {"region": {"CA1.a=b": 30.0}}


@pytest.mark.parametrize("text", ["", "PV=2", "cell_type.PV", "cell_type.PV=", "cell_type.=2", ".PV=2", "a.b=c"])
def test_a_prior_that_is_none_is_rejected_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--prior .*cell_type\.PV=2") as caught:
        parse_priors(["brain_region.CTX=1", text])
    assert text in str(caught.value)


def test_absent_file_is_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load_settings(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:5581", "tcp://127.0.0.1:0", "tcp://localhost:*", "tcp://[::1]:99", "ipc:///run/x/y"]
)
def test_loopback_and_ipc_are_allowed(endpoint: str) -> None:
    assert bind_error(endpoint) == ""
    assert load_settings(None, {"data_endpoint": endpoint}).data_endpoint == endpoint


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://0.0.0.0:5581",
        "tcp://*:5581",
        "tcp://192.168.1.7:5581",
        "tcp://rig.example.org:5581",
        "tcp://127.evil.example:1",
        "tcp://127.0.0.1",
        "udp://127.0.0.1:5",
        "inproc://x",
        "ipc://relative",
        "ipc:///" + "x" * 101,
        "tcp://127.0.0.1:99999",
        "tcp://127.0.0.1:5581?x=1",
        "tcp://127.0.0.1:5581#x",
        "tcp://127.0.0.1:5581?",
        "tcp://me@127.0.0.1:5581",
        "tcp://:5581",
    ],
)
def test_nothing_beyond_this_machine_is_bound(endpoint: str) -> None:
    with pytest.raises(EndpointError, match="query_endpoint"):
        load_settings(None, {"query_endpoint": endpoint})
