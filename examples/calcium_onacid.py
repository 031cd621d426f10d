"""CaImAn's OnACID into nuclr-stream while it runs: its units appear over time. An improv actor does the same.

OnACID keeps its traces in `estimates.C_on` (components, frames), of which the first `estimates.gnb` are background, and
`N` counts the units so far. Call `Forwarder.frame` after every `fit_next`, or from an improv actor's `runStep`:

    online = cnmf.online_cnmf.OnACID(params=params)
    online.initialize_online()
    with Forwarder(rate_hz=params.get("data", "fr")) as forwarder:
        for t, image in enumerate(images, start=online.params.get("online", "init_batch")):
            online.fit_next(t, image)
            forwarder.frame(online.estimates, online.N, t)

Neither CaImAn nor improv is imported here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nuclr_stream.client import Publisher


class Forwarder:
    """Sends the traces of the units that OnACID has found so far."""

    def __init__(self, *, rate_hz: float, endpoint: str = "tcp://127.0.0.1:5581", first_frame: int = 0) -> None:
        self._rig = Publisher(endpoint, stream="onacid", sample_rate=rate_hz, start=first_frame, wait_s=1.0)
        self._index = self._rig.units([])

    def frame(self, estimates: Any, units: int, t: int) -> None:
        """Send frame `t` of all units; frames in between that never came are missing, not zero."""
        if units != len(self._index):  # OnACID appends units and never renumbers them while it runs
            self._index = self._rig.units([f"component{row}" for row in range(units)])
        if t > self._rig.watermark:
            self._rig.skip(t)
        background = estimates.gnb
        self._rig.traces(np.asarray(estimates.C_on[background : background + units, t])[:, None], self._index)

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *exception: object) -> None:
        self._rig.end()
        self._rig.close()
