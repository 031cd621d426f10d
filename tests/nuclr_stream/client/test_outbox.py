"""What a source keeps to send again: so much and no more, in order, and what is lost is counted."""

from __future__ import annotations

import pytest

from nuclr_stream.client import outbox
from nuclr_stream.client.outbox import Outbox


def filled(count: int, *, table_every: int = 4) -> Outbox:
    """Messages 0, 1, ... one a second, every fourth a whole unit table; nothing is too old."""
    box = Outbox(keep_s=100.0)
    for seq in range(count):
        box.add(seq, [bytes([seq])], now_s=float(seq), is_table=seq % table_every == 0)
    return box


def leave(box: Outbox) -> list[int]:
    """Send everything; returns the numbers in order."""
    numbers = []
    while (frames := box.head()) is not None:
        numbers.append(frames[0][0])
        box.sent()
    return numbers


def test_messages_leave_in_order_and_once() -> None:
    box = filled(5)
    assert box.waiting == 5
    assert leave(box) == [0, 1, 2, 3, 4]
    assert (box.waiting, box.head(), leave(box)) == (0, None, [])


def test_rewinding_sends_again_from_a_number_on() -> None:
    box = filled(6)
    leave(box)
    box.rewind(3)
    assert leave(box) == [3, 4, 5]


def test_rewinding_never_skips_what_was_not_sent() -> None:
    box = filled(6)
    box.sent()
    box.rewind(4)
    assert leave(box) == [1, 2, 3, 4, 5]


def test_a_daemon_that_knows_nothing_gets_a_whole_unit_table_first() -> None:
    box = Outbox(keep_s=4.5)
    for seq in range(10):
        box.add(seq, [bytes([seq])], now_s=float(seq), is_table=seq % 4 == 0)
        box.sent()
    box.rewind_all()
    assert leave(box) == [8, 9], "5, 6 and 7 mean nothing without a table"


def test_what_is_too_old_goes_and_is_counted_unless_it_had_been_sent() -> None:
    box = filled(3)
    leave(box)
    box.add(3, [b"\x03"], now_s=150.0, is_table=False)
    box.add(4, [b"\x04"], now_s=300.0, is_table=False)
    assert (box.lost, leave(box)) == (1, [4])


def test_no_more_bytes_are_kept_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_BYTES", 25)
    box = Outbox(keep_s=100.0)
    for seq in range(5):
        box.add(seq, [bytes([seq]) * 10], now_s=0.0, is_table=False)
    assert (box.lost, leave(box)) == (3, [3, 4])
