"""Fields of a message's header: how each kind of plain value is checked, in both directions. And every bound."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from nuclr_stream.errors import WireError
from nuclr_stream.windows.binning import MAX_SAMPLE

PROTOCOL_VERSION = 1
"""What key `v` of every header says; a message that says something else is rejected."""
REASONS = ("frames", "kind", "version", "header", "size", "range", "text", "nonfinite")
"""Every `reason` that a WireError of this package can have; safe as a metric label."""

MAX_MESSAGE_BYTES = 2**20
"""A whole message of a source, and a request other than an embed_window."""
MAX_WINDOW_BYTES = 2**24
"""An embed_window request: 8192 units of 500 bins."""
MAX_REPLY_BYTES = 2**26
"""What a daemon publishes or answers."""
MAX_HEADER_BYTES = 2**14
MAX_FRAMES = 4096
MAX_INCOMING_FRAMES = 16
"""Of a message of a source or a request; only what a daemon answers has more."""
MAX_LIST = 64
MAX_TEXT_BYTES = 256
MAX_TOPIC_BYTES = MAX_TEXT_BYTES + 32
MAX_CAUSE_BYTES = 64
MAX_SPIKES = 65536
MAX_UNITS = 8192
MAX_TRACE_FRAMES = 65536
MAX_BINS = 65536
MAX_DIM = 8192
MAX_CLASSES = 1024
MAX_TASKS = 16
MAX_NS = 2**63 - 1

_CONTROL = re.compile(
    # C0, C1 and line separators; then what changes the order of the text around it or cannot be seen at all
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_fraction = lru_cache(maxsize=256)(Fraction)


class Field(NamedTuple):
    """One key of a header: `read` checks a plain value and returns the message's; `write` does the way back."""

    name: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]


def integer(name: str, low: int = 0, high: int = MAX_SAMPLE, reason: str = "range") -> Field:
    """Return a field that holds a whole number within [low, high]; True and False are none."""

    def read(value: Any) -> int:
        if type(value) is not int:
            raise mistyped(name, "an integer", value)
        if not low <= value <= high:
            raise WireError(reason, f"{name} is {value}, must be within {low} and {high}")
        return value

    return Field(name, read, _whole)


def sample(name: str) -> Field:
    """Return a field that holds a sample number."""
    return integer(name, -MAX_SAMPLE, MAX_SAMPLE)


def real(name: str, low: float = 0.0, high: float = math.inf) -> Field:
    """Return a field that holds a finite number within [low, high]."""

    def read(value: Any) -> float:
        if type(value) is not float and type(value) is not int:
            raise mistyped(name, "a number", value)
        if not math.isfinite(value):
            raise WireError("nonfinite", f"{name} is {value}")
        if not low <= value <= high:
            raise WireError("range", f"{name} is {value}, must be within {low} and {high}")
        return float(value)

    return Field(name, read, _real)


def flag(name: str) -> Field:
    """Return a field that is true or false."""

    def read(value: Any) -> bool:
        if type(value) is not bool:
            raise mistyped(name, "true or false", value)
        return value

    return Field(name, read, _same)


def rate(name: str) -> Field:
    """Return a field that holds a positive exact rate as [numerator, denominator]."""

    def read(value: Any) -> Fraction:
        if type(value) is not list or len(value) != 2 or type(value[0]) is not int or type(value[1]) is not int:
            raise mistyped(name, "[numerator, denominator], two integers", value)
        if not (0 < value[0] < 2**40 and 0 < value[1] <= 10**6):
            raise WireError("range", f"{name} is {value[0]}/{value[1]}")
        return _fraction(value[0], value[1])

    return Field(name, read, lambda value: [value.numerator, value.denominator])


def text(name: str, limit: int = MAX_TEXT_BYTES, low: int = 0) -> Field:
    """Return a field that holds text of `low` to `limit` bytes without control characters."""
    return Field(name, lambda value: short_text(value, name, limit, low), _same)


def detail(name: str = "detail") -> Field:
    """Return a field that holds words for people: made to fit when written, like any text when read."""
    return Field(name, text(name).read, _fitting)


def choice(name: str, allowed: Iterable[str]) -> Field:
    """Return a field that holds one of a few words."""
    words = frozenset(allowed)

    def read(value: Any) -> str:
        if type(value) is not str:
            raise mistyped(name, "text", value)
        if value not in words:
            raise WireError("range", f"{name} is none of {', '.join(sorted(words))}")
        return value

    return Field(name, read, _same)


def words(name: str) -> Field:
    """Return a field that holds a list of at most 64 short texts."""

    def read(value: Any) -> tuple[str, ...]:
        if type(value) is not list:
            raise mistyped(name, "a list", value)
        if len(value) > MAX_LIST:
            raise WireError("size", f"{name} has {len(value)} entries, at most {MAX_LIST} fit")
        return tuple([short_text(word, name, MAX_TEXT_BYTES, 1) for word in value])

    return Field(name, read, list)


def counters(name: str) -> Field:
    """Return a field that holds a map of at most 64 names to whole numbers >= 0."""
    number = integer(name, 0, MAX_NS)

    def read(value: Any) -> dict[str, int]:
        if type(value) is not dict:
            raise mistyped(name, "a map", value)
        if len(value) > MAX_LIST:
            raise WireError("size", f"{name} has {len(value)} entries, at most {MAX_LIST} fit")
        return {short_text(key, name, MAX_TEXT_BYTES, 1): number.read(count) for key, count in value.items()}

    return Field(name, read, lambda value: {key: _whole(count) for key, count in value.items()})


def short_text(value: Any, name: str, limit: int, low: int) -> str:
    """Return `value` if it is text of `low` to `limit` UTF-8 bytes without control characters."""
    if type(value) is not str:
        raise mistyped(name, "text", value)
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as error:
        raise WireError("text", f"{name} is not valid Unicode") from error
    if not low <= size <= limit:
        raise WireError("text", f"{name} has {size} bytes, must have {low} to {limit}")
    if not value.isprintable():
        reject_control(value, name)
    return value


def reject_control(value: str, name: str) -> None:
    """Raise WireError if `value` holds a control character, a line separator or a character that cannot be seen."""
    found = _CONTROL.search(value)
    if found:
        raise WireError("text", f"{name} holds the control character {found.group()!r}")


def mistyped(name: str, wanted: str, value: object) -> WireError:
    """Return the error for a value of the wrong type; says the type only, for the value may be anything."""
    return WireError("header", f"{name} must be {wanted}, got {type(value).__name__}")


def _same(value: Any) -> Any:
    return value


def _whole(value: Any) -> Any:
    # NumPy's integers become plain ones; True stays True, to be rejected like everything else that is no integer.
    return value if type(value) is bool else operator.index(value)


def _real(value: Any) -> Any:
    return value if isinstance(value, bool | str) else float(value)


def _fitting(value: str) -> str:
    clean = _CONTROL.sub(" ", value).encode(errors="replace")
    return clean[:MAX_TEXT_BYTES].decode(errors="ignore")
