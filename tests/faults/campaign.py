"""Runs rows with seeds, writes what they found as JSON and docs/reliability.md from it.

`nuclr-stream-faults --size ci` takes minutes, `--size long` hours; the last line of stdout is JSON for programs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from tests.faults.report import write_page
from tests.faults.row import Row, Size
from tests.faults.rows import ROWS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "faults"


def run_row(row: Row, *, size: Size, seed: int) -> dict[str, Any]:
    """Try one row in a fresh folder; returns what is written about it. What the trial raises makes it fail."""
    start = time.monotonic()
    found: dict[str, Any] = {"id": row.id, "promise": row.promise, "bar": row.bar, "planted": row.planted}
    try:
        with tempfile.TemporaryDirectory(prefix=f"{row.id}_") as folder:
            outcome = row.run(seed, size, Path(folder))
        figures = outcome.figures | {"held": outcome.held, "planted_bug_caught": outcome.caught}
        passed = outcome.held and outcome.caught
    except Exception as error:  # a row that breaks has failed; the others go on
        traceback.print_exc()
        figures, passed = {"error": f"{type(error).__name__}: {error}"}, False
    return found | {
        "passed": passed,
        "figures": figures,
        "size": size,
        "seed": seed,
        "seconds": round(time.monotonic() - start, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows that were asked for; 0 when all of them passed."""
    parser = argparse.ArgumentParser(prog="nuclr-stream-faults", description=__doc__)
    parser.add_argument("--size", choices=get_args(Size), default="ci")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", nargs="*", metavar="ID", help="only these; see docs/reliability.md")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "reliability.md")
    asked = parser.parse_args(arguments)
    rows = [row for row in ROWS if asked.size in row.sizes and (asked.rows is None or row.id in asked.rows)]
    if unknown := set(asked.rows or ()) - {row.id for row in rows}:
        parser.error(f"no rows of size {asked.size}: {', '.join(sorted(unknown))}")
    results = list(_run(rows, asked.size, asked.seed, asked.out))
    write_page(asked.page, asked.out)
    shown = [{name: result[name] for name in ("id", "passed", "figures")} for result in results]
    print(json.dumps({"rows": shown}), flush=True)
    return 0 if all(result["passed"] for result in results) else 1


def _run(rows: Iterable[Row], size: Size, seed: int, out: Path) -> Iterable[dict[str, Any]]:
    out.mkdir(parents=True, exist_ok=True)
    for row in rows:
        load = os.getloadavg()[0]
        result = run_row(row, size=size, seed=seed) | {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "load_before": round(load, 1),
        }
        (out / f"{row.id}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{row.id:10} {'passed' if result['passed'] else 'FAILED'} {result['seconds']} s", file=sys.stderr)
        yield result


if __name__ == "__main__":
    sys.exit(main())
