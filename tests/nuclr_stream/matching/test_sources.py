"""SpikeGLX over TCP and Falcon Output over ZeroMQ: the spikes of the matcher arrive, and what is missing is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import flatbuffers
import numpy as np
import pytest
import zmq

from nuclr_stream.errors import ConfigError
from nuclr_stream.matching.matcher import Matcher
from nuclr_stream.sources.falcon import FalconSource
from nuclr_stream.sources.falcon_wire import FIELDS, FalconMessageError, continuous_data
from nuclr_stream.sources.raw_samples import RawSamples
from nuclr_stream.sources.spikeglx import SpikeGlxSource
from nuclr_stream.wire import UnitTable
from tests.nuclr_stream.matching.glx_server import GlxServer
from tests.nuclr_stream.matching.made import CHANNELS, RATE, make, positions, templates
from tests.nuclr_stream.sources.daemon_inbox import Inbox, daemon_inbox

MADE = make(3.2)


def expected(raw: Any, first: int = 0) -> Counter[tuple[str, int]]:
    """What the matcher itself finds in the same samples."""
    found = Matcher(templates()).push(raw, first_sample=first)
    return Counter((f"u{u}", s) for one in found for u, s in zip(one.units.tolist(), one.samples.tolist(), strict=True))


def raw_samples(inbox: Inbox, **changes: Any) -> RawSamples:
    options: dict[str, Any] = {"stream": "imec0", "sample_rate": Fraction(RATE), "templates": templates()} | changes
    return RawSamples(inbox.endpoint, **options)


def turned(source: Any, done: Callable[[], bool], turns: int = 500) -> None:
    """Turn a source until it is done with what there is."""
    for _ in range(turns):
        if done():
            return
        source.turn(0.05)
    raise AssertionError("it never came")


# -- the samples of any source ---------------------------------------------------------------------------------------


def test_units_go_out_with_their_places_and_spikes_with_the_watermark() -> None:
    with daemon_inbox() as inbox:
        raw = raw_samples(inbox)
        assert raw.state == "calibrating"
        raw.take(MADE.raw, first_sample=0)
        assert (raw.state, raw.reason) == ("matching", "")
        raw.close()
        inbox.take(ends=1)
    assert inbox.spikes() == expected(MADE.raw)
    table = inbox.of(UnitTable)[0]
    assert table.unit_ids == ("u0", "u1", "u2", "u3")
    assert table.depth_um.tolist() == pytest.approx(templates().unit_positions_um[:, 1].tolist())


def test_a_gap_is_missing_in_the_daemon_with_what_was_given_up_around_it() -> None:
    gap = (75_000, 80_000)
    with daemon_inbox() as inbox:
        raw = raw_samples(inbox)
        raw.take(MADE.raw[: gap[0]], first_sample=0)
        raw.take(MADE.raw[gap[1] :], first_sample=gap[1])
        report = raw.report()
        raw.close()
        inbox.take(ends=1)
    (before, after) = inbox.observed(inbox.epochs[0])
    assert after[0] == gap[1]
    assert report["samples_missing"] == gap[1] - gap[0]
    assert gap[0] - before[1] == report["samples_given_up"]


def test_a_sample_number_that_goes_back_is_a_new_epoch() -> None:
    with daemon_inbox() as inbox:
        raw = raw_samples(inbox)
        raw.take(MADE.raw[:75_000], first_sample=50_000)
        raw.take(MADE.raw[:75_000], first_sample=0)
        raw.close()
        inbox.take(ends=2)
    assert len(inbox.epochs) == 2
    assert raw.counters["restarts"] == 1


def test_a_wrong_gain_stops_the_source_before_a_spike_is_sent() -> None:
    with daemon_inbox() as inbox:
        raw = raw_samples(inbox, templates=replace(templates(), noise=np.full(CHANNELS, 40.0, dtype=np.float32)))
        with pytest.raises(ConfigError, match=r"noise is 0\.2.* times that of the sorting made; .*--scale 4\.9"):
            raw.take(MADE.raw, first_sample=0)
        assert not raw.report().get("spikes_sent")
        raw.close()


def test_what_does_not_fit_the_templates_is_declared_as_missing_with_the_reason() -> None:
    made = make(6.5, spikes=[(at, 3) for at in range(3_000, 190_000, 2_000)])
    with daemon_inbox() as inbox:
        raw = raw_samples(inbox, templates=templates((0, 1)))
        raw.take(made.raw, first_sample=0)
        assert raw.state == "degraded"
        assert "of the large troughs fit no template" in raw.reason
        assert any("fit no template" in note for note in raw.notes())
        assert raw.report()["samples_degraded"] > RATE
        raw.close()


def test_without_templates_crossings_are_marked_unsorted() -> None:
    with daemon_inbox() as inbox:
        raw = raw_samples(inbox, templates=None, positions_um=positions())
        raw.take(MADE.raw, first_sample=0)
        assert raw.state == "crossings"
        raw.close()
        inbox.take(ends=1)
    spikes = inbox.spikes()
    assert all(unit.endswith("-unsorted") for unit, _ in spikes)
    end = inbox.observed(inbox.epochs[0])[0][1]
    near = {sample + d for _, sample in spikes for d in range(-6, 7)}
    true = MADE.samples[(MADE.samples < end - 100) & (MADE.samples > 300)]
    assert np.mean([sample in near for sample in true.tolist()]) > 0.95


def test_templates_of_another_rate_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 25000 samples a second, the sorting made 30000"):
        RawSamples("tcp://127.0.0.1:1", stream="a", sample_rate=Fraction(25_000), templates=templates())


# -- SpikeGLX --------------------------------------------------------------------------------------------------------


@pytest.fixture
def glx() -> Iterator[GlxServer]:
    """A run whose first channel is none of the templates'."""
    server = GlxServer(np.concatenate([np.zeros((len(MADE.raw), 1), dtype=np.int16), MADE.raw], axis=1))
    yield server
    server.shutdown()
    server.server_close()


