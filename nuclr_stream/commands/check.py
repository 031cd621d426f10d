"""`nuclr-stream check`: a bundle verified on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from nuclr_stream.bundle.manifest import find_bundle, load_bundle
from nuclr_stream.commands.output import print_json
from nuclr_stream.inference.model import check_bundle


def check(bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A shipped name or a directory.")]) -> None:
    """Verify a bundle: every hash, and its sample window replayed on this machine."""
    loaded = load_bundle(find_bundle(bundle))
    differences = check_bundle(loaded)
    print_json({"bundle": loaded.bundle_id, "files": len(loaded.files), "max_abs": differences})
