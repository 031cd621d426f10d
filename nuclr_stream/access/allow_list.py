"""The allow-list: which keys a daemon serves, and what each may do. A file beside the daemon's key."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nuclr_stream.access.keys import checked_key, checked_name
from nuclr_stream.errors import AccessError

FILE = "allowed.json"
MAX_KEYS = 1000
MAX_PATTERNS = 64
_MAX_BYTES = 2**20


@dataclass(frozen=True)
class Rights:
    """What the holder of a key may do.

    `publish` are patterns of stream names ("probeA", "rig1-*") that it may push data to; `read` is to receive what
    is published, of all streams; `query` to ask for snapshots, embeddings, windows, placement and status.
    """

    name: str
    public: str
    publish: tuple[str, ...] = ()
    read: bool = False
    query: bool = False

    def may(self, socket: str) -> bool:
        """Whether the holder may connect to that socket: "data", "results" or "query"."""
        return {"data": bool(self.publish), "results": self.read, "query": self.query}[socket]

    def may_publish(self, stream: str) -> bool:
        """Whether the holder may push data to `stream`."""
        return any(fnmatchcase(stream, pattern) for pattern in self.publish)


def read_allowed(folder: Path) -> dict[str, Rights]:
    """Return the rights of every allowed key by its public key; none where there is no list yet.

    Raises AccessError when the list cannot be read, or anything in it is not as this release writes it: a list that
    is half understood lets the wrong ones in.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise AccessError(f"{path}: {error.strerror}") from error
    try:
        if len(content) > _MAX_BYTES:
            raise ValueError("too large")
        entries = json.loads(content)["allowed"]
        if len(entries) > MAX_KEYS:
            raise ValueError(f"more than {MAX_KEYS} keys")
        allowed = [_entry(values) for values in entries]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AccessError(f"{path}: no valid allow-list ({error}); edit it with nuclr-stream keys") from error
    if len({rights.name for rights in allowed}) < len(allowed) or len({r.public for r in allowed}) < len(allowed):
        raise AccessError(f"{path}: a name or a key stands there twice; edit it with nuclr-stream keys")
    return {rights.public: rights for rights in allowed}


def write_allowed(folder: Path, allowed: Mapping[str, Rights]) -> None:
    """Replace the list as a whole: a daemon that reads it meanwhile finds the old one or the new one."""
    content = {"allowed": [asdict(rights) for rights in allowed.values()]}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".part", delete=False, encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(folder / FILE)
    except OSError as error:
        raise AccessError(f"{folder / FILE}: {error.strerror}") from error


class WatchedAllowList:
    """The list as it is now: `refresh` reads it again when its file changed. `problem` says why nobody is allowed.

    A list that went bad while a daemon runs allows nobody: what it was meant to revoke is not known.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp = self._look()
        self.current: Mapping[str, Rights] = read_allowed(folder)
        self.problem = ""

    def refresh(self) -> set[str]:
        """Read the list again if it changed; returns the public keys whose rights are others than before, or gone."""
        stamp = self._look()
        if stamp == self._stamp:
            return set()
        before, self._stamp = self.current, stamp
        try:
            self.current, self.problem = read_allowed(self._folder), ""
        except AccessError as error:
            self.current, self.problem = {}, str(error)
        return {public for public, rights in before.items() if self.current.get(public) != rights}

    def _look(self) -> tuple[int, ...]:
        try:
            found = (self._folder / FILE).stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size


def _entry(values: dict[str, Any]) -> Rights:
    rights = Rights(**values | {"publish": tuple(values["publish"])})
    checked_name(rights.name)
    checked_key(rights.public, f"public of {rights.name}")
    if type(rights.read) is not bool or type(rights.query) is not bool:
        raise ValueError(f"read and query of {rights.name} must be true or false")
    if len(rights.publish) > MAX_PATTERNS or not all(isinstance(p, str) and 0 < len(p) <= 256 for p in rights.publish):
        raise ValueError(f"publish of {rights.name} must be at most {MAX_PATTERNS} patterns of stream names")
    return rights
