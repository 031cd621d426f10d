"""Numbers of the network simulation: cells, connections and drives of five regions along two probe tracks.

Textbook values, written down from memory and tuned in four rounds until simple features of single cells separate the
classes only in part. "E" stands for the principal cell of a region; in STR that is the inhibitory medium spiny neuron.
"""

from __future__ import annotations

from dataclasses import dataclass

REGIONS = ("VIS", "CA1", "DG", "TH", "STR")
CLASSES = ("E", "PV", "SST", "VIP")
TRACKS = (("VIS", "CA1", "DG", "TH"), ("VIS", "STR", "TH"))
"""Regions that a probe may pass, from the surface down."""
STIMULATED = ("VIS", "TH", "STR")
RHYTHMIC_BY_THETA = ("CA1", "DG")

# Cells. Voltages in mV, times in ms; `subthreshold` and `per_spike` scale the adaptation current (leak units, mV),
# `calcium` the low-threshold current.
CELL: dict[str, dict[str, float]] = {
    "E": {
        **{"rest_mv": -70, "threshold_mv": -50, "slope_mv": 1.8, "reset_mv": -58, "membrane_ms": 18},
        **{"subthreshold": 0.05, "per_spike": 3.0, "adaptation_ms": 150, "refractory_ms": 2.5},
        **{"excitation_ms": 3.5, "noise_mv": 4.2, "noise_ms": 6},
    },
    "PV": {
        **{"rest_mv": -69, "threshold_mv": -50, "slope_mv": 1.0, "reset_mv": -62, "membrane_ms": 9},
        **{"subthreshold": 0.0, "per_spike": 0.4, "adaptation_ms": 60, "refractory_ms": 1.2},
        **{"excitation_ms": 2.0, "noise_mv": 4.6, "noise_ms": 4},
    },
    "SST": {
        **{"rest_mv": -65, "threshold_mv": -50, "slope_mv": 1.5, "reset_mv": -58, "membrane_ms": 20},
        **{"subthreshold": 0.10, "per_spike": 1.4, "adaptation_ms": 120, "refractory_ms": 1.8},
        **{"excitation_ms": 3.5, "noise_mv": 4.3, "noise_ms": 7},
    },
    "VIP": {
        **{"rest_mv": -67, "threshold_mv": -50, "slope_mv": 1.5, "reset_mv": -58, "membrane_ms": 15},
        **{"subthreshold": 0.05, "per_spike": 1.6, "adaptation_ms": 80, "refractory_ms": 2.0},
        **{"excitation_ms": 3.0, "noise_mv": 4.2, "noise_ms": 6},
    },
}
PRINCIPAL: dict[str, dict[str, float]] = {
    "VIS": {},
    # complex-spike bursts
    "CA1": {
        **{"reset_mv": -49.0, "per_spike": 2.8, "adaptation_ms": 60, "membrane_ms": 16},
        **{"rest_mv": -68, "refractory_ms": 2.2},
    },
    # sparse, hyperpolarised
    "DG": {"rest_mv": -76, "membrane_ms": 20, "per_spike": 5.0, "adaptation_ms": 180},
    # rebound bursts of the low-threshold calcium current
    "TH": {"rest_mv": -67, "membrane_ms": 14, "per_spike": 1.2, "adaptation_ms": 90, "calcium": 0.36},
    # medium spiny neurons
    "STR": {
        **{"rest_mv": -78, "threshold_mv": -48, "membrane_ms": 12},
        **{"per_spike": 2.5, "adaptation_ms": 160, "refractory_ms": 3.0},
    },
}
"""What is different about the principal cells of a region."""
PARAMETERS = (
    *("rest_mv", "threshold_mv", "slope_mv", "reset_mv", "membrane_ms", "subthreshold", "per_spike"),
    *("adaptation_ms", "refractory_ms", "calcium", "excitation_ms", "noise_mv", "noise_ms"),
)
"""The order in which they are drawn."""
LOG_SD = {
    **{"membrane_ms": 0.25, "subthreshold": 0.5, "per_spike": 0.5, "adaptation_ms": 0.4, "refractory_ms": 0.3},
    **{"excitation_ms": 0.2, "noise_mv": 0.22, "noise_ms": 0.3, "slope_mv": 0.25},
}
"""Spread between the cells of one class, for those that scale."""
SD_MV = {"reset_mv": 1.8, "rest_mv": 1.5, "threshold_mv": 1.0}
"""The same for those that shift."""

