"""`nuclr-stream source falcon`: raw samples from the Falcon Output plugin of Open Ephys, matched to templates."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

import numpy as np
import typer

from nuclr_stream.commands.source_raw import (
    HighPass,
    Reference,
    Scale,
    TemplatesFolder,
    host_and_port,
    open_templates,
)
from nuclr_stream.commands.source_running import To, run
from nuclr_stream.config import DATA_ENDPOINT
from nuclr_stream.errors import ConfigError
from nuclr_stream.sources.falcon import PORT, FalconSource
from nuclr_stream.sources.raw_samples import RawSamples


def falcon(
    address: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="Data port of the plugin.")] = "127.0.0.1",
    to: To = DATA_ENDPOINT,
    templates: TemplatesFolder = None,
    stream: Annotated[str, typer.Option(help="Name of the probe in the daemon; the data stream's by default.")] = "",
    scale: Scale = None,
    highpass_hz: HighPass = None,
    reference: Reference = None,
) -> None:
    """Match the raw samples of one data stream to the templates of an earlier sorting, live."""
    host, port = host_and_port(address, PORT)
    found = open_templates(templates, highpass_hz=highpass_hz, reference=reference)
    if found is not None and found.unit_of_samples == "raw" and scale is None:
        raise ConfigError(
            f"--templates {templates}: they are in steps of the recording, Falcon Output sends uV; give --scale, 1 / "
            "(uV a step): 5.128 where a step is 0.195 uV, 4.27 on Neuropixels 1.0 at gain 500"
        )

    def make(name: str, sample_rate: Fraction, channels: int) -> RawSamples:
        return RawSamples(
            to,
            stream=stream or name,
            sample_rate=sample_rate,
            templates=found,
            positions_um=np.full((channels, 2), np.nan, dtype=np.float32),  # Falcon Output names no places
            scale=1.0 if scale is None else scale,
        )

    run(FalconSource(host, port, make=make, channels=None if found is None else found.channels))
