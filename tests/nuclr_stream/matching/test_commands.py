"""`nuclr-stream source spikeglx` and `falcon`, from the command line to what the daemon receives."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from nuclr_stream.commands import source_falcon, source_spikeglx
from nuclr_stream.commands.cli import main
from nuclr_stream.matching.folders import read_templates
from nuclr_stream.matching.matcher import Matcher
from nuclr_stream.wire import UnitTable
from tests.nuclr_stream.matching.glx_server import GlxServer
from tests.nuclr_stream.matching.made import CHANNELS, make, share_found
from tests.nuclr_stream.matching.test_sources import falcon_message, turned
from tests.nuclr_stream.sources.daemon_inbox import daemon_inbox

MADE = make(3.2)
FIRST_CHANNEL = 5  # of the sorting in the acquisition

Started = Callable[..., Any]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Return the source that a command line makes, instead of running it until a signal comes."""

    def start(*arguments: str) -> Any:
        made: list[Any] = []
        for module in (source_falcon, source_spikeglx):
            monkeypatch.setattr(module, "run", made.append)
        monkeypatch.setattr(sys, "argv", ["nuclr-stream", "source", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return made[0]

    return start


def test_spikeglx_with_a_kilosort_folder_sends_the_spikes_of_its_clusters(started: Started, kilosort: Path) -> None:
    others = np.zeros((len(MADE.raw), FIRST_CHANNEL), dtype=np.int16)
    server = GlxServer(np.concatenate([others, MADE.raw], axis=1))
    server.count = 1
    try:
        with daemon_inbox() as inbox:
            source = started(
                *("spikeglx", f"127.0.0.1:{server.port}", "--to", inbox.endpoint),
                *("--templates", str(kilosort), "--no-reference"),
            )
            source.turn(0.05)
            server.count = len(MADE.raw)
            turned(source, lambda: source.report().get("samples") == len(MADE.raw) - 1)
            assert source.report()["state"] == "matching"
            source.close()
            inbox.take(ends=1)
    finally:
        server.shutdown()
        server.server_close()
    assert inbox.messages[0].stream == "imec0"
    assert set(inbox.of(UnitTable)[0].unit_ids) == {"2", "7"}
    of_kilosort = read_templates(kilosort, reference=False)
    found = Matcher(of_kilosort).push(MADE.raw[1:], first_sample=1)
    names = of_kilosort.unit_ids
    assert inbox.spikes() == Counter(
        (names[unit], sample) for one in found for unit, sample in zip(one.units, one.samples.tolist(), strict=True)
    )
    # cluster 2 is the third unit; the fourth, beside it, is marked as noise, and hides spikes where both overlap
    samples = np.array([sample for unit, sample in inbox.spikes() if unit == "2"])
    only = replace(MADE, samples=MADE.samples[MADE.units == 2], units=MADE.units[MADE.units == 2])
    assert share_found(only, samples, np.full(len(samples), 2), until=found[-1].stop) > 0.9


def test_falcon_without_templates_sends_unsorted_crossings_of_every_channel(started: Started) -> None:
    context = zmq.Context()
    plugin = context.socket(zmq.XPUB)
    port = plugin.bind_to_random_port("tcp://127.0.0.1")
    try:
        with daemon_inbox() as inbox:
            source = started("falcon", f"127.0.0.1:{port}", "--to", inbox.endpoint, "--stream", "probe")
            assert plugin.poll(5_000)
            plugin.recv()  # it has subscribed
            for first in range(0, 90_000, 1_000):
                plugin.send(falcon_message(MADE.raw[first : first + 1_000], first=first))
            turned(source, lambda: source.report().get("samples") == 90_000)
            assert any("marked unsorted" in note for note in source.notes())
            source.close()
            inbox.take(ends=1)
    finally:
        context.destroy(linger=0)
    assert inbox.messages[0].stream == "probe"
    assert len(inbox.of(UnitTable)[0].unit_ids) == CHANNELS
    spikes = inbox.spikes()
    assert len(spikes) > 100
    assert all(unit.endswith("-unsorted") for unit, _ in spikes)


def test_falcon_wants_a_scale_for_templates_in_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kilosort: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["nuclr-stream", "source", "falcon", "--templates", str(kilosort)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "give --scale" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["spikeglx", "falcon"])
def test_an_address_without_a_port_number_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["nuclr-stream", "source", kind, "127.0.0.1:x"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "give HOST:PORT" in capsys.readouterr().err
