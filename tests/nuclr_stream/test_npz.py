"""Plain arrays of a .npz: damage, lies and bombs are one ValueError each, before memory is taken for them."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclr_stream.npz import NUMBERS, NUMBERS_AND_TEXT, TooLargeError, plain_arrays

MEMBERS = {
    "whole": np.arange(12, dtype=np.float32).reshape(3, 4),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "mask": np.array([True, False]),
    "one": np.array(2.5),
    "nothing": np.zeros((0, 7), dtype=np.int64),
}


def npz(compressed: bool = True, **arrays: np.ndarray) -> bytes:
    """A .npz as numpy writes it."""
    made = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(made, allow_pickle=False, **arrays)
    return made.getvalue()


def zipped(**members: bytes) -> bytes:
    """A zip archive of members with this content."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return made.getvalue()


def npy(header: str, content: bytes = b"", *, version: int = 1) -> bytes:
    """A .npy file with a header of our own."""
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + content


def described(kind: str, shape: str, content: bytes = b"", **other: int) -> bytes:
    return npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}", content, **other)


def read(content: bytes, *, most_bytes: int = 10_000, kinds: str = NUMBERS) -> dict[str, np.ndarray]:
    return plain_arrays(io.BytesIO(content), "file.npz", most_bytes=most_bytes, most_arrays=8, kinds=kinds)


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_those_that_numpy_reads(compressed: bool):
    content = npz(compressed, **MEMBERS)
    with np.load(io.BytesIO(content)) as expected:
        found = read(content)
        assert list(found) == expected.files
        for name, values in found.items():
            assert values.dtype == expected[name].dtype and np.array_equal(values, expected[name])
            assert values.flags.writeable


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (described("<f4", "(10000000000000,)"), r"a\.npy: announces float32 \(10000000000000,\), holds 0 bytes"),
        (described("<f4", "(2,)", bytes(7)), "announces float32"),
        (described("<f4", "(2,)", bytes(9)), "announces float32"),
        (described("<f4", "(-1, 4)", bytes(16)), "announces float32"),
        (described("<f4", "(-1, -2)", bytes(8)), "announces float32"),
        (described("<f4", "(0, -1)"), "announces float32"),
        (described("|O", "(1,)", bytes(8)), "type object, not plain numbers"),
        (described("<U4", "(1,)", bytes(16)), "type <U4, not plain numbers"),
        (described("<U0", "(10000000000000,)"), "not plain numbers"),
        (described("<c8", "(1,)", bytes(8)), "type complex64, not plain numbers"),
        (described("<f4", "(1,)", bytes(4), version=3), r"\.npy version \(3, 0\)"),
        (described("nothing", "(1,)"), "not a readable"),
        (described("<f4", "'many'"), "not a readable"),
        (npy("{'descr': "), "not a readable"),
        (npy("("), "not a readable"),
        (npy("(" * 5_000), "not a readable"),
        (npy("[1, 2]"), "not a readable"),
        (npy("x" * 60_000), "not a readable"),
        (b"", "not a readable"),
        (b"\x93NUMPY", "not a readable"),
        (b"no array at all", "not a readable"),
    ],
)
def test_a_member_that_is_no_plain_array_of_its_size_is_rejected(member: bytes, says: str):
    with pytest.raises(ValueError, match=says) as rejected:
        read(zipped(a=member), most_bytes=10**6)
    assert str(rejected.value).startswith("file.npz: not a readable .npz of plain arrays (")


def test_nothing_is_allocated_for_what_is_only_announced():
    bomb = zipped(a=described("<f8", "(100000000,)"))
    tracemalloc.start()
    with pytest.raises(ValueError):
        read(bomb, most_bytes=10**9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


def test_a_bomb_is_rejected_by_its_stated_size_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch):
    bomb = npz(a=np.zeros(10**6))
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(TooLargeError, match=r"file\.npz: unpacks to 8000\d+ bytes in 1 arrays, more than 10000 bytes"):
        read(bomb)


def test_more_members_than_allowed_are_rejected():
    with pytest.raises(TooLargeError, match="unpacks to 0 bytes in 9 arrays, more than 10000 bytes or 8 arrays"):
        read(zipped(**{f"a{k}": b"" for k in range(9)}))


def test_text_is_read_where_it_is_allowed_and_announces_what_it_holds():
    names = {"ids": np.array(["u1", "µ2"]), "note": np.array("one"), "none": np.array([], dtype=np.str_)}
    found = read(npz(**names), kinds=NUMBERS_AND_TEXT)
    assert all(np.array_equal(found[name], values) for name, values in names.items())
    with pytest.raises(ValueError, match="type <U0, not plain numbers or text"):
        read(zipped(a=described("<U0", "(10000000000000,)")), kinds=NUMBERS_AND_TEXT)
    with pytest.raises(ValueError, match="type object, not plain numbers or text"):
        read(zipped(a=described("|O", "(1,)", bytes(8))), kinds=NUMBERS_AND_TEXT)


def lying(content: bytes, field: int, value: int) -> bytes:
    """Change a two-byte field of the first entry of the directory at the end of a zip archive, and of its member."""
    spoiled = bytearray(content)
    directory = content.index(b"PK\x01\x02")
    spoiled[directory + field : directory + field + 2] = struct.pack("<H", value)
    spoiled[field - 2 : field] = struct.pack("<H", value)
    return bytes(spoiled)


@pytest.mark.parametrize(("field", "value"), [(8, 1), (10, 99), (10, 12), (10, 14)])
def test_encrypted_or_otherwise_packed_members_are_rejected(field: int, value: int):
    with pytest.raises(ValueError, match="not a readable"):
        read(lying(npz(a=np.arange(50)), field, value))


@settings(max_examples=400)
@given(st.data())
def test_any_damage_is_the_same_array_or_one_error(data: st.DataObject):
    content = bytearray(npz(data.draw(st.booleans()), **MEMBERS))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(content), len(content) // 2, len(content) - 1]))
    try:
        found = read(bytes(content[:cut]))
    except ValueError as error:
        assert "\n" not in str(error).strip()
    else:
        for name, values in found.items():
            assert name not in MEMBERS or values.nbytes <= MEMBERS[name].nbytes + 200
