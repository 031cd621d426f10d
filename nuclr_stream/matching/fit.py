"""Whether the templates still fit what is recorded: a state with a reason, judged every few seconds.

Three things are bounded: the share of large troughs that fit no unit, how far along the probe spikes are detected from
where their templates are largest (drift), and how the noise compares with that of the sorting (a wrong gain, a dead
headstage). What is recorded while a bound is exceeded is declared as missing, never silently scored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nuclr_stream.matching.matcher import Matched
from nuclr_stream.matching.noise import Noise
from nuclr_stream.matching.templates import Float32Array, Templates

JUDGED_S = 5.0
"""A stretch of this length is judged as a whole."""
FEWEST = 50
"""Spikes or troughs below which a stretch is not judged: the judgement before it stands."""
MOST_UNASSIGNED = 0.4
MOST_DRIFT_UM = 12.0
MOST_NOISE_RATIO = 2.0


@dataclass
class FitMonitor:
    """Follows one stream: `take` what was matched, in order; `reason` is empty while the templates fit.

    `drift_um` is how far spikes were detected from the largest channels of their templates, in the last stretch that
    was judged, along the probe; `unassigned_share` is of its large troughs.
    """

    templates: Templates
    reason: str = ""
    drift_um: float = 0.0
    unassigned_share: float = 0.0
    _offsets: list[Float32Array] = field(default_factory=list)
    _spikes: int = 0
    _unassigned: int = 0
    _since: int | None = None

    def take(self, matched: Matched) -> bool:
        """Add a stretch; True when the judgement changed with it."""
        if self._since is not None and matched.start < self._since:
            self._begin(None)  # the sample number went back: what came before would never be complete
        depth = self.templates.positions_um[:, 1]
        home = self.templates.peak_channel[matched.units]
        self._offsets.append(depth[matched.channels] - depth[home])
        self._spikes += len(matched.samples)
        self._unassigned += matched.unassigned
        self._since = matched.start if self._since is None else self._since
        if matched.stop - self._since < JUDGED_S * float(self.templates.sample_rate):
            return False
        before = self.reason
        self._judge()
        self._begin(matched.stop)
        return self.reason != before

    def _begin(self, since: int | None) -> None:
        self._offsets, self._spikes, self._unassigned, self._since = [], 0, 0, since

    def _judge(self) -> None:
        if self._spikes + self._unassigned < FEWEST:
            return
        self.unassigned_share = self._unassigned / (self._spikes + self._unassigned)
        self.drift_um = float(np.concatenate(self._offsets).mean()) if self._spikes else 0.0
        if abs(self.drift_um) > MOST_DRIFT_UM:
            self.reason = (
                f"drift: spikes are {self.drift_um:+.0f} um from their templates along the probe; sort the last minutes"
            )
        elif self.unassigned_share > MOST_UNASSIGNED:
            self.reason = (
                f"unassigned: {self.unassigned_share:.0%} of the large troughs fit no template; sort the last minutes"
            )
        else:
            self.reason = ""


def unlike_the_sorting(templates: Templates, noise: Noise, *, scale: float) -> str:
    """Return why the noise of a stream is not that of the sorting's recording, or an empty string."""
    if templates.noise is None:
        return ""
    ratio = float(np.median(noise.sd) * scale / np.median(templates.noise))
    if 1 / MOST_NOISE_RATIO <= ratio <= MOST_NOISE_RATIO:
        return ""
    return (
        f"gain: the noise is {ratio:.3g} times that of the sorting {templates.source}; if its samples have another "
        f"unit, give --scale {scale / ratio:.3g}"
    )
