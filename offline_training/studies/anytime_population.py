"""The same units in smaller populations: a recording is dealt into parts, each of which is embedded by itself.

One shuffle of the units deals them; every unit is asked once at every size, in a part that others fill up where units
run short. Parts know nothing of one another, so context, company, and neighbours along depth are those of a small
population, and so are stretches in which it is silent, which a window with such a stretch is refused for.
Shapes: U units of a recording, M of a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import Int64Array, WindowRules, WindowSpec
from offline_training.data.membership import only_units
from offline_training.evaluation.predictions import places
from offline_training.readouts.embed import Encode, embed_recording
from offline_training.readouts.feature_source import FeatureSource
from offline_training.studies.anytime_voices import Heard

SEED = 0
NOT_ASKED = -1

Part = tuple[Heard, Int64Array]
"""What was gathered of a part, and which unit of the recording (M,) is asked in each of its rows, or NOT_ASKED."""


def deal(units: int, size: int, *, seed: int = SEED) -> Iterator[tuple[Int64Array, Int64Array]]:
    """Parts of `size` out of so many units, at least as many: the members (M,), ascending, and who of them is asked,
    NOT_ASKED in place of the others."""
    shuffled = np.random.default_rng(seed).permutation(units)
    for start in range(0, units, size):
        own = shuffled[start : start + size]
        members = np.sort(np.concatenate([own, shuffled[: size - len(own)]]))
        yield members, np.where(np.isin(members, own), members, NOT_ASKED)


def heard_in_parts(
    recording: AnyRecording,
    encode: Encode,
    spec: WindowSpec,
    *,
    rules: WindowRules,
    size: int,
    seconds: Sequence[float],
) -> Iterator[Part]:
    """The recording in parts of `size` units, after so many seconds, each enough for a window."""
    for members, asked in deal(len(recording.unit_ids), size):
        part = only_units(recording, np.isin(np.arange(len(recording.unit_ids)), members))
        assert part is not None
        embedded = embed_recording(encode, part, spec, rules)
        if not embedded.embedded.any():  # nobody fired: no embedding has stated how wide they are
            dim = encode(np.zeros((1, 1, spec.bins), np.float32), np.ones((1, 1), dtype=bool)).shape[2]
            embedded = replace(embedded, embeddings=np.zeros((*embedded.embedded.shape, dim), np.float32))
        source = FeatureSource.of(embedded)
        steps = np.searchsorted(source.end_s, np.array(seconds) + 1e-9, side="right")
        yield Heard.of(source, places(part, np.ones(len(members), dtype=bool)), steps.tolist()), asked


def with_many_units(recordings: Sequence[AnyRecording], *, units: int, most: int) -> list[str]:
    """At most so many recordings, by id: the one with most units of every animal, those with most units of all, none
    that does not have more than `units`."""
    largest: dict[str, AnyRecording] = {}
    for recording in recordings:
        known = largest.setdefault(recording.subject_id, recording)
        if len(recording.unit_ids) > len(known.unit_ids):
            largest[recording.subject_id] = recording
    chosen = [recording for recording in largest.values() if len(recording.unit_ids) > units]
    chosen.sort(key=lambda recording: (-len(recording.unit_ids), recording.recording_id))
    return [recording.recording_id for recording in chosen[:most]]