def spikeglx(server: GlxServer, inbox: Inbox) -> SpikeGlxSource:
    channels = np.arange(1, CHANNELS + 1, dtype=np.int32)
    return SpikeGlxSource(
        "127.0.0.1",
        server.port,
        probe=0,
        make=lambda device: raw_samples(inbox, sample_rate=device.sample_rate),
        channels=channels,
    )


def test_spikeglx_sends_the_matchers_spikes_from_where_it_joined(glx: GlxServer) -> None:
    glx.count = 600
    with daemon_inbox() as inbox:
        source = spikeglx(glx, inbox)
        source.turn(0.05)
        glx.count = len(MADE.raw)
        turned(source, lambda: source.report().get("samples") == len(MADE.raw) - 600)
        source.close()
        inbox.take(ends=1)
    assert inbox.spikes() == expected(MADE.raw[600:], 600)


def test_samples_that_left_spikeglx_before_they_were_fetched_are_missing(glx: GlxServer) -> None:
    glx.count = 600
    with daemon_inbox() as inbox:
        source = spikeglx(glx, inbox)
        source.turn(0.05)
        glx.count = 3_000
        turned(source, lambda: source.report().get("samples") == 2_400)
        glx.first, glx.count = 5_000, 20_000  # it answers with what it still has
        turned(source, lambda: source.report().get("samples") == 17_400)
        glx.refuse_until, glx.count = 30_000, 31_000  # it refuses: go on with the present
        source.turn(0.05)
        glx.count = 32_000
        turned(source, lambda: source.report().get("samples") == 18_400)
        notes = source.notes()
        assert any("2000 samples are missing before sample 5000" in note for note in notes)
        assert any("11000 samples are missing before sample 31000" in note for note in notes)
        assert source.report()["samples_missing"] == 2_000 + 11_000
        source.close()


def test_without_spikeglx_or_a_run_it_waits_and_says_what_to_do(glx: GlxServer) -> None:
    with daemon_inbox() as inbox:
        source = spikeglx(glx, inbox)
        assert source.turn(0.0)
        assert any("is not running; start a run" in note for note in source.notes())
        source.close()
        nobody = SpikeGlxSource("127.0.0.1", 1, probe=0, make=lambda _: raw_samples(inbox), channels=None)
        assert nobody.turn(0.0)
        assert any("Command Server Settings" in note for note in nobody.notes())
        assert nobody.report()["state"] == "waiting"


