"""The inner loops, compiled by numba: filters, reference, detection of troughs, and the peeling of spikes.

This is the only place of nuclr_stream that imports numba; `load_kernels` imports it when a stream starts. Compiled code
is kept beside the modules or in the user's cache directory. Traces are (T, C) float32, contiguous, in standard
deviations of the noise once detection begins: loops over channels run over neighbouring memory.
"""

from nuclr_stream.matching.kernels.filters import filter_backward, filter_forward, subtract_median
from nuclr_stream.matching.kernels.peeling import Dictionary, Limits, Spikes, find_troughs, peel, restore

__all__ = [
    "Dictionary",
    "Limits",
    "Spikes",
    "filter_backward",
    "filter_forward",
    "find_troughs",
    "peel",
    "restore",
    "subtract_median",
]
