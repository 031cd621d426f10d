"""Files that appear whole or not at all, and never in the place of one that a user has."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nuclr_stream.errors import NuclrStreamError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""What writing fails with; other errors inside of `new_file` are about other files."""


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, which takes the place of `path` when the block ends well.

    Without `force` a file that is there already stays: before the block, and if it appears during it.
    Raises NuclrStreamError naming the file and the remedy.
    """
    if not force:
        refuse_existing(path)
    temporary = path.with_name(f"{path.stem}.part{path.suffix}")  # some writers look at the ending
    try:
        temporary.touch()
    except OSError as error:
        raise NuclrStreamError(f"--out {path}: {error.strerror}; choose another file") from error
    try:
        yield temporary
        _put(temporary, path, force=force)
    except OSError as error:
        if error.errno in _FULL:
            raise NuclrStreamError(f"--out {path}: {error.strerror}; make room or choose another file") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def refuse_existing(path: Path, option: str = "--out") -> None:
    """Raise NuclrStreamError naming the option if there is something at `path`."""
    if path.exists():
        raise NuclrStreamError(f"{option} {path}: is there already; choose another name, or replace it with --force")


def _put(temporary: Path, path: Path, *, force: bool) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    if force:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike a rename this never replaces what has appeared meanwhile
    except FileExistsError:
        refuse_existing(path)
    except OSError:  # a file system without hard links
        refuse_existing(path)
        temporary.replace(path)
