"""What has fired, in a file that outlives the daemon: an event is on disk before anything is sent for it.

A line is JSON: `{"event": ID, "state": "fired", "sinks": [...], ...}` when a rule fires, then one for every sink of it,
`{"event": ID, "sink": NAME, "state": "done" | "failed" | "unsure", ...}`. A daemon that dies between the two cannot
know whether a sink was reached: the next one says "unsure" and does not send again, since a stimulus that comes twice
can do harm, and one that is missing is declared.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.rules.engine import Firing

if sys.platform != "win32":
    import fcntl


class Journal:
    """A journal that is open for writing. `fired` are the ids of all events in it, `unsure` (event, sink) of those that
    had not been delivered or failed when it was opened; they are marked, so that each is reported once.

    Raises NuclrStreamError when it is no journal, cannot be written, or another daemon writes it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._file = path.open("a+b", buffering=0)
            try:
                _lock_file(self._file.fileno(), path)
                lines = self._whole_lines()
                self.fired, self.unsure = _read(lines, path)
            except (OSError, NuclrStreamError):
                self._file.close()
                raise
        except OSError as error:
            raise NuclrStreamError(f"rules_journal {path}: {error.strerror}; name another file") from error
        for event, sink in self.unsure:
            self._write({"event": event, "sink": sink, "state": "unsure"})

    def fire(self, firing: Firing) -> None:
        """Note that a rule fires; on return it is on the disk. Raises OSError (disk full)."""
        document = {name: getattr(firing, name) for name in ("rule", "stream", "epoch", "subject", "value")}
        document |= {"step": firing.step, "end_sample": firing.end_sample, "sinks": list(firing.sinks)}
        self._write({"event": firing.event_id, "state": "fired"} | document)
        os.fsync(self._file.fileno())

    def delivered(self, event: str, sink: str, *, latency_s: float, error: str = "") -> None:
        """Note that a sink took an event `latency_s` after its window closed, or why it did not. Raises OSError."""
        state: dict[str, Any] = {"state": "failed", "error": error} if error else {"state": "done"}
        self._write({"event": event, "sink": sink} | state | {"latency_s": round(latency_s, 6)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, document: dict[str, Any]) -> None:
        line = json.dumps(document).encode() + b"\n"
        with self._lock:
            if self._file.write(line) != len(line):
                raise OSError("no space left for a whole line")

    def _whole_lines(self) -> list[bytes]:
        """The lines of the file; a last one that a crash cut off is taken out."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        return whole.splitlines()


def _read(lines: list[bytes], path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Event ids that fired, and (event, sink) that nothing is known of."""
    waiting: dict[str, set[str]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            document = json.loads(line)
            event = document["event"]
            if document["state"] == "fired":
                waiting[event] = set(document["sinks"])
            else:
                waiting[event].discard(document["sink"])
        except (ValueError, KeyError, TypeError) as error:
            raise NuclrStreamError(
                f"rules_journal {path.name}: line {number} is none of a journal ({error}); name another file"
            ) from error
    return list(waiting), [(event, sink) for event, sinks in waiting.items() for sink in sorted(sinks)]


def _lock_file(number: int, path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise NuclrStreamError(f"rules_journal {path}: another daemon writes it; name another file") from error
