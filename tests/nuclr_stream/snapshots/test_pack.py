"""A state as bytes: everything comes back as it was, arrays small where they can be, and no damage is overlooked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nuclr_stream.errors import NuclrStreamError, SnapshotError
from nuclr_stream.snapshots.folder import SnapshotFolder
from nuclr_stream.snapshots.pack import pack, unpack
from nuclr_stream.wire import encode
from tests.nuclr_stream.streams import Source

STATE = {"none": None, "yes": True, "number": -(2**53), "text": "µ", "list": [1, [2.5, "x"]], "map": {"a": 1}}


def packed(state: Any) -> bytes:
    return b"".join(pack(state))


def test_plain_values_come_back_as_they_were() -> None:
    assert unpack(packed(STATE)) == STATE


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint32", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(0,), (3,), (0, 4), (4, 0), (3, 2), (2, 3, 4)])
def test_arrays_come_back_with_type_and_shape_and_can_be_changed(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    (found,) = unpack(packed([values]))
    assert (found.dtype, found.shape) == (values.dtype, shape)
    assert np.array_equal(found, values)
    found += found  # what is restored goes on growing


@given(arrays(np.float64, array_shapes(max_dims=3, max_side=5), elements=st.floats(width=64)))
def test_every_float_comes_back_bit_by_bit(values: np.ndarray) -> None:
    assert unpack(packed(values)).tobytes() == values.tobytes()


@given(arrays(np.float64, (4, 3), elements=st.sampled_from([0.0, -0.0, 255.0, 256.0, 65_536.0, 2.0**32, 0.5])))
def test_whole_numbers_that_are_narrowed_come_back_bit_by_bit(values: np.ndarray) -> None:
    assert unpack(packed(values)).tobytes() == values.tobytes()


def test_counts_take_the_least_room_and_equal_columns_are_written_once() -> None:
    products, common = np.full((100, 100), 7.0), np.full((100, 100), 3.0)
    products[0, 0] = 300
    assert len(packed(common)) < 200
    assert 20_000 < len(packed(products)) < 20_200
    assert len(packed(products + 0.5)) > 80_000


def test_messages_of_a_source_come_back() -> None:
    source = Source()
    for message in (source.units(), source.busy(0, 300), source.mask(3, 9), source.heartbeat(4, 8), source.end(9)):
        assert encode(unpack(packed([message]))[0]) == encode(message)


def test_what_has_no_place_in_it_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"PosixPath|WindowsPath"):
        pack({"path": Path()})


def test_every_truncation_and_every_flipped_bit_is_noticed() -> None:
    content = packed({"number": 7, "array": np.arange(40)})
    for length in range(len(content)):
        with pytest.raises(SnapshotError):
            unpack(content[:length])
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            with pytest.raises(SnapshotError):
                unpack(bytes(damaged))


# -- two generations --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[SnapshotFolder]:
    made = SnapshotFolder(tmp_path / "kept")
    yield made
    made.close()


def numbers(folder: SnapshotFolder) -> list[Any]:
    ((_, generations),) = folder.read()
    return [state and state["n"] for state, _ in generations]


def test_the_newest_two_are_kept_and_read_newest_first(folder: SnapshotFolder) -> None:
    for n in range(5):
        folder.write("probe/1", {"n": n})
    assert numbers(folder) == [4, 3]
    folder.close()
    again = SnapshotFolder(folder.path)  # a new daemon goes on where the last one was
    assert numbers(again) == [4, 3]
    again.write("probe/1", {"n": 5})
    assert numbers(again) == [5, 4]
    again.close()


@pytest.mark.parametrize("newest", [b"", b"x" * 100])
def test_a_damaged_generation_is_named_and_the_other_one_comes_next(folder: SnapshotFolder, newest: bytes) -> None:
    for n in range(4):
        folder.write("probe", {"n": n})
    next(folder.path.glob("*.1")).write_bytes(newest)
    ((name, ((nothing, why), (state, fine))),) = folder.read()
    assert (name, nothing, fine, state["n"]) == ("probe", None, "", 2)
    assert ".1: " in why
    folder.write("probe", {"n": 9})
    assert numbers(folder) == [9, 2], "the damaged one gives way, not the good one"


def test_a_write_that_fails_leaves_both_generations(folder: SnapshotFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("probe", {"n": 0})
    folder.write("probe", {"n": 1})

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(Path, "replace", full)
        folder.write("probe", {"n": 2})
    assert numbers(folder) == [1, 0]
    assert not list(folder.path.glob("*.part"))


def test_streams_of_any_name_are_kept_apart_and_forgotten(folder: SnapshotFolder) -> None:
    for n, name in enumerate(("a/../b", "a", "ä\u2028"[:1])):
        folder.write(name, {"n": n})
    folder.forget("a")
    folder.forget("never there")
    assert {name: generations[0][0]["n"] for name, generations in folder.read()} == {"a/../b": 0, "ä": 2}


def test_a_second_daemon_is_kept_out(folder: SnapshotFolder) -> None:
    with pytest.raises(NuclrStreamError, match=r"another daemon .*--snapshots"):
        SnapshotFolder(folder.path)


def test_a_folder_that_cannot_be_is_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NuclrStreamError, match=r"snapshots .*file.*--snapshots"):
        SnapshotFolder(tmp_path / "file" / "kept")
