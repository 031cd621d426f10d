"""Rows about crashes and broken lines: what comes back, how soon, and that it is the same bit by bit."""

from __future__ import annotations

import random
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nuclr_stream.errors import SnapshotError
from nuclr_stream.snapshots import pack
from nuclr_stream.snapshots.folder import SnapshotFolder
from nuclr_stream.wire import Predictions
from tests.faults.proxy import ChaosProxy
from tests.faults.rig import RATE, Listener, Probe, Process, daemon, percentile, played, same, truth
from tests.faults.row import Outcome, Row, Size

UNITS = 12
SPEED = 2.0
"""Seconds of recording in a second."""
WAIT_S = 120.0
FIRST_S = 3.0


def exact(heard: Sequence[Predictions], probe: Probe) -> dict[str, int]:
    """Compare what was heard with an uninterrupted run: windows that are the same, that differ, and that never came."""
    expected = truth(units=probe.units, seed=probe.seed, stop=probe.publisher.watermark)
    last = max(said.end_sample for said in heard)
    ends = {end for end in expected if end <= last}
    return {
        "windows": len(ends),
        "same": sum(same(said, expected[said.end_sample]) for said in heard),
        "different": sum(not same(said, expected[said.end_sample]) for said in heard),
        "missing": len(ends - {said.end_sample for said in heard}),
        "twice": len(heard) - len({said.end_sample for said in heard}),
    }


def is_exact(figures: dict[str, int]) -> bool:
    """Whether every window came once, the same."""
    return not (figures["different"] or figures["missing"] or figures["twice"])


def crash(seed: int, size: Size, folder: Path) -> Outcome:
    """Kill the daemon at random points and start it again, while its source and a client go on."""
    kills = {"test": 1, "ci": 6, "long": 50}[size]
    figures, firsts, ups, accounts = _killed(seed, folder / "kept", kills=kills, keep=True)
    # the planted bug: a source that keeps nothing, and a daemon that saves nothing
    lossy, *_ = _killed(seed + 1, folder / "lossy", kills=1, keep=False)
    in_time = size == "test" or percentile(firsts, 99) <= FIRST_S
    return Outcome(
        held=is_exact(figures) and len(firsts) == kills and in_time and all(accounts),
        caught=not is_exact(lossy),
        figures={
            "kills": kills,
            "first_prediction_s_p50": percentile(firsts, 50),
            "first_prediction_s_p99": percentile(firsts, 99),
            "process_up_s_p50": percentile(ups, 50),
            "accounts_checked": len(accounts),
            **figures,
            "planted": lossy,
        },
    )


def _killed(
    seed: int, folder: Path, *, kills: int, keep: bool
) -> tuple[dict[str, int], list[float], list[float], list[bool]]:
    """Kill and restart so many times.

    Returns exactness, seconds from each kill to the first new prediction and to a daemon that is up, and whether each
    account of messages added up.
    """
    folder.mkdir()
    options = ("--snapshots", str(folder / "snapshots")) if keep else ()
    dice = random.Random(seed)
    firsts: list[float] = []
    ups: list[float] = []
    process = Process(folder, *options)
    try:
        with (
            Probe(process, units=UNITS, seed=seed, speed=SPEED, keep=keep) as probe,
            Listener(process, "probe") as client,
        ):
            down = threading.Event()
            probe.gate = lambda stop: down.is_set() or stop < _heard_to(client) + 2 * RATE
            client.wait(lambda: len(client.heard) >= 3, WAIT_S, "the first predictions")
            for _ in range(kills):
                before = len(client.heard)
                wanted = before + dice.randrange(1, 4)
                client.wait(lambda wanted=wanted: len(client.heard) >= wanted, WAIT_S, "predictions before a kill")
                client.pause(dice.uniform(0, 0.5))
                down.set()
                process.kill()
                killed = process.killed
                process = Process(folder, *options, like=process)
                ups.append(process.up - killed)
                client.wait(lambda killed=killed: client.after(killed), 2 * WAIT_S, "a prediction after a kill")
                firsts.append(client.after(killed)[0][0] - killed)
                down.clear()
            wanted = len(client.heard) + 3
            client.wait(lambda: len(client.heard) >= wanted, WAIT_S, "predictions after the last kill")
            probe.finish()
            accounts = [adds_up(state.counters) for _, state in client.states]
        return exact([said for _, said in client.heard], probe), firsts, ups, accounts
    finally:
        process.kill()


