"""How a kernel is compiled; arrays have the types of this page, so that each is compiled once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Index: TypeAlias = int | np.signedinteger[Any]
"""A row, a channel or a unit: 64 bits wherever it is computed with."""
F = TypeVar("F", bound=Callable[..., Any])

FAST = {"contract", "reassoc", "nsz"}
"""Sums may be reordered, so that they run over several channels at once; NaN and infinity keep their meaning."""


def compiled(function: F) -> F:
    """Return `function` compiled, with the types that it has in Python."""
    return cast(F, numba.njit(cache=True, fastmath=FAST)(function))


def inner(function: F) -> F:
    """The same for what only compiled code calls: without the ways in from Python, which take long to compile."""
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # not in numba's types
    return cast(F, numba.njit(cache=True, fastmath=FAST, **options)(function))
