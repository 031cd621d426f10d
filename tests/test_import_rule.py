"""Who may import whom: the daemon's side never meets torch, and offline code shares only the contract with it."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nuclr_stream", "offline_training", "exporters")
CONTRACT = {
    f"nuclr_stream.{name}"
    for name in (
        "binning",
        "normaliser",
        "recording",
        "traces",
        "readers",
        "features",
        "intervals",
        "unit_rows",
        "exposure",
        "company",
        "observed",
        "predictors",
        "pool",
        "out_of_distribution",
        "placement",
        "trajectory",
        "bundle",
        "errors",
    )
}
EXPORTERS_MAY = {f"offline_training.{name}" for name in ("encoder", "loss", "readout", "predictor_readouts", "weights")}
ONLY_IN = {
    "zmq": {"daemon", "client", "sources", "dashboard", "bench", "doctor", "auth", "endpoints"},
    "onnxruntime": {"inference", "doctor"},
    "prometheus_client": {"metrics"},
}
HEAVY = ("torch", "onnx", "onnxscript", "sklearn", "offline_training", "exporters")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DAEMON_SIDE = sorted(path for path in (ROOT / "nuclr_stream").rglob("*.py"))


def module_of(path: Path) -> str:
    """Dotted name of a source file."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


@cache
def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it: names of our own down to the module, others to the top."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in full}
    return found


def is_command(path: Path) -> bool:
    return path.name == "cli.py" or path.name.endswith("_cli.py")


def exclusion(path: Path, name: str) -> str:
    """Why this file must not import that module, or an empty string."""
    package, top = path.relative_to(ROOT).parts[0], name.split(".")[0]
    if package == "nuclr_stream":
        place = path.relative_to(ROOT).parts[1].removesuffix(".py")
        if top in HEAVY:
            return "the daemon's side never knows training"
        return "" if place in ONLY_IN.get(top, {place}) else f"{top} lives in {sorted(ONLY_IN[top])}"
    if is_command(path):
        return ""
    if top == "nuclr_stream" and name != top and ".".join(name.split(".")[:2]) not in CONTRACT:
        return "only the contract is shared"
    if package == "offline_training" and top == "exporters":
        return "training does not know exporting"
    if package == "exporters" and top == "offline_training" and name not in EXPORTERS_MAY:
        return f"exporters may import {sorted(EXPORTERS_MAY)}"
    return ""


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    refused = {name: why for name in sorted(imported(path)) if (why := exclusion(path, name))}
    assert not refused


def test_the_rule_notices_what_it_forbids() -> None:
    labeler, evaluate = ROOT / "nuclr_stream" / "labeler.py", ROOT / "offline_training" / "evaluate.py"
    export = ROOT / "exporters" / "export.py"
    assert exclusion(labeler, "torch") and exclusion(labeler, "zmq") and exclusion(labeler, "onnxruntime")
    assert exclusion(evaluate, "nuclr_stream.stream.labeler") and exclusion(evaluate, "exporters.export")
    assert exclusion(export, "offline_training.pretraining.pretrain") and exclusion(
        export, "nuclr_stream.inference.model"
    )
    assert not exclusion(export, "nuclr_stream.bundle.manifest") and not exclusion(
        ROOT / "exporters" / "cli.py", "nuclr_stream.wire"
    )


@pytest.mark.parametrize("path", DAEMON_SIDE, ids=module_of)
def test_our_imports_make_no_circle(path: Path) -> None:
    """A file imports towards the ground: nothing that it imports leads back to it."""
    start, seen, open_ends = module_of(path), set[str](), {module_of(path)}
    while open_ends:
        module = open_ends.pop()
        for name in imported(_file(module)) & MODULES:
            assert name != start, f"{module} leads back to {start}"
            if name not in seen:
                seen.add(name)
                open_ends.add(name)


def test_the_daemons_side_loads_nothing_of_training() -> None:
    modules = [module_of(path) for path in DAEMON_SIDE if path.name != "__main__.py"]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def _file(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
