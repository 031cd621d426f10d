"""What is deployed beside the daemon: alerts and panels name metrics that exist, and every alert is in the runbook."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nuclr_stream.commands.serve import serve
from nuclr_stream.daemon.metrics import Figures, Metrics, StreamFigures

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
ALERTS = (DEPLOY / "alerts.yml").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """Every name that a daemon with a stream exposes."""
    metrics = Metrics(provider="cpu", bundle="tiny")
    stream = StreamFigures(1, 1, 1.0, 0.0, 0, 0, {("cell_type", "no_data"): 1}, {"cell_type": 1}, True, 2.0)
    metrics.figures = Figures(inputs={"received": 1}, dropped={"queue_full": 1}, streams={"a": stream})
    families = text_string_to_metric_families(metrics.text().decode())
    return {sample.name for family in families for sample in family.samples}


def named(text: str) -> set[str]:
    return set(re.findall(r"nuclr_stream_\w+", text))


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_every_metric_that_is_named_exists(name: str, exposed: set[str]) -> None:
    found = named((DEPLOY / name).read_text(encoding="utf-8"))
    assert len(found) > 8
    assert found <= exposed


def test_the_runbook_has_a_section_for_every_alert_and_no_other() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert len(alerts) == len(set(alerts)) > 10
    assert alerts == re.findall(r"^## (NuclrStream\w+)$", RUNBOOK, re.MULTILINE)


def test_every_metric_in_the_runbook_exists(exposed: set[str]) -> None:
    assert named(RUNBOOK)
    assert all(any(name.startswith(found) for name in exposed) for found in named(RUNBOOK))


def test_the_runbook_explains_every_reason_of_the_daemon() -> None:
    source = (ROOT / "nuclr_stream" / "daemon" / "streams.py").read_text(encoding="utf-8")
    source += (ROOT / "nuclr_stream" / "daemon" / "keeping.py").read_text(encoding="utf-8")
    for reason in ("step_overdue", "step_failed", "not_recorded", "not_saved", "source_silent"):
        assert f'"{reason}"' in source
        assert f"`{reason}`" in RUNBOOK


def test_the_dashboard_has_panels_with_queries_side_by_side() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert all(target["expr"] for panel in board["panels"] for target in panel["targets"])


def test_the_unit_is_watched_hardened_and_runs_an_existing_command() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "nuclr-stream.service").read_text(encoding="utf-8"))
    service = unit["Service"]
    assert (service["Type"], service["WatchdogSec"], service["Restart"]) == ("notify", "10s", "always")
    assert {service[name] for name in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "DynamicUser")} == {"yes"}
    program, command, *options = service["ExecStart"].split()
    assert (Path(program).name, command) == ("nuclr-stream", "serve")
    assert {option[2:] for option in options if option.startswith("--")} <= set(serve.__annotations__)


def test_the_image_runs_the_daemon_as_a_user_of_its_own() -> None:
    image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER nuclr$", image, re.MULTILINE)
    assert '["nuclr-stream", "serve", "--snapshots"' in image
    copied = re.findall(r"^COPY (.+) (?:\./|\w+)$", image, re.MULTILINE)
    assert all((ROOT / name).exists() for line in copied for name in line.split() if not line.startswith("--from"))
