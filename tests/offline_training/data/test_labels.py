"""Labels: which units are scored, as which class, and which classes can be tested on an unseen animal."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from nuclr_stream.recordings.recording import Recording
from offline_training.config import UNLABELLED, TaskSettings
from offline_training.data.labels import LabelError, class_subjects, task_labels, transferable_classes

REGION = TaskSettings(column="brain_region", classes={"STR": ("Str", "dStr"), "MC": ("M1",)})
WIDTH = TaskSettings(column="peak_to_trough_ms", classes={"narrow": (0.0, 0.35), "broad": (0.45, 10.0)}, min_spikes=0)


def recording(subject: str, spikes: list[int], **columns: list) -> Recording:
    rows = np.repeat(np.arange(len(spikes), dtype=np.int32), spikes)
    return Recording(
        recording_id=f"{subject}_a",
        subject_id=subject,
        sample_rate=Fraction(30000),
        num_samples=len(rows) + 1,
        spike_samples=np.arange(len(rows)),
        spike_units=rows,
        unit_ids=np.array([f"u{i}" for i in range(len(spikes))]),
        units={name: np.array(values) for name, values in columns.items()},
    )


def test_several_raw_values_make_one_class_and_foreign_values_are_context():
    one = recording("A", [100, 100, 100, 100], brain_region=["dStr", "M1", "Str", "V1"])
    assert task_labels("brain_region", REGION, [one])[0].tolist() == [0, 1, 0, UNLABELLED]


def test_a_unit_below_100_spikes_is_context():
    one = recording("A", [99, 100, 100], brain_region=["Str", "Str", "M1"])
    assert task_labels("brain_region", REGION, [one])[0].tolist() == [UNLABELLED, 0, 1]


def test_intervals_include_their_ends_and_nan_is_context():
    one = recording("A", [1] * 5, peak_to_trough_ms=[0.35, 0.40, 0.45, np.nan, 0.2])
    assert task_labels("waveform_class", WIDTH, [one])[0].tolist() == [0, UNLABELLED, 1, UNLABELLED, 0]


def test_a_recording_without_the_column_is_all_context():
    labels = task_labels(
        "brain_region", REGION, [recording("A", [100, 100], brain_region=["Str", "M1"]), recording("B", [100])]
    )
    assert labels[1].tolist() == [UNLABELLED]


def test_less_than_two_classes_is_rejected_with_what_was_found():
    with pytest.raises(LabelError, match=r"brain_region.*'brain_region'.*1 recordings: STR;"):
        task_labels("brain_region", REGION, [recording("A", [100, 100], brain_region=["Str", "Str"])])


def test_a_class_of_one_animal_cannot_be_tested():
    pairs = [("A", ["Str", "M1"]), ("A", ["Str", "M1"]), ("B", ["Str", "V1"])]
    recordings = [recording(subject, [100, 100], brain_region=regions) for subject, regions in pairs]
    labels = task_labels("brain_region", REGION, recordings)
    subjects = class_subjects(labels, [r.subject_id for r in recordings], REGION.names)
    assert subjects == {"STR": ["A", "B"], "MC": ["A"]}
    assert transferable_classes(subjects) == ["STR"]