def _heard_to(client: Listener) -> int:
    """The end of the last window of which predictions have come, or of the one before the first."""
    return client.heard[-1][1].end_sample if client.heard else 9 * RATE


def adds_up(counters: Any) -> bool:
    """Whether every message that was received is accounted for once, and every spike."""
    rejected = sum(value for name, value in counters.items() if name.startswith("rejected_"))
    messages = counters.get("accepted", 0) + counters.get("duplicate", 0) + rejected
    spikes = sum(
        counters.get(f"spikes_{name}", 0) for name in ("accepted", "out_of_range", "unknown_unit", "late", "repeated")
    )
    return counters.get("received", 0) == messages and counters.get("spikes_received", 0) == spikes


def partition(seed: int, size: Size, folder: Path) -> Outcome:
    """Cut and stall the line between a source and the daemon: what was not sent comes later, and nothing is missing."""
    breaks = {"test": [("cut", 1.0)], "ci": [("cut", 1.0), ("stall", 3.0), ("cut", 5.0)]}.get(
        size, [("cut", 1.0), ("stall", 5.0), ("cut", 5.0), ("stall", 30.0), ("cut", 30.0)]
    )
    healed = _parted(seed, folder, breaks, keep=True)
    lossy = _parted(seed + 1, folder, breaks[:1], keep=False)
    return Outcome(
        held=is_exact(healed) and healed["unsent"] == 0,
        caught=not is_exact(lossy) and lossy["gaps_declared"] > 0,
        figures={"breaks_s": [seconds for _, seconds in breaks], **healed, "planted": lossy},
    )


def _parted(seed: int, folder: Path, breaks: Sequence[tuple[str, float]], *, keep: bool) -> dict[str, int]:
    with daemon(folder) as process:
        ports = {name: int(process.endpoints[name].rsplit(":", 1)[1]) for name in ("data", "query")}
        with (
            ChaosProxy(ports["data"]) as data,
            ChaosProxy(ports["query"]) as query,
            Listener(process, "probe") as client,
        ):
            through = process.through(data=data.endpoint, query=query.endpoint)
            with Probe(through, units=UNITS, seed=seed, keep=keep, speed=SPEED) as probe:
                client.wait(lambda: len(client.heard) >= 2, WAIT_S, "the first predictions")
                for how, seconds in breaks:
                    for proxy in (data, query):
                        proxy.cut() if how == "cut" else proxy.stall()
                    client.pause(seconds)
                    for proxy in (data, query):
                        proxy.mend()
                    reached = probe.publisher.watermark
                    client.wait(
                        lambda reached=reached: client.heard and client.heard[-1][1].end_sample >= reached,
                        WAIT_S + seconds,
                        "predictions about what was sent after the break",
                    )
                probe.finish()
                unsent = probe.publisher.unsent
            gap = client.states[-1][1].counters.get("messages_gap", 0)
        return exact([said for _, said in client.heard], probe) | {"unsent": unsent, "gaps_declared": gap}


