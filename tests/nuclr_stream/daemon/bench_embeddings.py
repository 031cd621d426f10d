"""How long a client waits for cached embeddings while spikes stream in, beside a bare echo of the same bytes.

`python -m tests.nuclr_stream.daemon.bench_embeddings --out FILE` runs the shipped demo bundle in a daemon of its own, a
source of 400 units in real time in another process, and asks over and over. The bar is a p99 of at most twice that of
the echo: a ROUTER that sends frames of the same sizes back to the same client, with the daemon idle beside it. The last
line is JSON, and it is what --out keeps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from pathlib import Path

import numpy as np
import zmq

from nuclr_stream import wire
from nuclr_stream.client import Publisher, Query
from nuclr_stream.commands.demo import daemon_process
from nuclr_stream.sockets import Socket

UNITS, RATE, BLOCK = 400, 30_000, 600
"""20 ms a message, 5 spikes a second of every unit."""


def stream(endpoint: str) -> None:
    """Push a probe in real time, its first 11 s at once, until killed."""
    rng = np.random.default_rng(1)
    with Publisher(endpoint, stream="probe", sample_rate=RATE, wait_s=5) as rig:
        index = rig.units([f"u{row}" for row in range(UNITS)])
        started = time.monotonic() - 11
        while True:
            while rig.watermark + BLOCK <= (time.monotonic() - started) * RATE:
                spikes = UNITS * 5 * BLOCK // RATE
                samples = np.sort(rng.integers(rig.watermark, rig.watermark + BLOCK, spikes))
                rig.spikes(samples, rng.choice(index, spikes), stop=rig.watermark + BLOCK)
            time.sleep(0.005)


def echo(port: int, frames: list[bytes]) -> None:
    """Answer every request with `frames`, until killed."""
    context: zmq.Context[Socket] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.bind(f"tcp://127.0.0.1:{port}")
    while True:
        identity, *_ = socket.recv_multipart()
        socket.send_multipart([identity, *frames], copy=False)


def round_trips(endpoint: str, seconds: float) -> list[float]:
    """Ask for embeddings over and over, and return the ms until the last frame was there."""
    context: zmq.Context[Socket] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(endpoint)
    request = wire.encode(wire.EmbeddingsRequest(request_id=1, stream="probe"))
    found = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        socket.send_multipart(request)
        socket.recv_multipart(copy=False)
        found.append(1000 * (time.perf_counter() - start))
        time.sleep(0.002)
    context.destroy(linger=0)
    return found[20:]


def measure(seconds: float) -> dict[str, object]:
    """Return both distributions and their ratio."""
    spawn = multiprocessing.get_context("spawn")
    with daemon_process("demo") as endpoints, Query(endpoints["query"], timeout_s=5) as query:
        source = spawn.Process(target=stream, args=(endpoints["data"],), daemon=True)
        source.start()
        while query.status()["streams"].get("probe", {}).get("step", -1) < 2:
            time.sleep(0.2)
        reply = wire.encode(query.embeddings("probe"))
        loaded = round_trips(endpoints["query"], seconds)
        skipped = query.status()["streams"]["probe"]["skipped_steps"]
        source.kill()
        source.join()
        with zmq.Context() as context, context.socket(zmq.ROUTER) as free:
            port = free.bind_to_random_port("tcp://127.0.0.1")
        bare_peer = spawn.Process(target=echo, args=(port, reply), daemon=True)
        bare_peer.start()
        bare = round_trips(f"tcp://127.0.0.1:{port}", seconds)
        bare_peer.kill()
        bare_peer.join()
    ratio = float(np.percentile(loaded, 99) / np.percentile(bare, 99))
    return {
        "units": UNITS,
        "reply_bytes": sum(map(len, reply)),
        "cached_embeddings_ms": _percentiles(loaded),
        "bare_round_trip_ms": _percentiles(bare),
        "p99_ratio": round(ratio, 3),
        "bar": 2.0,
        "skipped_steps": skipped,
        "load_average": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    found = {f"p{p}": round(float(np.percentile(values, p)), 3) for p in (50, 95, 99)}
    return found | {"requests": len(values)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    line = json.dumps(measure(options.seconds))
    if options.out:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)