# -- Falcon Output ---------------------------------------------------------------------------------------------------


def falcon_message(block: Any, *, first: int, number: int = 1, fields: int = 9, stream: str = "ProbeA") -> bytes:
    """A block (T, C) as the plugin's release with so many fields writes it, by the flatbuffers package."""
    builder = flatbuffers.Builder(1024)
    values = np.ascontiguousarray(block.T, dtype=np.float32).ravel()
    offsets = {"samples": builder.CreateNumpyVector(values), "stream": builder.CreateString(stream)}
    offsets["event_codes"] = builder.CreateNumpyVector(np.zeros(len(block), dtype=np.uint16))
    numbers = {"n_channels": block.shape[1], "n_samples": len(block), "sample_rate": RATE}
    builder.StartObject(fields)
    for slot, name in enumerate(FIELDS[fields]):
        if name in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[name], 0)
        elif name in numbers:
            builder.PrependUint32Slot(slot, numbers[name], 0)
        elif name == "timestamp":
            builder.PrependFloat64Slot(slot, 1.5, 0.0)
        else:
            builder.PrependUint64Slot(slot, first if name == "sample_num" else number, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


@pytest.mark.parametrize("fields", sorted(FIELDS))
def test_messages_of_every_release_are_read(fields: int) -> None:
    block = np.arange(12, dtype=np.float32).reshape(4, 3)
    data = continuous_data(falcon_message(block, first=0, number=7, fields=fields, stream="Sonde-é"))
    assert (data.stream, data.sample_rate, data.first_sample, data.message_id) == ("Sonde-é", RATE, 0, 7)
    assert np.array_equal(data.samples.T, block)


def test_what_is_no_message_is_refused_and_nothing_outside_of_it_is_read() -> None:
    whole = falcon_message(np.ones((4, 3)), first=9)
    for size in range(len(whole) - 1):
        try:
            continuous_data(whole[:size])
        except FalconMessageError as error:
            assert error.reason in ("truncated", "unknown_release", "shape")
    with pytest.raises(FalconMessageError, match="unknown_release"):
        continuous_data(bytes(64))


def test_falcon_sends_the_matchers_spikes_and_counts_what_is_no_block() -> None:
    context = zmq.Context()
    plugin = context.socket(zmq.XPUB)
    port = plugin.bind_to_random_port("tcp://127.0.0.1")
    try:
        with daemon_inbox() as inbox:
            source = FalconSource(
                "127.0.0.1",
                port,
                make=lambda name, rate, _: raw_samples(inbox, stream=name, sample_rate=rate),
                channels=np.arange(CHANNELS, dtype=np.int32),
            )
            assert plugin.poll(5_000)
            plugin.recv()  # it has subscribed
            plugin.send(b"no flatbuffer")
            for first in range(0, 90_000, 700):
                plugin.send(falcon_message(MADE.raw[first : min(first + 700, 90_000)], first=first))
            plugin.send(falcon_message(MADE.raw[:700], first=90_000, stream="another"))
            turned(source, lambda: source.report().get("other_streams") == 1)
            report = source.report()
            source.close()
            inbox.take(ends=1)
    finally:
        context.destroy(linger=0)
    assert inbox.messages[0].stream == "ProbeA"
    assert inbox.spikes() == expected(MADE.raw[:90_000])
    assert (report["samples"], report["malformed_truncated"], report["messages_dropped"]) == (90_000, 1, 0)


def test_falcon_without_the_channels_of_the_sorting_says_what_to_choose() -> None:
    source = FalconSource("127.0.0.1", 1, make=lambda *_: pytest.fail("made"), channels=np.array([31], dtype=np.int32))
    with pytest.raises(ConfigError, match="sends 16 channels of 'ProbeA', the sorting has channel 31"):
        source._take([falcon_message(MADE.raw[:10], first=0)])
    source.close()
