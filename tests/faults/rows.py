"""All rows of the campaign, in the order in which they are run."""

from __future__ import annotations

from tests.faults.row import Row
from tests.faults.rows_accounts import ROWS as ACCOUNTS
from tests.faults.rows_cost import ROWS as COST
from tests.faults.rows_recovery import ROWS as RECOVERY
from tests.faults.rows_soak import ROWS as SOAK
from tests.faults.rows_watch import ROWS as WATCH

ROWS: tuple[Row, ...] = (*RECOVERY, *WATCH, *ACCOUNTS, *COST, *SOAK)
