"""Ten minutes of 10,000 spikes a second through `nuclr-stream source open-ephys`, with two stalls, counted exactly.

    python -m tests.nuclr_stream.sources.soak_open_ephys --out results/sources/open_ephys_soak.json

A stand-in for the GUI publishes with ZeroMQ's default queue, as the GUI does, `--speed` times real time. Once the
daemon's side stops reading for two seconds, once the source's process is stopped for two. What the GUI's queue drops
then is gone, and has to be in the source's count to the last message.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from nuclr_stream import wire
from nuclr_stream.commands.machine import MachineWatch
from tests.nuclr_stream.sources.open_ephys_gui import WAVEFORM, Gui

BLOCK, RATE = 696, 30_000
UNITS, ELECTRODES = 200, 50
STALL_S = 2.0


def gui_process(port: Connection, seconds: float, spikes_per_s: int, speed: float) -> None:
    """Publish as the GUI would, and send back how many messages and spikes that were."""
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)
    port.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    socket.recv()  # somebody listens
    rng, gui = np.random.default_rng(0), Gui()
    head, tail = (
        gui.spike(123_454_321, 987_654, "ELECTRODE")[1].replace(b'"message_num": 1,', b'"message_num": %d,'),
        b"",
    )
    head = head.replace(b"123454321", b"%d").replace(b"987654", b"%d").replace(b"ELECTRODE", b"%s") + tail
    gui.number = spikes = 0
    started = time.monotonic()
    for _ in range(int(seconds * RATE / BLOCK)):
        count = int(rng.poisson(spikes_per_s * BLOCK / RATE))
        samples, units = (
            rng.integers(gui.sample, gui.sample + BLOCK, count).tolist(),
            rng.integers(0, UNITS, count).tolist(),
        )
        for sample, unit in zip(samples, units, strict=True):
            gui.number += 1
            header = head % (gui.number, b"E%d" % (unit % ELECTRODES), sample, unit + 1)
            socket.send_multipart([b"EVENT\0", header, WAVEFORM])
        spikes += count
        socket.send_multipart(gui.data())
        gui.sample += BLOCK
        time.sleep(max(started + gui.sample / RATE / speed - time.monotonic(), 0.0))
    port.send({"messages": gui.number, "spikes": spikes, "wall_s": time.monotonic() - started})
    port.recv()
    context.destroy(linger=0)


def soak(*, seconds: float, spikes_per_s: int, speed: float) -> dict[str, Any]:
    """Return what was sent, what arrived, what was counted as lost, and what nobody accounts for."""
    watch = MachineWatch()
    context = zmq.Context()
    inbox = context.socket(zmq.PULL)
    inbox.setsockopt(zmq.RCVHWM, 0)
    to = f"tcp://127.0.0.1:{inbox.bind_to_random_port('tcp://127.0.0.1')}"
    here, there = multiprocessing.Pipe()
    gui = multiprocessing.Process(target=gui_process, args=(there, seconds, spikes_per_s, speed))
    gui.start()
    command = [sys.executable, "-m", "nuclr_stream", "source", "open-ephys", f"127.0.0.1:{here.recv()}"]
    command += ["--to", to, "--http-port", "0"]
    arrived, samples = 0, 0
    waiting = [(seconds / 3, "daemon"), (2 * seconds / 3, "source")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as source:
        done: dict[str, Any] | None = None
        while done is None or inbox.poll(20_000):
            if inbox.poll(100):
                message = wire.decode(inbox.recv_multipart())
                if isinstance(message, wire.SpikeBatch):
                    arrived += len(message.samples)
                    samples = message.stop
            if waiting and samples / RATE >= waiting[0][0]:
                _, who = waiting.pop(0)
                if who == "daemon":
                    time.sleep(STALL_S)
                else:
                    source.send_signal(signal.SIGSTOP)
                    time.sleep(STALL_S)
                    source.send_signal(signal.SIGCONT)
            if done is None and here.poll():
                done = here.recv()
        source.send_signal(signal.SIGTERM)
        assert source.stdout is not None
        report = json.loads(source.stdout.read())
    while inbox.poll(500):
        message = wire.decode(inbox.recv_multipart())
        arrived += len(message.samples) if isinstance(message, wire.SpikeBatch) else 0
    here.send("over")
    gui.join()
    context.destroy(linger=0)
    counters, (stream,) = report["counters"], report["streams"].values()
    unread = counters.get("messages_unread", 0)
    unaccounted = done["messages"] - counters["messages"] - counters.get("messages_lost", 0) - unread
    return {
        "seconds": seconds,
        "spikes_per_s": spikes_per_s,
        "speed": speed,
        "sent": done,
        "stalls_s": {"daemon": STALL_S, "source": STALL_S},
        "messages_received": counters["messages"],
        "messages_lost_and_counted": counters.get("messages_lost", 0),
        "messages_dropped_by_the_source": counters.get("messages_dropped", 0),  # among the lost, but for the last ones
        "messages_unread_at_the_end": unread,
        "messages_unaccounted": unaccounted,
        "spikes_received": stream["counters"]["spikes_seen"],
        "spikes_arrived": arrived,
        "spikes_unaccounted": stream["counters"]["spikes_seen"] - arrived,
        "samples_missing": stream["counters"].get("samples_lossy", 0),
        "source": stream,
        "machine": watch.facts(),
    }


def main() -> None:
    """Write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--spikes-per-s", type=int, default=10_000)
    parser.add_argument("--speed", type=float, default=1.0)
    options = parser.parse_args()
    figures = soak(seconds=options.seconds, spikes_per_s=options.spikes_per_s, speed=options.speed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
