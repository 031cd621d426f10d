"""The published evaluation: whole-recording means, scaler + multinomial logistic regression with C = 1, pooled folds.

The shipped readouts are fitted otherwise (see `readouts.task_model`): this is how the published figures came about. The
authors chose the checkpoint by validation macro-F1 with labels; here it is the last one. Shapes: U units, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from nuclr_stream.windows.binning import BoolArray, Float32Array, Int64Array
from offline_training.scores import balanced_accuracy, macro_f1
from offline_training.studies.reproduce.archive import ArchiveError, Balance
from offline_training.studies.reproduce.published import INDUCTIVE, TRANSDUCTIVE

TEST_SHARE = 0.2
SEED = 42
"""Of the split of units and of over-sampling, as in the authors' code."""

Fold = tuple[BoolArray, BoolArray]
"""Which units (U,) a readout is fitted on, and which it is tested on."""


@dataclass(frozen=True)
class LabelledUnits:
    """Units with a label: whole-recording mean embedding (U, D), class (U,), animal (U,)."""

    embedding: Float32Array
    label: Int64Array
    subject: npt.NDArray[np.str_]


def score(units: LabelledUnits, setting: str, held_out: Sequence[str], balance: Balance) -> dict[str, float | int]:
    """Macro-F1 and balanced accuracy over the pooled predictions of all folds, and how many units were tested.

    Classes are those that occur among the tested units. Raises ArchiveError when a setting has nothing to fit or test.
    """
    predicted = np.full(len(units.label), -1, dtype=np.int64)
    for train, test in folds(units, setting, held_out):
        if len(np.unique(units.label[train])) < 2 or not test.any():
            raise ArchiveError(f"{setting}: fewer than two classes to fit on, or no labelled unit to test")
        predicted[test] = _fit_predict(units, train, test, balance)
    tested = predicted >= 0
    present = np.unique(units.label[tested])
    pair = units.label[tested], predicted[tested]
    return {
        "macro_f1": round(macro_f1(*pair, present), 4),
        "balanced_accuracy": round(balanced_accuracy(*pair, present), 4),
        "units": int(tested.sum()),
    }


def folds(units: LabelledUnits, setting: str, held_out: Sequence[str]) -> list[Fold]:
    """How units are held out: a fifth of all of them, stratified; every animal in turn; or the held-out animals.

    Where no animal beyond the held-out ones has a label, each of those is tested by a readout of the others.
    """
    if setting == TRANSDUCTIVE:
        rows = np.arange(len(units.label))
        _, test_rows = train_test_split(rows, test_size=TEST_SHARE, random_state=SEED, stratify=units.label)
        test = np.isin(rows, test_rows)
        return [(~test, test)]
    outside = ~np.isin(units.subject, held_out)
    if setting == INDUCTIVE and outside.any():
        return [(outside, ~outside)]
    return [(units.subject != one, units.subject == one) for one in np.unique(units.subject)]


def _fit_predict(units: LabelledUnits, train: BoolArray, test: BoolArray, balance: Balance) -> Int64Array:
    rows = np.flatnonzero(train)
    if balance == "oversampling":
        rows = _oversampled(rows, units.label[rows])
    scaler = StandardScaler().fit(units.embedding[rows])
    weights = "balanced" if balance == "weights" else None
    model = LogisticRegression(C=1.0, max_iter=1000, solver="newton-cg", class_weight=weights)
    model.fit(scaler.transform(units.embedding[rows]), units.label[rows])
    predicted: Int64Array = model.predict(scaler.transform(units.embedding[test]))
    return predicted


def _oversampled(rows: Int64Array, label: Int64Array) -> Int64Array:
    """All rows, and of every rarer class random ones again until it has as many as the largest."""
    rng = np.random.default_rng(SEED)
    most = np.bincount(label).max()
    extra = [rng.choice(rows[label == one], most - (label == one).sum()) for one in np.unique(label)]
    return np.concatenate([rows, *extra])
