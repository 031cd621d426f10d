"""Frames of the page: what goes in comes out, in the bytes that the page expects."""

from __future__ import annotations

import numpy as np
import pytest

from nuclr_stream.dashboard.frames import ALIGN, pack, two_bits, unpack


def test_header_and_arrays_come_back_as_they_were() -> None:
    arrays = {"a": np.array([1, 2, 3], dtype=np.uint8), "b": np.array([0.5, np.nan], dtype=np.float32)}
    header, found = unpack(pack("frame", {"name": "µ"}, arrays))
    assert header == {"kind": "frame", "name": "µ"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_every_array_begins_where_a_browser_can_view_it() -> None:
    frame = pack("frame", {"x": "y" * 3}, {"a": np.zeros(3, dtype=np.uint8), "b": np.zeros(1, dtype=np.float32)})
    length = int.from_bytes(frame[:4], "little")
    assert (4 + length) % ALIGN == 0 and len(frame) == 4 + length + 16


def test_what_json_does_not_know_becomes_null() -> None:
    header, _ = unpack(pack("frame", {"a": float("nan"), "b": [np.float32("inf")], "c": {"d": np.int64(3)}}))
    assert header == {"kind": "frame", "a": None, "b": [None], "c": {"d": 3}}


def test_an_array_that_the_page_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="array a is int64"):
        pack("frame", {}, {"a": np.zeros(1, dtype=np.int64)})


def test_counts_go_four_bins_a_byte_and_three_means_more() -> None:
    counts = np.array([[0, 1, 2, 9, 1]], dtype=np.uint8)
    assert two_bits(counts).tolist() == [[0b11100100, 0b00000001]]
