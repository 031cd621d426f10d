"""The result files that pages read: nested evaluation, comparison methods, units of another kind.

Everything that a nested evaluation chooses is chosen again inside the training animals of every fold, so that no row
was selected by its own score. Fields that no page shows are ignored; missing ones are an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from offline_training.reporting.files import ResultsError, read_json

WHOLE = "all"
"""The time observed that stands for the whole recording."""

Role = Literal["shipped", "predictor", "floor", "plain", "comparison"]
INDUCTIVE = "inductive zero-shot"
"""The setting in which nothing of the tested animals was seen, as in a live recording."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class AnimalScores(_Part):
    """Scores of the units of one animal; precision is None where nothing was called a class."""

    units: int
    macro_f1: float
    ece: float | None = None
    called: float | None = None
    precision: float | None = None


class Difference(_Part):
    """Macro-F1 of the shipped row minus that of the floor on the same units, with an interval over animals."""

    macro_f1: float
    interval: tuple[float, float]


class Scores(_Part):
    """Scores of one row after one time observed, predictions of all test animals pooled.

    `called` is the share of units whose top probability reaches the threshold of abstention, `precision` the share of
    those that are right. `curve` holds (threshold, called, precision), `confusion` units by true and predicted class.
    """

    units: int
    macro_f1: float
    macro_f1_interval: tuple[float, float] | None = None
    balanced_accuracy: float | None
    ece: float | None = None
    called: float | None = None
    precision: float | None = None
    over_floor: Difference | None = None
    per_animal: dict[str, AnimalScores]
    curve: list[tuple[float, float, float | None]] = []
    confusion: list[list[float]] = []


class Row(_Part):
    """One way to predict: the pool of the product, one feature set alone, or a simpler method; scores by time."""

    row: str
    role: Role
    seconds: dict[str, Scores]


class Task(_Part):
    """One question: its classes, those that count as truth, and rows of which one is shipped, at most one the floor."""

    classes: list[str]
    scored: list[str]
    rows: list[Row]

    @model_validator(mode="after")
    def _one_row_is_shipped(self) -> Task:
        roles = [row.role for row in self.rows]
        if roles.count("shipped") != 1 or roles.count("floor") > 1:
            raise ValueError(f"one row must be shipped and at most one the floor; roles: {', '.join(roles)}")
        if any(WHOLE not in row.seconds for row in self.rows):
            raise ValueError(f"every row needs scores of the whole recording ({WHOLE!r})")
        return self

    @property
    def shipped(self) -> Row:
        """The row of what the product does."""
        return next(row for row in self.rows if row.role == "shipped")

    @property
    def floor(self) -> Row | None:
        """The row of plain spike statistics with neighbours, where it was scored."""
        return next((row for row in self.rows if row.role == "floor"), None)


class Fold(_Part):
    """Animals that were tested, how many were trained on, what of the tested ones was seen, and per task what was
    chosen inside the training animals."""

    test: list[str]
    train_animals: int
    setting: str
    chosen: dict[str, dict[str, Any]] = {}


class Nested(_Part):
    """One nested.json: a data set, how it was split, and the scores of every task."""

    format: Literal[3]
    name: str
    kind: str
    command: str
    machine: str
    versions: dict[str, str]
    seed: int
    window_s: float
    hop_s: float
    protocol: str
    folds: list[Fold]
    tasks: dict[str, Task]

    @property
    def animals(self) -> list[str]:
        """The animals that were tested, in the order of the folds."""
        return [animal for fold in self.folds for animal in fold.test]

    @property
    def setting(self) -> str:
        """What the scores may be called: the settings of all folds."""
        return " and ".join(sorted({fold.setting for fold in self.folds}))


class ComparisonScores(_Part):
    """Scores of a comparison method after one time observed; with several seeds the mean, and the range over them."""

    units: int
    macro_f1: float
    macro_f1_interval: tuple[float, float] | None = None
    macro_f1_range: tuple[float, float] | None = None
    balanced_accuracy: float | None


class Budget(_Part):
    """What the training of a method took, all folds together."""

    cpu_s: float


class ComparisonRow(_Part):
    """One comparison method; `setting` is what it knew of the tested animals."""

    row: str
    role: Literal["comparison"]
    setting: str
    seeds: list[int] = []
    budget: Budget | None = None
    seconds: dict[str, ComparisonScores]


class ComparisonTask(_Part):
    """Classes that count as truth, and the methods."""

    scored: list[str]
    rows: list[ComparisonRow]


class Comparison(_Part):
    """One comparison.json: re-implemented methods of others on the same data."""

    format: Literal[3]
    protocol: str
    command: str
    machine: str
    folds: list[Fold]
    tasks: dict[str, ComparisonTask]


class ForeignRow(_Part):
    """Units of some kind given to a bundle: the share called a class, the share flagged as unlike training."""

    bundle: str
    units_of: str
    units: int
    task: str
    called: float | None = None
    flagged: float | None = None


class OutOfDistribution(_Part):
    """out_of_distribution.json."""

    rows: list[ForeignRow]


Document = TypeVar("Document", Nested, Comparison, OutOfDistribution)


def load(kind: type[Document], path: Path) -> Document:
    """Read one result file. Raises ResultsError naming file and field."""
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ResultsError(f"{path}: {field}: {first['msg']}; write it anew with `nuclr-train evaluate`") from error
