"""`nuclr-stream source spikeglx`: raw samples of one probe from SpikeGLX's command server, matched to templates."""

from __future__ import annotations

from typing import Annotated

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
from nuclr_stream.sources.raw_samples import RawSamples
from nuclr_stream.sources.spikeglx import PORT, Device, SpikeGlxSource


def spikeglx(
    address: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="SpikeGLX's command server.")] = "127.0.0.1",
    to: To = DATA_ENDPOINT,
    probe: Annotated[int, typer.Option(min=0, help="Logical probe of the run.")] = 0,
    templates: TemplatesFolder = None,
    stream: Annotated[str, typer.Option(help="Name of the probe in the daemon; imec<probe> by default.")] = "",
    scale: Scale = None,
    highpass_hz: HighPass = None,
    reference: Reference = None,
) -> None:
    """Match the raw samples of a Neuropixels probe to the templates of an earlier sorting, live."""
    host, port = host_and_port(address, PORT)
    found = open_templates(templates, highpass_hz=highpass_hz, reference=reference)

    def make(device: Device) -> RawSamples:
        # an analyzer's templates are in uV, Kilosort's in the steps that SpikeGLX sends
        in_uv = found is not None and found.unit_of_samples == "uV"
        return RawSamples(
            to,
            stream=stream or f"imec{probe}",
            sample_rate=device.sample_rate,
            templates=found,
            positions_um=None if found is not None else device.geometry(),
            scale=scale if scale is not None else device.microvolts if in_uv else 1.0,
        )

    channels = None if found is None else found.channels
    run(SpikeGlxSource(host, port, probe=probe, make=make, channels=channels))
