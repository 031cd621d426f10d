"""The unit table of one probe: which units there are, since when, and what happened to the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nuclr_stream.windows.binning import Float32Array, Int64Array
from nuclr_stream.windows.interval_set import Stretches
from nuclr_stream.wire import UnitAction, UnitTable

MAX_INDEX = 2**20
"""Unit indices are never reused in an epoch, but stay below this."""


@dataclass(frozen=True)
class Operation:
    """What a change of the unit table means for the exposure: forget or merge units, or keep those of an old epoch."""

    kind: Literal["forget", "merge", "keep"]
    source: int = -1
    target: int = -1
    index_of: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def forget_all(cls) -> Operation:
        """Nothing of what was gathered is kept."""
        return cls("keep")


@dataclass
class _Unit:
    unit_id: str
    added_bin: int
    shank: int
    x_um: float
    depth_um: float
    channel: int


class Units:
    """The living units of one probe, by ascending index.

    `index` (U,) int64, `ids` U names, `added_bin` (U,) the first bin in which the unit existed throughout; `version` is
    that of the last table, -1 before it. The arrays are replaced, never changed: they may be handed on.
    """

    def __init__(self, max_units: int) -> None:
        self.max_units = max_units
        self._earlier: dict[str, int] = {}
        self._units: dict[int, _Unit] = {}
        self._index_of: dict[str, int] = {}
        self.version = -1
        self._first_table = True
        self._alias: dict[int, int] = {}
        self._retired = Stretches()  # as stretches: a set would grow with every unit that there ever was
        self._rebuild()

    def begin_epoch(self) -> None:
        """Forget the table; only the ids stay behind, for a first table that says `continues`."""
        self._earlier = self._index_of or self._earlier
        self._units, self._index_of, self._alias, self._retired = {}, {}, {}, Stretches()
        self.version, self._first_table = -1, True
        self._rebuild()

    def rows(self, indices: npt.NDArray[np.integer]) -> Int64Array:
        """Return the row of every index (N,), -1 where it is unknown; a merged unit's is that of its target."""
        clipped = np.minimum(indices, len(self._row_of) - 1).astype(np.int64)
        rows: Int64Array = self._row_of[clipped]
        return rows

    @property
    def geometry(self) -> dict[str, Float32Array]:
        """`shank`, `x_um`, `depth_um`, `channel` (U,) float32 each: for placement and display, never for readouts."""
        units = [self._units[i] for i in self.index.tolist()]
        names = ("shank", "x_um", "depth_um", "channel")
        return {name: np.array([getattr(u, name) for u in units], dtype=np.float32) for name in names}

    def apply(
        self, table: UnitTable, added_bins: Int64Array, now_bin: int | None, counters: Counter[str]
    ) -> list[Operation]:
        """Apply a table and return what it means for the exposure, in order.

        `added_bins` (M,) is the first whole bin of each row's `added`; `now_bin` the first bin that has not begun yet
        (None before any data): a unit counts from the later of both, since spikes before its row were not countable.
        Rows that make no sense are counted and left out.
        """
        if table.version <= self.version:
            counters["tables_repeated"] += 1
            return []
        if not table.full and table.version != self.version + 1:
            counters["tables_out_of_order"] += 1
            return []
        operations: list[Operation] = []
        if table.full:  # these first: one of the others may take over an id, or a place
            listed = set(table.index.tolist())
            operations += [op for index in sorted(set(self._units) - listed) for op in self._retire(index)]
            operations += self._take_out_moved(table)
        for row in range(len(table.index)):
            operations += self._apply_row(table, row, _later(int(added_bins[row]), now_bin), counters)
        self.version = table.version
        self._rebuild()
        if self._first_table:
            operations.insert(0, self._of_earlier_epoch(table.continues))
        self._first_table = False
        return operations

    def _take_out_moved(self, table: UnitTable) -> list[Operation]:
        """Take out the units whose neuron a whole table lists under another index; its rows bring them back.

        A whole table is a set: two units may swap their ids in it, and row by row each id would be taken still. The id
        is the neuron, so what was gathered under an index is of another one than what will be, and is forgotten.
        An index that gets an id never seen, while its old id is gone, is a renaming and keeps everything.
        """
        ids = set(table.unit_ids)
        moved = []
        for row, index in enumerate(table.index.tolist()):
            unit, unit_id = self._units.get(index), table.unit_ids[row]
            if unit is None or table.action[row] != UnitAction.ADD or unit.unit_id == unit_id:
                continue
            if unit.unit_id in ids or unit_id in self._index_of:
                moved.append(index)
        for index in moved:
            del self._index_of[self._units.pop(index).unit_id]
        return [Operation("forget", source=index) for index in moved]

    def _of_earlier_epoch(self, continues: bool) -> Operation:
        kept = {}
        if continues:
            kept = {self._earlier[u.unit_id]: i for i, u in self._units.items() if u.unit_id in self._earlier}
        self._earlier = {}
        return Operation("keep", index_of=kept)

    def _apply_row(self, table: UnitTable, row: int, added_bin: int, counters: Counter[str]) -> list[Operation]:
        index, action = int(table.index[row]), int(table.action[row])
        if action == UnitAction.ADD:
            return self._add(table, row, added_bin, counters)
        if index not in self._units:
            if action == UnitAction.MERGE and table.full:
                self._learn_alias(index, int(table.into[row]), counters)
            else:
                counters["table_rows_rejected"] += 1
        elif action == UnitAction.RETIRE:
            return self._retire(index)
        elif action == UnitAction.MERGE:
            return self._merge(index, int(table.into[row]), counters)
        elif action == UnitAction.RENAME:
            self._rename(index, table.unit_ids[row], counters)
        elif action == UnitAction.RESET:
            self._units[index].added_bin = added_bin
            return [Operation("forget", source=index)]
        return []

    def _add(self, table: UnitTable, row: int, added_bin: int, counters: Counter[str]) -> list[Operation]:
        index, unit_id = int(table.index[row]), table.unit_ids[row]
        known = self._units.get(index)
        taken = self._index_of.get(unit_id, index) != index
        full = known is None and len(self._units) >= self.max_units
        if taken or full or index >= MAX_INDEX or self._is_retired(index) or not unit_id:
            counters["units_over_maximum" if full else "table_rows_rejected"] += 1
            return []
        if known is not None:
            del self._index_of[known.unit_id]
        self._index_of[unit_id] = index
        self._units[index] = _Unit(
            unit_id=unit_id,
            added_bin=known.added_bin if known else added_bin,
            shank=int(table.shank[row]),
            x_um=float(table.x_um[row]),
            depth_um=float(table.depth_um[row]),
            channel=int(table.channel[row]),
        )
        return []

    def _retire(self, index: int) -> list[Operation]:
        del self._index_of[self._units.pop(index).unit_id]
        self._retired.add(index, index + 1)
        return [Operation("forget", source=index)]

    def _is_retired(self, index: int) -> bool:
        return self._retired.inside(index, index + 1) > 0

    def _merge(self, source: int, target: int, counters: Counter[str]) -> list[Operation]:
        if target == source or target not in self._units:
            counters["table_rows_rejected"] += 1
            return []
        # the older of both decides: the sum of their counts is that of one unit that was there all along
        self._units[target].added_bin = min(self._units[target].added_bin, self._units[source].added_bin)
        del self._index_of[self._units.pop(source).unit_id]
        self._retired.add(source, source + 1)
        self._alias[source] = target
        return [Operation("merge", source=source, target=target)]

    def _learn_alias(self, source: int, target: int, counters: Counter[str]) -> None:
        """Take from a whole table that `source` was merged before: a daemon that was started since does not know.

        There is nothing to add up then, but spikes may still carry the index.
        """
        if source in self._alias:
            return
        if target not in self._units or source >= MAX_INDEX:
            counters["table_rows_rejected"] += 1
            return
        self._retired.add(source, source + 1)
        self._alias[source] = target

    def _rename(self, index: int, unit_id: str, counters: Counter[str]) -> None:
        if not unit_id or self._index_of.get(unit_id, index) != index:
            counters["table_rows_rejected"] += 1
            return
        del self._index_of[self._units[index].unit_id]
        self._index_of[unit_id] = index
        self._units[index].unit_id = unit_id

    def dump(self) -> dict[str, Any]:
        """Return a copy of everything but the maximum, for `load`."""
        return {
            "earlier": dict(self._earlier),
            "units": [[index, dict(vars(unit))] for index, unit in self._units.items()],
            "version": self.version,
            "first_table": self._first_table,
            "alias": list(self._alias.items()),
            "retired": self._retired.dump(),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Become what `dump` returned."""
        self._earlier = dict(saved["earlier"])
        self._units = {index: _Unit(**unit) for index, unit in saved["units"]}
        self._index_of = {unit.unit_id: index for index, unit in self._units.items()}
        self.version, self._first_table = saved["version"], saved["first_table"]
        self._alias = dict(saved["alias"])
        self._retired.load(saved["retired"])
        self._rebuild()

    def _rebuild(self) -> None:
        living = sorted(self._units)
        self.index: Int64Array = np.array(living, dtype=np.int64)
        self.ids = tuple(self._units[i].unit_id for i in living)
        self.added_bin: Int64Array = np.array([self._units[i].added_bin for i in living], dtype=np.int64)
        # one entry more than the largest index: whatever lies beyond is looked up there, and unknown
        known = [*living, *self._alias, *self._alias.values()]  # the last: what was merged into may be gone
        self._row_of: Int64Array = np.full(max(known, default=-1) + 2, -1, dtype=np.int64)
        self._row_of[self.index] = np.arange(len(living))
        for old, new in reversed(self._alias.items()):  # the last first: what `old` went into may have gone on itself
            self._row_of[old] = self._row_of[new]
        self._alias = {old: new for old, new in self._alias.items() if self._row_of[old] >= 0}


def _later(added_bin: int, now_bin: int | None) -> int:
    return added_bin if now_bin is None else max(added_bin, now_bin)
