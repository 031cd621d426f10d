"""Predicted regions as coloured bands in the windows that experimenters watch: SpikeGLX and Open Ephys' Probe Viewer.

Both show what they are sent as anatomy, and SpikeGLX keeps it in the run's metadata; so every name begins with "est.",
and nothing is sent unless a user asks for it.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nuclr_stream.errors import NuclrStreamError

TIMEOUT_S = 2.0
MARK = "est."
"""How the name of every band begins: it is an estimate."""
PALETTE = ("CC6677", "332288", "DDCC77", "117733", "88CCEE", "882255", "44AA99", "999933", "AA4499")
"""Paul Tol's "muted" colours, told apart with every kind of colour vision."""
PROBE_VIEWER = "Probe Viewer"


class WindowError(NuclrStreamError):
    """The acquisition program is not there, or did not take the bands."""


@dataclass(frozen=True)
class Band:
    """A predicted region on a shank: micrometres from the tip, its name with probability, and a colour RRGGBB."""

    shank: int
    from_um: float
    to_um: float
    name: str
    colour: str


def bands_of(placement: Mapping[str, Any]) -> tuple[Band, ...]:
    """Return the bands of a placement document, from the tip up; a class keeps its colour whatever is found."""
    colour = {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(placement.get("classes", ()))}
    return tuple(
        Band(
            max(shank["shank"], 0),
            segment["from_um"],
            segment["to_um"],
            f"{MARK} {segment['region']} {100 * segment['probability']:.0f}%",
            colour[segment["region"]],
        )
        for shank in placement.get("shanks", ())
        for segment in shank["segments"]
    )


class SpikeGlx:
    """The remote command server of SpikeGLX; `probe` is its logical probe number. Connects anew for every send.

    SpikeGLX counts from the tip of the shank. `shift_um` is added to our depths, for unit tables whose depth 0 is the
    lowest site.
    """

    def __init__(self, host: str, port: int, probe: int, *, shift_um: float = 0.0) -> None:
        self.host, self.port, self.probe, self.shift_um = host, port, probe, shift_um

    def send(self, bands: Sequence[Band]) -> None:
        """Show the bands in the Shank Viewer, a command a shank. Raises WindowError."""
        try:
            with socket.create_connection((self.host, self.port), timeout=TIMEOUT_S) as connection:
                for shank in sorted({band.shank for band in bands}):
                    mine = [band for band in bands if band.shank == shank]
                    regions = "".join(_pinpoint(band, self.shift_um) for band in mine)
                    connection.sendall(f"SETANATOMYPP [{self.probe},{shank}]{regions}\n".encode())
                    _expect_ok(connection)
        except OSError as error:
            raise WindowError(
                f"SpikeGLX at {self.host}:{self.port}: {error}; is its Remote Command Server enabled (Options menu)?"
            ) from error


class ProbeViewer:
    """The Probe Viewer of an Open Ephys GUI; `probe` is the name of the stream without -AP or -LFP.

    `electrodes` has shank and micrometres from the tip of every electrode, in the order of their numbers.
    """

    def __init__(self, url: str, probe: str, electrodes: Sequence[tuple[int, float]]) -> None:
        self.url, self.probe, self.electrodes = url, probe, electrodes

    def send(self, bands: Sequence[Band]) -> None:
        """Show the bands in every Probe Viewer of the signal chain. Raises WindowError."""
        parts = [f"{first}-{last},{band.name},{band.colour}" for band in bands for first, last in self._ranges(band)]
        text = ";".join([self.probe, *parts])
        for number in self._viewers():
            self._ask("PUT", f"/api/processors/{number}/config", {"text": text})

    def _ranges(self, band: Band) -> list[tuple[int, int]]:
        """Runs of electrode numbers, inclusive, that lie in a band."""
        inside = [
            number
            for number, (shank, at_um) in enumerate(self.electrodes)
            if shank == band.shank and band.from_um <= at_um <= band.to_um
        ]
        runs: list[tuple[int, int]] = []
        for number in inside:
            if runs and runs[-1][1] == number - 1:
                runs[-1] = runs[-1][0], number
            else:
                runs.append((number, number))
        return runs

    def _viewers(self) -> list[int]:
        processors = self._ask("GET", "/api/processors").get("processors", [])
        found = [one["id"] for one in processors if one.get("name") == PROBE_VIEWER]
        if not found:
            raise WindowError(f"{self.url}: no Probe Viewer in the signal chain; add one behind the probe's source")
        return found

    def _ask(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> dict[str, Any]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
        try:
            body = None if document is None else json.dumps(document).encode()
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read(2**22)
            if answer.status != 200:
                raise WindowError(f"{self.url}{path} answered {answer.status} {answer.reason}")
            found: dict[str, Any] = json.loads(content or b"{}")
            return found
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise WindowError(f"Open Ephys at {self.url}: {error}; is its HTTP server enabled (File menu)?") from error
        finally:
            connection.close()


class Sender:
    """Sends bands to a window when they have changed, or when it was away: a program that restarts knows none."""

    def __init__(self, window: SpikeGlx | ProbeViewer) -> None:
        self._window = window
        self._shown: tuple[Band, ...] = ()
        self._sent_s = float("-inf")

    def send(self, bands: tuple[Band, ...], now_s: float, *, every_s: float) -> bool:
        """Send `bands` if they are new, or `every_s` after they were sent last; returns whether it did.

        A window that does not take them is sent them again the next time. Raises WindowError as the window does.
        """
        if not bands or (bands == self._shown and now_s - self._sent_s < every_s):
            return False
        self._shown = ()
        self._window.send(bands)
        self._shown, self._sent_s = bands, now_s
        return True


def electrodes_of(probe: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Return shank and micrometres from the tip of every electrode of a probeinterface document with one probe.

    Electrodes are numbered by their contact ids ("e12", "s1e12"), or in the order of contacts where there are none.
    Raises WindowError for what is no such document.
    """
    try:
        (one,) = probe["probes"]
        positions = one["contact_positions"]
        count = len(positions)
        shanks = one.get("shank_ids") or ["0"] * count
        ids = one.get("contact_ids") or [str(number) for number in range(count)]
        number_of_shank = {name: number for number, name in enumerate(sorted(set(shanks)))}
        tips = {s: min(p[1] for p, mine in zip(positions, shanks, strict=True) if mine == s) for s in number_of_shank}
        number = [int(re.findall(r"\d+", name)[-1]) for name in ids]
        whole = sorted(range(count), key=lambda c: (number_of_shank[shanks[c]], number[c]))
        return [(number_of_shank[shanks[c]], float(positions[c][1] - tips[shanks[c]])) for c in whole]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WindowError(
            f"not a probeinterface file with one probe ({error}); write one with write_probeinterface"
        ) from error


def _pinpoint(band: Band, shift_um: float) -> str:
    red, green, blue = (int(band.colour[k : k + 2], 16) for k in (0, 2, 4))
    name = re.sub(r"[(),\[\]]", " ", band.name)
    return f"({band.from_um + shift_um:.0f},{band.to_um + shift_um:.0f},{red},{green},{blue},{name})"


def _expect_ok(connection: socket.socket) -> None:
    """Read lines until OK. Raises OSError for an error, or when nothing comes."""
    received = b""
    while not received.endswith(b"OK\n"):
        piece = connection.recv(4096)
        received += piece
        line = next((line for line in received.split(b"\n") if line.startswith(b"ERROR")), None)
        if line is not None or not piece:
            raise OSError((line or b"it closed the connection").decode(errors="replace"))