# Populations. Interneurons are enriched about twofold over anatomy, so that every session holds some.
NEURONS = {"VIS": 480, "CA1": 400, "DG": 400, "TH": 420, "STR": 420}
FRACTION = {
    "VIS": (0.66, 0.13, 0.11, 0.10),
    "CA1": (0.67, 0.14, 0.12, 0.07),
    "DG": (0.69, 0.12, 0.12, 0.07),
    "TH": (0.70, 0.16, 0.08, 0.06),
    "STR": (0.68, 0.15, 0.11, 0.06),
}
"""Shares of CLASSES."""
THICKNESS_UM = {"VIS": (800, 1100), "CA1": (350, 600), "DG": (450, 800), "TH": (800, 1400), "STR": (900, 1600)}
RATE_HZ = {
    "VIS": (3.8, 9.0, 5.0, 4.2),
    "CA1": (2.0, 9.0, 4.5, 4.0),
    "DG": (1.1, 6.0, 3.5, 2.8),
    "TH": (7.5, 13.0, 6.5, 5.0),
    "STR": (1.3, 7.5, 4.5, 3.8),
}
"""Set points of the mean rates of CLASSES, before they vary between animals and groups."""

# Connections: probability at zero distance and conductance step in units of the leak, by class before and after.
PROBABILITY = {
    "E": {"E": 0.14, "PV": 0.40, "SST": 0.30, "VIP": 0.22},
    "PV": {"E": 0.50, "PV": 0.45, "SST": 0.06, "VIP": 0.06},
    "SST": {"E": 0.45, "PV": 0.35, "SST": 0.03, "VIP": 0.50},
    "VIP": {"E": 0.05, "PV": 0.06, "SST": 0.55, "VIP": 0.03},
}
CONDUCTANCE = {
    "E": {"E": 0.050, "PV": 0.130, "SST": 0.200, "VIP": 0.080},
    "PV": {"E": 0.26, "PV": 0.22, "SST": 0.08, "VIP": 0.08},
    "SST": {"E": 0.16, "PV": 0.14, "SST": 0.08, "VIP": 0.26},
    "VIP": {"E": 0.05, "PV": 0.06, "SST": 0.34, "VIP": 0.06},
}


@dataclass(frozen=True)
class Motif:
    """How a region scales connections: within E, from E to interneurons, from PV and SST to E, from VIP to SST."""

    e_to_e: float
    e_to_interneurons: float
    pv_to_e: float
    sst_to_e: float
    vip_to_sst: float


MOTIF = {
    "VIS": Motif(1.0, 1.0, 1.0, 1.0, 1.0),
    "CA1": Motif(0.25, 1.2, 1.1, 1.1, 0.8),
    "DG": Motif(0.0, 1.4, 1.4, 1.3, 0.7),
    "TH": Motif(0.0, 1.1, 1.3, 0.7, 0.4),
    "STR": Motif(0.0, 0.0, 1.3, 0.9, 0.5),
}
STRIATAL_COLLATERAL = (0.05, 0.12)
"""Conductance and probability between medium spiny neurons, which reach no interneuron."""
PROJECTIONS = (
    ("TH", "VIS", 0.06, 0.06, 0.10, 0.02),
    ("VIS", "TH", 0.05, 0.04, 0.06, 0.02),
    ("DG", "CA1", 0.04, 0.06, 0.10, 0.04),
    ("CA1", "VIS", 0.02, 0.03, 0.05, 0.03),
    ("VIS", "CA1", 0.02, 0.03, 0.06, 0.03),
    ("VIS", "STR", 0.08, 0.07, 0.09, 0.04),
    ("TH", "STR", 0.06, 0.05, 0.06, 0.03),
    ("VIS", "DG", 0.02, 0.03, 0.05, 0.03),
)
"""From region, to region, probability, and the conductance step onto E, PV, and the others."""

