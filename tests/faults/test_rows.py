"""Every row of the fault campaign in its smallest size: the promise holds, and the planted bug is noticed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults.row import Row
from tests.faults.rows import ROWS

SMALL = [row for row in ROWS if "test" in row.sizes]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process and /proc are those of Linux")
@pytest.mark.parametrize("row", SMALL, ids=[row.id for row in SMALL])
def test_a_promise_holds_and_its_planted_bug_is_noticed(row: Row, tmp_path: Path) -> None:
    outcome = row.run(0, "test", tmp_path)
    assert outcome.held, outcome.figures
    assert outcome.caught, outcome.figures


def test_every_row_says_what_counts() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert all(row.promise and row.bar and row.planted and row.sizes for row in ROWS)
