"""How troughs become spikes: every number of the matcher.

`threshold` was chosen on one simulated recording (32 channels, 12 s, seed 1), on which the mean accuracy over all units
was .896 at 3.0, .841 at 3.5 and .785 at 4.0. The others are first guesses that nothing was tried against.
"""

from __future__ import annotations

from dataclasses import dataclass

from nuclr_stream.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MatchingSettings:
    """Settings of a Matcher; times in ms, distances in um, depths in standard deviations of the noise.

    Args:
        threshold: a trough deeper than this is looked at.
        gain: a unit must explain this much of a trough's squared whitened features, in units of the noise's variance.
        misfit: what a unit leaves may exceed noise by this share of what it explains.
        least_amplitude, most_amplitude: how much smaller or larger than its template a spike may be.
        before_ms, after_ms: what of a template is compared, around its trough.
        components: temporal components of the reduced space.
        radius_um, most_channels: the neighbourhood that is whitened and compared, around a trough.
        exclusion_um, exclusion_ms: of the troughs this near to each other the deepest counts.
        shift_ms: how far a template is moved to fit.
        candidate_share: a unit is considered on channels where its trough is this share of its deepest one.
        refractory_ms: a unit does not fire again within this time.
        passes: how often the remainder is searched again.
        block_ms: samples are matched in blocks of this length, on a grid that does not depend on how they arrive.
        calibration_s: noise is measured on this much of the start of a stream.
    """

    threshold: float = 3.0
    gain: float = 25.0
    misfit: float = 0.4
    least_amplitude: float = 0.6
    most_amplitude: float = 1.6
    before_ms: float = 0.5
    after_ms: float = 0.9
    components: int = 5
    radius_um: float = 80.0
    most_channels: int = 20
    exclusion_um: float = 50.0
    exclusion_ms: float = 0.2
    shift_ms: float = 0.1
    candidate_share: float = 0.5
    refractory_ms: float = 0.7
    passes: int = 2
    block_ms: float = 10.0
    calibration_s: float = 2.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < float("inf"):
                raise ConfigError(f"matching setting {name} = {value}: give a number above 0")


DEFAULTS = MatchingSettings()