# Drives: how far each moves a cell, in mV by region, times a factor by class.
DRIVE = {
    "VIS": {"fast": 0.9, "slow": 1.3, "local": 1.0, "rhythm": 1.6, "event": 0.0, "stimulus": 2.4, "arousal": 0.5},
    "CA1": {"fast": 0.8, "slow": 0.7, "local": 0.8, "rhythm": 1.7, "event": 3.0, "stimulus": 0.2, "arousal": 0.3},
    "DG": {"fast": 1.0, "slow": 0.9, "local": 1.0, "rhythm": 1.3, "event": 2.4, "stimulus": 0.2, "arousal": 0.3},
    "TH": {"fast": 0.8, "slow": 0.9, "local": 0.8, "rhythm": 1.2, "event": 0.0, "stimulus": 2.2, "arousal": 0.8},
    "STR": {"fast": 0.7, "slow": 1.5, "local": 1.1, "rhythm": 1.0, "event": 1.2, "stimulus": 0.7, "arousal": 0.6},
}
CLASS_DRIVE = {
    "E": {
        **{"fast": 1.0, "slow": 1.0, "local": 1.0, "rhythm": 1.0, "event": 1.0, "stimulus": 1.0},
        **{"arousal": 0.4, "running": 0.3, "top_down": 0.1},
    },
    "PV": {
        **{"fast": 0.9, "slow": 0.6, "local": 0.8, "rhythm": 0.9, "event": 1.0, "stimulus": 1.0},
        **{"arousal": 0.2, "running": 0.2, "top_down": 0.1},
    },
    "SST": {
        **{"fast": 0.6, "slow": 0.6, "local": 0.6, "rhythm": 0.8, "event": 0.6, "stimulus": 0.2},
        **{"arousal": 0.2, "running": 0.3, "top_down": 0.2},
    },
    "VIP": {
        **{"fast": 0.5, "slow": 0.6, "local": 0.5, "rhythm": 0.7, "event": 0.5, "stimulus": 0.3},
        **{"arousal": 0.9, "running": 1.1, "top_down": 1.0},
    },
}
FAST_MS = {"VIS": 25, "CA1": 18, "DG": 14, "TH": 35, "STR": 45}
SLOW_MS = {"VIS": 350, "CA1": 250, "DG": 600, "TH": 450, "STR": 900}
EVENTS = {"VIS": (0.0, 50.0), "CA1": (0.7, 22.0), "DG": (0.6, 12.0), "TH": (0.0, 50.0), "STR": (0.25, 140.0)}
"""Population events (ripples, dentate spikes, striatal bouts): rate in Hz while aroused least, and width in ms."""
STIMULUS_DELAY_MS = {"TH": 26.0, "VIS": 42.0, "STR": 70.0}
THETA_PHASE_DEG = {"E": 20, "PV": 290, "SST": 30, "VIP": 150}
"""Preferred phase of the hippocampal rhythm, from the pyramidal layer's peak."""
OTHER_PHASE_DEG = {"E": 0, "PV": 15, "SST": 40, "VIP": 0}

# Spread between animals, as standard deviations of logarithms.
GAIN_LOG_SD = {
    **{"e_to_e": 0.15, "e_to_interneurons": 0.2, "pv_to_e": 0.2, "sst_to_e": 0.25, "vip_to_sst": 0.25},
    **{"sst_to_vip": 0.25, "noise": 0.1, "fast": 0.3, "slow": 0.3, "local": 0.3, "rhythm": 0.4, "event": 0.35},
    **{"stimulus": 0.35, "arousal": 0.35, "rate": 0.18, "spread": 0.12},
}
"""In the order in which they are drawn."""
