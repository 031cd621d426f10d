"""What small numbers in arrays stand for."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class UnitAction(IntEnum):
    """What a row of a unit table does."""

    ADD = 0
    RETIRE = 1
    MERGE = 2
    RENAME = 3
    RESET = 4


class UnitFlag(IntFlag):
    """What to know about a unit's prediction: a bit field, 0 when there is nothing.

    SMALL_POPULATION: the population is smaller than the encoder was trained on, and every class is abstained from.
    SILENT: the unit did not enter this window, what stands behind its prediction are earlier ones.
    NEW: the unit has not existed for a whole window yet.
    OOD_EMBEDDING, OOD_STATISTICS, OOD_RATE: out of distribution, its embedding, spike statistics or firing rate are
    farther from those of training than the bundle's limit.
    UNSORTED: its spikes are those of more than one neuron, where training saw sorted units.
    OOD_POPULATION: its population as a whole is farther from the recordings of training than the bundle's limit.
    """

    SMALL_POPULATION = 1
    SILENT = 2
    NEW = 4
    OOD_EMBEDDING = 8
    OOD_STATISTICS = 16
    OOD_RATE = 32
    UNSORTED = 64
    OOD_POPULATION = 128

    @property
    def words(self) -> tuple[str, ...]:
        """The names of the bits that are set, in lower case; bits of later releases have none."""
        return tuple(str(bit.name).lower() for bit in type(self) if bit in self)


OOD_FLAGS = (
    UnitFlag.OOD_EMBEDDING | UnitFlag.OOD_STATISTICS | UnitFlag.OOD_RATE | UnitFlag.UNSORTED | UnitFlag.OOD_POPULATION
)
"""Flags of a unit that is out of distribution."""


class Abstained(IntEnum):
    """Why no class is named for a unit; NO where one is. Of several reasons the first of this list is given:

    NO_DATA: nothing has been gathered yet. NONFINITE: the readout gave no number. SMALL_POPULATION: the population
    is smaller than training saw. OUT_OF_DISTRIBUTION: the unit is unlike those of training, its flags say how.
    LOW_PROBABILITY: the top class is less probable than the bundle's threshold.
    """

    NO = 0
    NO_DATA = 1
    LOW_PROBABILITY = 2
    OUT_OF_DISTRIBUTION = 3
    SMALL_POPULATION = 4
    NONFINITE = 5

    @property
    def word(self) -> str:
        """The name in lower case, empty for NO."""
        return self.name.lower() if self else ""
