"""`sample_rate` of a phy folder's params.py, which is parsed and never executed."""

from __future__ import annotations

import ast
import re

from nuclr_stream.errors import RecordingError

_LINE = re.compile(r"^\s*sample_rate\s*=\s*([0-9][0-9_.eE+]*)\s*(?:#.*)?$", re.MULTILINE)
_CASTS = ("float", "int", "float64", "float32", "int64", "int32")


def sample_rate_in(text: str, where: str, notes: list[str]) -> float:
    """The number that is assigned to sample_rate, also in a file that is no valid Python for another line.

    Raises RecordingError naming the file and what it says instead of a number.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = _LINE.search(text)
        if line is None:
            raise RecordingError(
                f"{where}: not readable as assignments ({error}), nor has it a line sample_rate = NUMBER; write one"
            ) from error
        notes.append(
            f"{where}: is no valid Python ({error}); sample_rate is read from its line all the same (a Windows path "
            "needs "
            "an r before it: r'C:\\...')"
        )
        return float(line.group(1))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["sample_rate"]:
            value = _number(node.value)
            if value is not None:
                return value
            raise RecordingError(
                f"{where}: field sample_rate is {ast.unparse(node.value)[:80]!r}; params.py is not executed: "
                "write a number"
            )
    raise RecordingError(f"{where}: field sample_rate is missing; add the line sample_rate = 30000. with your rate")


def _number(node: ast.expr) -> float | None:
    """A literal number, also one that numpy wrote as np.float64(30000.0)."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return _number(node.args[0]) if name in _CASTS and isinstance(node.args[0], ast.Constant) else None
    value = node.value if isinstance(node, ast.Constant) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
