"""`nuclr-stream-faults`: the fault campaign of the source tree, which an installed package does not have."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Run `tests/faults` of the checkout that this package stands in; exit code 2 where there is none."""
    root = Path(__file__).parents[2]
    if not (root / "tests" / "faults" / "campaign.py").exists():
        print("nuclr-stream-faults: needs a source tree: git clone it and pip install -e '.[dev]'", file=sys.stderr)
        sys.exit(2)
    sys.path.insert(0, str(root))
    runpy.run_module("tests.faults.campaign", run_name="__main__")
