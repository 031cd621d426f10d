"""Key files: a CURVE key pair on disk, readable by its owner alone."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import zmq
from zmq.utils import z85

from nuclr_stream.errors import AccessError

KEY_ENV = "NUCLR_STREAM_KEY"
"""Environment variable that names the key file of clients which are given none."""
DAEMON = "daemon"
"""Name of the daemon's own key in its folder."""
_MAX_FILE_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class KeyPair:
    """A key pair in Z85 text (40 characters). `daemon` is the public key of the daemon that a client's key is for.

    Whoever holds `secret` is the key's owner as far as a daemon can know; it is never sent.
    """

    name: str
    public: str
    secret: str
    daemon: str = ""

    @classmethod
    def new(cls, name: str, *, daemon: str = "") -> KeyPair:
        """Make a key pair. Raises AccessError for a name that is no file name, or a `daemon` that is no public key."""
        checked_name(name)
        if daemon:
            checked_key(daemon, "the daemon's public key")
        public, secret = zmq.curve_keypair()
        return cls(name, public.decode(), secret.decode(), daemon)

    @classmethod
    def read(cls, path: Path) -> KeyPair:
        """Return the key pair of a file. Raises AccessError unless it is whole and its owner alone can read it."""
        try:
            with path.open("rb") as file:
                if sys.platform != "win32" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                    raise AccessError(f"{path}: others may read this secret key; chmod 600 it, and make a new one")
                content = file.read(_MAX_FILE_BYTES)
        except OSError as error:
            raise AccessError(f"{path}: {error.strerror}; nuclr-stream keys new makes a key") from error
        try:
            values = json.loads(content)
            pair = cls(**{field.name: values[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise AccessError(f"{path}: no key file; nuclr-stream keys new makes one") from error
        checked_name(pair.name)
        checked_key(pair.public, f"{path}: public")
        checked_key(pair.secret, f"{path}: secret")
        if pair.daemon != "":
            checked_key(pair.daemon, f"{path}: daemon")
        if zmq.curve_public(pair.secret.encode()).decode() != pair.public:
            raise AccessError(f"{path}: public and secret do not belong together; make a new key")
        return pair

    def write(self, folder: Path) -> Path:
        """Write NAME.key into `folder`, made for its owner alone, and return its path. Never replaces a key."""
        path = folder / f"{self.name}.key"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise AccessError(f"{path}: there is a key already; choose another name, or remove it first") from error
        except OSError as error:
            raise AccessError(f"{path}: {error.strerror}") from error
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(json.dumps(asdict(self), indent=1) + "\n")
        return path


def checked_name(name: object) -> str:
    """Return `name` if it can name a key and its file. Raises AccessError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise AccessError(f"{name!r} cannot name a key: use letters, digits, dots, - and _, 64 at most")
    return name


def checked_key(key: object, what: str) -> str:
    """Return `key` if it is one in Z85 text. Raises AccessError that says `what` it should have been."""
    try:
        if isinstance(key, str) and len(key) == 40 and len(z85.decode(key.encode("ascii"))) == 32:
            return key
    except (ValueError, KeyError, UnicodeEncodeError):  # z85 raises KeyError for a character outside its alphabet
        pass
    raise AccessError(f"{what} must be 40 characters of Z85, as nuclr-stream keys list shows them")


def client_key(key: str | os.PathLike[str] | None) -> KeyPair | None:
    """Return the key pair of a client: of the file `key`, else of the one that NUCLR_STREAM_KEY names, else None.

    Raises AccessError when the file is no client's key.
    """
    path = key if key is not None else os.environ.get(KEY_ENV, "")
    if not path:
        return None
    pair = KeyPair.read(Path(path))
    if not pair.daemon:
        raise AccessError(f"{path}: this is no client's key: it names no daemon; nuclr-stream keys new NAME makes one")
    return pair
