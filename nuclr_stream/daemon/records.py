"""A file of everything that was published: `serve --record FILE` writes it, `read_records` reads it back.

Format: the 8 bytes b"NUCLRRC1", then messages; a message is its number of frames and the length of every frame, each a
little-endian uint32, then the frames as they were published (docs/protocol.md). A torn last message, as a crash leaves
it, is dropped when the file is read or carried on; a file that is damaged elsewhere is rejected, never cut.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from nuclr_stream.errors import NuclrStreamError
from nuclr_stream.wire import MAX_REPLY_BYTES, Message, decode

if sys.platform != "win32":
    import fcntl

MAGIC = b"NUCLRRC1"
"""Its last digit is the version of the format: a file of another one cannot be read or carried on."""
_MAX_FRAMES = 4096


class RecordWriter:
    """Appends messages to a record file. Raises NuclrStreamError if it is something else, or another daemon writes it.

    The file is locked while it is open (not on Windows): two writers would overwrite each other's messages.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            try:
                _lock(self._file, path)  # before anything is cut or written
                self._continue(path)
            except (OSError, NuclrStreamError):
                self._file.close()
                raise
        except OSError as error:
            raise NuclrStreamError(f"record {path}: {error.strerror}; choose another file with --record") from error

    def _continue(self, path: Path) -> None:
        if self._file.seek(0, 2) == 0:
            self._file.write(MAGIC)
        else:
            self._file.truncate(_whole_length(self._file, path))
            self._file.seek(0, 2)

    def write(self, frames: Sequence[bytes]) -> None:
        """Append one message: all of it is with the operating system on return, or none. Raises OSError (disk full)."""
        place = self._file.tell()
        message = struct.pack(f"<{len(frames) + 1}I", len(frames), *map(len, frames)) + b"".join(frames)
        try:
            if self._file.write(message) != len(message):
                raise OSError("no space left for the whole message")
        except OSError:
            self._file.truncate(place)
            self._file.seek(place)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_records(path: Path) -> Iterator[Message]:
    """Yield the messages of a record file in the order in which they were published.

    Raises NuclrStreamError when it cannot be read, is no record file or, behind its last good message, is damaged;
    WireError when a message in it is malformed.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise NuclrStreamError(f"record {path}: {error.strerror}") from error
    with file:
        _check_magic(file, path)
        while (frames := _read_frames(file, path)) is not None:
            yield decode(frames)


def _lock(file: IO[bytes], path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise NuclrStreamError(f"record {path}: another daemon writes it; choose another file with --record") from error


def _whole_length(file: IO[bytes], path: Path) -> int:
    file.seek(0)
    _check_magic(file, path)
    end = file.tell()
    while _read_frames(file, path) is not None:
        end = file.tell()
    return end


def _check_magic(file: IO[bytes], path: Path) -> None:
    if file.read(len(MAGIC)) != MAGIC:
        raise NuclrStreamError(
            f"{path.name}: not a record of predictions of this version; choose another file with --record"
        )


def _read_frames(file: IO[bytes], path: Path) -> list[bytes] | None:
    """Return the next message, or None at the end of the file or in a message that is torn by it."""
    place = file.tell()
    count = file.read(4)
    if len(count) < 4:
        return None
    (frames,) = struct.unpack("<I", count)
    sizes = file.read(4 * min(frames, _MAX_FRAMES))
    lengths = struct.unpack(f"<{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4])
    if not 0 < frames <= _MAX_FRAMES or sum(lengths) > MAX_REPLY_BYTES:
        raise NuclrStreamError(f"{path.name}: damaged at byte {place}; keep it, and choose another file with --record")
    if len(lengths) < frames:
        return None
    body = [file.read(length) for length in lengths]
    return body if sum(map(len, body)) == sum(lengths) else None
