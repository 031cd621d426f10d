"""Online template matching: raw samples of a probe in, spikes of the units of an earlier sorting out, without I/O.

`templates` (and its readers `kilosort`, `analyzer`) is what was sorted before, `preprocessing` makes live samples like
those of the sorting, `noise` is measured at the start of a stream, `dictionary` is the templates as the matcher needs
them, `matcher` assigns spikes, `drift` judges whether the templates still fit, `crossings` is what can be had without
templates. `kernels` is compiled by numba when the first stream starts and is imported by nobody before.

Shapes: T samples, C channels, U units, S samples of a template, K temporal components, M channels of a neighbourhood.
"""
