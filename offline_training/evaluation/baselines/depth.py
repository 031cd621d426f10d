"""Depth alone: a control that cheats, not a method.

Where region is an exact function of (animal, depth), region is a label of the probe's trajectory. A score that this
control reaches can come from where the probe was, and needs no activity.
Shapes: U units.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nuclr_stream.errors import RecordingError
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import Float32Array, WindowSpec
from offline_training.evaluation.baselines.single_unit import CountedSteps, IntArray, rate_steps

DEPTH = "depth_um"


def depth_steps(recording: Recording, spec: WindowSpec) -> CountedSteps:
    """The depth (U, 1) of every unit in um, whatever was observed; exposure counts as for the other features.

    Raises RecordingError where the recording has no finite depth for every unit.
    """
    depth = recording.units.get(DEPTH)
    if depth is None or not np.isfinite(depth).all():
        raise RecordingError(f"{recording.recording_id}: unit_{DEPTH} is missing or not finite; the control needs it")
    column = depth.astype(np.float32)[:, None]

    def finish(total: IntArray, seconds: float) -> Float32Array:
        return column

    return replace(rate_steps(recording, spec), name="depth", finish=finish)
