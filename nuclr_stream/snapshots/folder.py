"""A folder with the saved states of streams, two generations of each: whatever a crash leaves behind, one is whole.

Files: `<name>.0` and `<name>.1` by turns, `lock`, held by the daemon that writes here. The name is a hash of the
stream's, which may hold any character.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nuclr_stream.errors import NuclrStreamError, SnapshotError
from nuclr_stream.snapshots.pack import pack, unpack

if sys.platform != "win32":
    import fcntl


class SnapshotFolder:
    """Keeps states by stream. Raises NuclrStreamError when the folder cannot be used, or another daemon uses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._generation: dict[str, int] = {}
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (path / "lock").open("wb")
        except OSError as error:
            raise NuclrStreamError(
                f"snapshots {path}: {error.strerror}; choose another folder with --snapshots"
            ) from error
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise NuclrStreamError(
                f"snapshots {path}: another daemon keeps its state there; stop it, or choose another with --snapshots"
            ) from error

    def write(self, stream: str, state: Mapping[str, Any]) -> int:
        """Write a state in the place of the older generation and return its bytes. Raises OSError (disk full).

        When it returns the state is on the disk; until then, and if it fails, both generations are what they were.
        """
        generation = self._generation.get(stream, -1) + 1
        parts = pack({"stream": stream, "generation": generation, "state": state})
        target = self._file(stream, generation % 2)
        temporary = target.with_suffix(".part")
        try:
            with temporary.open("wb", buffering=0) as file:
                for part in parts:
                    if file.write(part) != len(part):
                        raise OSError(28, "no space left for the whole snapshot")
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync(self.path)
        self._generation[stream] = generation
        return sum(map(len, parts))

    def read(self) -> Iterator[tuple[str, list[tuple[Any, str]]]]:
        """Yield every stream's name and its generations, the newest first: (state, "") or (None, why it is unusable).

        The name is empty where no generation can be read.
        """
        for name in sorted({file.stem for file in self.path.glob("*.[01]")}):
            found: list[tuple[int, str, Any, str]] = []
            for file in sorted(self.path.glob(f"{name}.[01]")):
                try:
                    content = unpack(file.read_bytes())
                    found.append((content["generation"], content["stream"], content["state"], ""))
                except (SnapshotError, OSError, KeyError, TypeError) as error:
                    found.append((-1, "", None, f"{file.name}: {error}"))
            found.sort(key=lambda one: -one[0])
            stream = found[0][1]
            self._generation[stream] = found[0][0]
            # a damaged file was most likely the newest: say so first
            generations = [(state, why) for generation, _, state, why in found if generation < 0]
            yield stream, generations + [(state, why) for generation, _, state, why in found if generation >= 0]

    def forget(self, stream: str) -> None:
        """Delete what is kept of a stream; nothing kept is no error."""
        self._generation.pop(stream, None)
        for parity in (0, 1):
            self._file(stream, parity).unlink(missing_ok=True)

    def close(self) -> None:
        """Let another daemon use the folder."""
        self._lock.close()

    def _file(self, stream: str, parity: int) -> Path:
        return self.path / f"{hashlib.sha256(stream.encode()).hexdigest()[:32]}.{parity}"


def _sync(folder: Path) -> None:
    """Make renames in a folder last; only POSIX can."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
