"""Archives from figshare: every file of an article, checked and unpacked."""

from __future__ import annotations

import hashlib
import json
import tarfile
import urllib.request
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

from offline_training.studies.reproduce.archive import Archive, ArchiveError

FIGSHARE = "https://api.figshare.com/v2"
CHUNK = 2**20


def download(archive: Archive, folder: Path, *, api: str = FIGSHARE) -> Path:
    """Fetch and unpack what is not there yet. Raises ArchiveError without network, or where only a client can do it."""
    if not archive.figshare:
        raise ArchiveError(f"{archive.name}: download it with its own client and give --archive DIR. {archive.source}")
    folder.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = json.loads(_get(f"{api}/articles/{archive.figshare}/files?page_size=1000"))
    for entry in listed:
        path = folder / Path(entry["name"]).name
        if not path.is_file():
            _fetch(entry["download_url"], path, md5=entry["computed_md5"])
        _unpack(path, folder)
    return folder


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url) as answer:
            content: bytes = answer.read()
    except (URLError, OSError) as error:
        raise ArchiveError(f"{url}: {error}; without network, download it elsewhere and give --archive DIR") from error
    return content


def _fetch(url: str, path: Path, *, md5: str) -> None:
    """A file, whole and with the right sum, or not at all."""
    temporary = path.with_name(path.name + ".part")
    found = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(url) as answer, temporary.open("wb") as file:
            while chunk := answer.read(CHUNK):
                found.update(chunk)
                file.write(chunk)
    except (URLError, OSError) as error:
        raise ArchiveError(f"{url}: {error}; run the same command again") from error
    if found.hexdigest() != md5:
        raise ArchiveError(f"{path.name}: arrived with MD5 {found.hexdigest()}, not {md5}; run the same command again")
    temporary.replace(path)


def _unpack(path: Path, folder: Path) -> None:
    """Unpack a zip or tar file, and the tar files that come out of it, each into a folder of its own name."""
    if zipfile.is_zipfile(path):
        target = folder / path.stem
        if not target.is_dir():
            with zipfile.ZipFile(path) as packed:
                packed.extractall(target)  # the library keeps every member below the target
    elif tarfile.is_tarfile(path):
        target = folder / path.name.split(".tar")[0]
        if not target.is_dir():
            with tarfile.open(path) as packed:
                packed.extractall(target, filter="data")
    else:
        return
    for inner in sorted(target.rglob("*.tar*")):
        _unpack(inner, inner.parent)