def lost_predictions(seed: int, size: Size, folder: Path) -> Outcome:
    """Kill a daemon that keeps nothing: its client says how many predictions never came."""
    process = Process(folder)
    with Probe(process, units=UNITS, seed=seed, keep=False, speed=SPEED) as probe, Listener(process, "probe") as client:
        client.wait(lambda: len(client.heard) >= 3, WAIT_S, "the first predictions")
        process.kill()
        killed = process.killed
        before = client.heard[-1][1]
        process = Process(folder, like=process)
        try:
            client.wait(lambda: client.after(killed), WAIT_S + 15, "a prediction after the kill")
        finally:
            process.kill()
        probe.finish()
        after = client.after(killed)[0][1]
        lost = client.subscription.lost
    missing = round((after.end_sample - before.end_sample) / RATE / after.hop_s) - 1
    return Outcome(
        held=lost == missing > 0,
        caught=after.seq - 1 != missing,  # what numbers alone would have said: those of the new daemon begin anew
        figures={"missing": missing, "lost": lost},
    )


def corrupt_snapshot(seed: int, size: Size, folder: Path) -> Outcome:
    """Truncate the newest snapshot at every byte and flip bits in it: it is noticed, and the older one taken."""
    flips, step, files = {"test": (300, 97, 20), "ci": (10_000, 1, 200), "long": (100_000, 1, 200)}[size]
    kept = SnapshotFolder(folder / "snapshots")
    for step_number in (7, 8):
        kept.write("probe", _state(seed) | {"number": step_number})
    newest = next(file for file in kept.path.glob("*.1"))
    content, dice = newest.read_bytes(), random.Random(seed)
    damages = [content[:length] for length in range(0, len(content), step)]
    damages += [_flipped(content, dice) for _ in range(flips)]
    noticed = sum(not _readable(damage) for damage in damages)
    older = 0
    for damage in dice.sample(damages, files):
        newest.write_bytes(damage)
        ((_, ((_, why), (state, fine))),) = kept.read()
        older += bool(why) and not fine and state["number"] == 7
    kept.close()
    # the planted bug: a format without a checksum
    unchecked = sum(_readable(_with_right_checksum(damage)) for damage in damages[-300:])
    return Outcome(
        held=noticed == len(damages) and older == files,
        caught=unchecked > 0,
        figures={
            "bytes": len(content),
            "damaged": len(damages),
            "noticed": noticed,
            "files": files,
            "older_taken": older,
            "planted_unnoticed_of_300": unchecked,
        },
    )


def _state(seed: int) -> dict[str, Any]:
    """The whole state of a stream after some windows."""
    labeler = played(units=UNITS, seed=seed, stop=13 * RATE)
    return {"population": labeler.population.dump(), "model_side": labeler.dump_model_side()}


def _flipped(content: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def _with_right_checksum(content: bytes) -> bytes:
    return content[:8] + struct.pack("<I", zlib.crc32(content[12:])) + content[12:]


def _readable(content: bytes) -> bool:
    try:
        pack.unpack(content)
    except SnapshotError:
        return False
    return True


ROWS = (
    Row(
        id="R1",
        promise="after kill -9 at random points every complete window is that of an uninterrupted run, once (also R2)",
        bar="all windows bitwise equal, none missing or twice; all restarts; first new prediction <= 3 s p99",
        planted="a source that keeps nothing and a daemon that saves nothing",
        run=crash,
    ),
    Row(
        id="R14",
        promise="a broken or silent line loses nothing; without a buffer the gap is declared",
        bar="all windows bitwise equal after cuts and stalls; without a buffer messages_gap > 0",
        planted="a source that keeps nothing",
        run=partition,
        sizes=("ci", "long"),
    ),
    Row(
        id="R16",
        promise="a damaged snapshot is noticed and the older one taken",
        bar="truncations at every byte and all bit flips noticed, the older generation read each time",
        planted="a format without a checksum",
        run=corrupt_snapshot,
    ),
    Row(
        id="D12-lost",
        promise="a client says how many predictions a killed daemon cost",
        bar="`lost` equals the windows missing",
        planted="counting by the numbers of the new daemon alone",
        run=lost_predictions,
        sizes=("ci", "long"),
    ),
)
