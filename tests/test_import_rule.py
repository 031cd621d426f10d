"""Who may import whom: rooms in order, the contract between packages, and a few libraries that live in one place each.

The rooms are listed ground first, as in docs/architecture.md: a room imports only rooms that are listed before it.
Commands are exempt from the rules between packages: `nuclr-train check-reference` takes the exported graph from
`exporters`, lazily inside its command, because a command is where the packages meet.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "nuclr_stream": (
        "errors",
        "config",
        "npz",
        "access",
        "sockets",
        "windows",
        "features",
        "wire",
        "recordings",
        "prediction",
        "bundle",
        "inference",
        "placement",
        "stream",
        "snapshots",
        "outputs",
        "rules",
        "notebook",
        "client",
        "daemon",
        "matching",
        "sources",
        "terminal",
        "dashboard",
        "commands",
        "__main__",
    ),
    "offline_training": (
        "config",
        "scores",
        "data",
        "simulation",
        "model",
        "pretraining",
        "readouts",
        "evaluation",
        "studies",
        "reporting",
        "commands",
    ),
}
FACE = ("", "notebook")
"""The package itself hands on `label`, lazily."""
CONTRACT = {"errors", "windows", "features", "recordings", "prediction", "bundle", "placement"}
"""Rooms of nuclr_stream that offline_training and exporters may take."""
EXPORTERS_MAY = {"config", "model", "pretraining", "readouts"}
"""Rooms of offline_training that exporters may take."""
ONLY_IN = {
    "zmq": (
        *("access", "sockets", "rules.sinks", "client", "daemon", "sources", "dashboard"),
        *("commands.bench", "commands.doctor"),
    ),
    "pylsl": ("sources",),
    "onnxruntime": ("inference", "commands.doctor"),
    "prometheus_client": ("daemon.metrics",),
    "numba": ("matching.kernels",),
    "starlette": ("dashboard",),
    "uvicorn": ("dashboard",),
    "websockets": ("dashboard",),
}
"""Libraries that only these rooms or modules of nuclr_stream import."""
HEAVY = ("torch", "onnx", "onnxscript", "sklearn", "numba", "offline_training", "exporters")
PACKAGES = ("nuclr_stream", "offline_training", "exporters")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DAEMON_SIDE = sorted((ROOT / "nuclr_stream").rglob("*.py"))


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


def room_of(module: str) -> str:
    """The room of a module, empty for the package itself: `nuclr_stream.wire.decode` -> `wire`."""
    return module.split(".")[1] if "." in module else ""


def is_command(module: str) -> bool:
    """Whether a module is where packages may meet: in a room of commands, or a package's cli."""
    return room_of(module) == "commands" or module.endswith(".cli")


def rejection(module: str, name: str) -> str:
    """Why `module` must not import `name`, or an empty string."""
    package, top = module.split(".")[0], name.split(".")[0]
    if top == package:
        return _order(package, room_of(module), room_of(name))
    if package == "nuclr_stream":
        return _of_the_daemons_side(module, top)
    if is_command(module):
        return ""
    if top == "nuclr_stream" and name != top and room_of(name) not in CONTRACT:
        return f"the contract is {sorted(CONTRACT)}"
    if (package, top) == ("offline_training", "exporters"):
        return "training does not know exporting"
    if (package, top) == ("exporters", "offline_training") and room_of(name) not in EXPORTERS_MAY:
        return f"exporters may import {sorted(EXPORTERS_MAY)}"
    return ""


def _order(package: str, room: str, other: str) -> str:
    rooms = ROOMS.get(package)
    if rooms is None or room == other or not other or (room, other) == FACE:
        return ""
    if room and rooms.index(other) < rooms.index(room):
        return ""
    return f"{other} is not before {room or package}"


def _of_the_daemons_side(module: str, top: str) -> str:
    places = ONLY_IN.get(top)
    if top in HEAVY and places is None:
        return "the daemon's side never knows training"
    inside = module.removeprefix("nuclr_stream.")
    if places is None or any(inside == place or inside.startswith(f"{place}.") for place in places):
        return ""
    return f"{top} lives in {', '.join(places)}"


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_every_file_is_in_a_room_of_the_list(package: str) -> None:
    found = {room_of(module) for module in MODULES if module.startswith(f"{package}.")}
    assert found <= set(ROOMS[package])


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    module = module_of(path)
    assert not {name: why for name in sorted(imported(path)) if (why := rejection(module, name))}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("nuclr_stream.stream.labeler", "torch"),
        ("nuclr_stream.stream.labeler", "zmq"),
        ("nuclr_stream.stream.labeler", "onnxruntime"),
        ("nuclr_stream.commands.label", "zmq"),
        ("nuclr_stream.daemon.daemon", "prometheus_client"),
        ("nuclr_stream.matching.matcher", "numba"),
        ("nuclr_stream.commands.cli", "offline_training.config"),
        ("nuclr_stream", "nuclr_stream.windows.binning"),
        ("nuclr_stream.windows.binning", "nuclr_stream.recordings.recording"),
        ("nuclr_stream.prediction.answer", "nuclr_stream.bundle.manifest"),
        ("offline_training.evaluation.evaluate", "nuclr_stream.stream.labeler"),
        ("offline_training.evaluation.evaluate", "exporters.export"),
        ("offline_training.pretraining.pretrain", "offline_training.readouts.embed"),
        ("offline_training.data.labels", "offline_training.model.encoder"),
        ("exporters.export", "offline_training.evaluation.evaluate"),
        ("exporters.export", "nuclr_stream.inference.model"),
    ],
)
def test_the_rule_notices_what_it_forbids(module: str, name: str) -> None:
    assert rejection(module, name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("nuclr_stream.commands.doctor", "onnxruntime"),
        ("nuclr_stream.commands.bench", "zmq"),
        ("nuclr_stream.daemon.metrics", "prometheus_client"),
        ("nuclr_stream.matching.kernels", "numba"),
        ("nuclr_stream.stream.labeler", "nuclr_stream.bundle.manifest"),
        ("nuclr_stream.stream.labeler", "nuclr_stream.stream.population"),
        ("offline_training.readouts.embed", "offline_training.pretraining.runs"),
        ("offline_training.commands.cli", "exporters.parity"),
        ("exporters.export", "nuclr_stream.bundle.manifest"),
        ("exporters.export", "offline_training.pretraining.runs"),
        ("exporters.cli", "nuclr_stream.wire"),
    ],
)
def test_the_rule_allows_what_it_is_for(module: str, name: str) -> None:
    assert not rejection(module, name)


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
    # matching.kernels is imported when a source of raw samples starts, and by nothing before
    late = ("nuclr_stream.__main__", "nuclr_stream.matching.kernels")
    modules = [module for module in map(module_of, DAEMON_SIDE) if not module.startswith(late)]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_settings_and_labels_come_without_torch() -> None:
    modules = sorted(name for name in MODULES if name.startswith("offline_training.") and _is_light(name))
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(*sorted({'torch', 'sklearn', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def _is_light(module: str) -> bool:
    """Rooms that a machine without torch can use; the numba kernel of the network waits until it is asked for."""
    return room_of(module) in ("config", "scores", "data", "simulation") and not module.endswith(".network_kernel")


def _file(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
