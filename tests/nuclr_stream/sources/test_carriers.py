"""Whichever source carries a recording, the predictions are the same to the last bit."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from nuclr_stream import wire
from nuclr_stream.client import Publisher
from nuclr_stream.inference.model import Model
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.sources.lsl import WATERMARK, LslSource
from nuclr_stream.sources.open_ephys import OpenEphysMessages
from nuclr_stream.sources.trodes import TrodesSource
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.wire import Predictions
from tests.nuclr_stream.conftest import assert_same, make_recording
from tests.nuclr_stream.sources.daemon_inbox import Inbox, daemon_inbox
from tests.nuclr_stream.sources.open_ephys_gui import Gui
from tests.nuclr_stream.sources.trodes_peer import closing_sockets, connected, spike, trodes_peer

BLOCK = 696
UNITS = 20


@pytest.fixture(scope="module")
def carried() -> Recording:
    """Eleven seconds of 20 units, each of which fires in the first block, in order."""
    made = make_recording(units=UNITS, duration_s=11.5)
    samples = np.concatenate([np.arange(UNITS) + 5, made.spike_samples[made.spike_samples > 60]])
    units = np.concatenate([np.arange(UNITS), made.spike_units[made.spike_samples > 60]]).astype(np.int32)
    whole = made.num_samples // BLOCK * BLOCK
    kept = samples < whole - 200  # where an end is not sent, the last spikes decide where it is
    return replace(made, spike_samples=samples[kept], spike_units=units[kept], num_samples=whole)


def predicted(inbox: Inbox, model: Model) -> list[Predictions]:
    """What a daemon would publish for what a source has sent."""
    labeler = Labeler(model, stream="carried")
    found = []
    for message in inbox.messages:
        labeler.push(message)
        while (labelled := labeler.step()) is not None:
            found.append(labelled.predictions)
    assert labeler.counters["spikes_received"] == labeler.counters["spikes_accepted"]
    return found


def by_publisher(recording: Recording, inbox: Inbox) -> None:
    with Publisher(inbox.endpoint, stream="carried", sample_rate=30_000, start=0) as rig:
        index = rig.units([f"102/E/{unit + 1}" for unit in range(UNITS)])
        for start in range(0, recording.num_samples, BLOCK):
            samples, units = recording.spikes(start, start + BLOCK)
            rig.spikes(samples, index[units], stop=start + BLOCK)
        rig.end()


def by_open_ephys(recording: Recording, inbox: Inbox) -> None:
    source, gui = OpenEphysMessages(endpoint=inbox.endpoint), Gui()
    for start in range(0, recording.num_samples, BLOCK):
        samples, units = recording.spikes(start, start + BLOCK)
        # the first burst in order of the units, so that the tables agree; the others as they happen to come
        order = np.random.default_rng(start).permutation(len(samples)) if start else range(len(samples))
        for frames in gui.block([(int(samples[row]), int(units[row]) + 1, "E") for row in order]):
            source.take(frames)
    source.finish()


def by_trodes(recording: Recording, inbox: Inbox) -> None:
    network = pytest.importorskip("trodesnetwork.socket", reason="the trodesnetwork package is not installed")
    with closing_sockets(network), trodes_peer() as peer:
        source = TrodesSource(peer.server, endpoint=inbox.endpoint)
        spikes = network.SourcePublisher("source.spikes", server_address=peer.server)
        connected(source, spikes)
        already = source.counters["spikes_seen"]
        for sample, unit in zip(recording.spike_samples.tolist(), recording.spike_units.tolist(), strict=True):
            spikes.publish(spike(sample, 1, unit + 1))
        while source.counters["spikes_seen"] - already < len(recording.spike_samples):
            source.turn(5.0)
        source.close()


def by_lsl(recording: Recording, inbox: Inbox) -> None:
    pytest.importorskip("pylsl", reason="pylsl, or the liblsl that it wraps, is not installed")
    from tests.nuclr_stream.sources.test_lsl import found, spikes_outlet, taken

    name = f"carried-{uuid.uuid4().hex[:8]}"
    outlet = spikes_outlet(name, [f"u{unit}" for unit in range(UNITS)])
    source = LslSource(name, endpoint=inbox.endpoint)
    found(source, outlet)
    rows, sequence = [[0.0, float(WATERMARK), 0.0]], 1
    for start in range(0, recording.num_samples, BLOCK):
        for sample, unit in zip(*recording.spikes(start, start + BLOCK), strict=True):
            rows.append([float(sequence), float(unit), float(sample)])
            sequence += 1
        rows.append([float(sequence), float(WATERMARK), float(start + BLOCK)])
        sequence += 1
    outlet.push_chunk(rows)
    taken(source, len(rows))
    source.close()


@pytest.mark.parametrize("carrier", [by_open_ephys, by_trodes, by_lsl])
def test_predictions_do_not_depend_on_who_carries_the_recording(
    carried: Recording, tiny_model: Model, carrier: Callable[[Recording, Inbox], None]
) -> None:
    expected, found = [], []
    for into, carry in ((expected, by_publisher), (found, carrier)):
        with daemon_inbox() as inbox:
            carry(carried, inbox)
            inbox.take(ends=1)
        into += [replace(one, unit_ids=()) for one in predicted(inbox, tiny_model)]  # sources name units their own way
    assert len(expected) == 2
    assert_same(found, expected)
    assert all(isinstance(one, wire.Predictions) for one in found)
