"""The file of `serve --record`: what was published comes back, torn ends and full disks included."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nuclr_stream.daemon.records import MAGIC, RecordWriter, read_records
from nuclr_stream.errors import NuclrStreamError, WireError
from nuclr_stream.wire import Event, encode


def event(number: int) -> Event:
    return Event(stream="rig", kind="test", detail=f"number {number}", monotonic_ns=number)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A record of three events."""
    record = tmp_path / "kept.rec"
    writer = RecordWriter(record)
    for number in range(3):
        writer.write(encode(event(number)))
    writer.close()
    return record


def test_pinned_bytes(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "kept.rec")
    writer.write([b"ab", b"", b"c"])
    writer.close()
    assert (tmp_path / "kept.rec").read_bytes() == (
        b"NUCLRRC1" + b"\x03\0\0\0" + b"\x02\0\0\0" + b"\0\0\0\0" + b"\x01\0\0\0" + b"abc"
    )


def test_a_record_of_another_version_is_rejected_and_left_as_it_is(path: Path) -> None:
    other = path.read_bytes().replace(MAGIC, b"NUCLRRC9")
    path.write_bytes(other)
    with pytest.raises(NuclrStreamError, match="of this version; choose another file with --record"):
        RecordWriter(path)
    with pytest.raises(NuclrStreamError, match="of this version"):
        list(read_records(path))
    assert path.read_bytes() == other


def test_what_was_written_comes_back(path: Path) -> None:
    assert list(read_records(path)) == [event(0), event(1), event(2)]


def test_a_record_torn_at_any_byte_is_read_up_to_there_and_carried_on(path: Path) -> None:
    whole = path.read_bytes()
    size = (len(whole) - len(MAGIC)) // 3
    for cut in range(len(MAGIC), len(whole)):
        path.write_bytes(whole[:cut])
        kept = (cut - len(MAGIC)) // size
        assert list(read_records(path)) == [event(k) for k in range(kept)]
        writer = RecordWriter(path)
        writer.write(encode(event(9)))
        writer.close()
        assert list(read_records(path)) == [*(event(k) for k in range(kept)), event(9)]


def test_a_damaged_record_is_read_up_to_there_rejected_by_name_and_never_cut(path: Path) -> None:
    whole = path.read_bytes()
    size = (len(whole) - len(MAGIC)) // 3
    for bad in (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0\0\0\xff\xff\xff\xff"):
        damaged = whole[: len(MAGIC) + size] + bad + whole[len(MAGIC) + size + len(bad) :]
        path.write_bytes(damaged)
        messages = read_records(path)
        assert next(messages) == event(0)
        with pytest.raises(NuclrStreamError, match=rf"kept\.rec: damaged at byte {len(MAGIC) + size}"):
            next(messages)
        with pytest.raises(NuclrStreamError, match="damaged"):
            RecordWriter(path)
        assert path.read_bytes() == damaged
    path.write_bytes(MAGIC + b"\x01\0\0\0\x01\0\0\0x")
    with pytest.raises(WireError):
        list(read_records(path))


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked on Windows")
def test_a_record_that_another_daemon_writes_is_rejected_and_stays_whole(path: Path) -> None:
    first = RecordWriter(path)
    with pytest.raises(NuclrStreamError, match=r"kept\.rec: another daemon writes it; .*--record"):
        RecordWriter(path)
    first.write(encode(event(3)))
    first.close()
    second = RecordWriter(path)
    second.write(encode(event(4)))
    second.close()
    assert list(read_records(path)) == [event(k) for k in range(5)]


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "thesis.tex"
    other.write_text("years of work")
    with pytest.raises(NuclrStreamError, match=r"thesis\.tex"):
        RecordWriter(other)
    with pytest.raises(NuclrStreamError, match=r"thesis\.tex"):
        list(read_records(other))
    assert other.read_text() == "years of work"


def test_a_file_that_cannot_be_written_is_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(NuclrStreamError, match=r"no_folder.*--record"):
        RecordWriter(tmp_path / "no_folder" / "kept.rec")


def test_a_disk_that_is_full_is_rejected_at_the_start() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(NuclrStreamError, match="No space left"):
        RecordWriter(Path("/dev/full"))


def test_a_disk_that_fills_up_costs_one_message_never_the_file(path: Path) -> None:
    writer = RecordWriter(path)
    file = writer._file

    class Full:
        """Takes ten bytes of every write, as a disk does that is full."""

        def write(self, data: bytes) -> int:
            return file.write(data[:10]) or 0

        def __getattr__(self, name: str) -> object:
            return getattr(file, name)

    writer._file = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="no space"):
        writer.write(encode(event(3)))
    writer._file = file
    writer.write(encode(event(4)))
    writer.close()
    assert list(read_records(path)) == [event(0), event(1), event(2), event(4)]
