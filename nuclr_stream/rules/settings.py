"""Rules and sinks as a config says them: [[rules]] and [[sinks]] of the daemon's TOML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from nuclr_stream.bundle.manifest import Manifest
from nuclr_stream.errors import ConfigError
from nuclr_stream.placement.report import TASK

NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Rule(_Part):
    """What all rules have: a value of a subject must reach `above` in `hold` windows; one below `below` starts anew."""

    name: str = Field(pattern=NAME)
    stream: str = Field(default="", description="the only stream that it looks at; empty: each")
    above: float = Field(default=0.9, gt=0)
    below: float = Field(default=0.7, ge=0)
    hold: int = Field(default=3, ge=1, le=10_000, description="windows at or above `above` before it fires")
    sinks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _hysteresis(self) -> _Rule:
        if self.below > self.above:
            raise ValueError(f"below = {self.below:g} is above above = {self.above:g}")
        return self


class UnitRule(_Rule):
    """A unit is called `class`; its value is the probability, 0 while another class or none is called."""

    when: Literal["unit"]
    task: str
    class_: str = Field(alias="class")
    above: float = Field(default=0.9, gt=0, le=1)


class CountRule(_Rule):
    """A number of units is called `class`; the value is that number."""

    when: Literal["count"]
    task: str
    class_: str = Field(alias="class")
    above: float = Field(ge=1)
    below: float = Field(ge=0)


class RegionRule(_Rule):
    """A region is found along a shank; the value is its probability, 0 where it is shorter than `min_um`.

    With `at_tip` only the region in which the tip is counts.
    """

    when: Literal["region"]
    region: str
    above: float = Field(default=0.9, gt=0, le=1)
    min_um: float = Field(default=50.0, ge=0)
    at_tip: bool = False


class BoundaryRule(_Rule):
    """The border from `lower` to `upper` is found along a shank; the value is the probability that it lies there.

    It is 0 while the 90 % interval is longer than `max_interval_um` or begins less than `min_um` above the tip.
    """

    when: Literal["boundary"]
    lower: str
    upper: str
    above: float = Field(default=0.9, gt=0, le=1)
    max_interval_um: float = Field(default=200.0, gt=0)
    min_um: float = Field(default=0.0, ge=0)


class Webhook(_Part):
    """A POST of the event as JSON."""

    kind: Literal["webhook"]
    name: str = Field(pattern=NAME)
    url: str

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        return _http(url)


class OpenEphysMessage(_Part):
    """A line of text into the recording of the Open Ephys GUI, over its HTTP server."""

    kind: Literal["open_ephys_message"]
    name: str = Field(pattern=NAME)
    url: str = "http://127.0.0.1:37497"

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        return _http(url)


class OpenEphysTtl(_Part):
    """A TTL pulse on a line of the Network Events plugin of the Open Ephys GUI."""

    kind: Literal["open_ephys_ttl"]
    name: str = Field(pattern=NAME)
    endpoint: str = "tcp://127.0.0.1:5556"
    line: int = Field(ge=1, le=64)
    pulse_ms: float = Field(default=10.0, gt=0, le=1000)


Rule = Annotated[UnitRule | CountRule | RegionRule | BoundaryRule, Field(discriminator="when")]
Sink = Annotated[Webhook | OpenEphysMessage | OpenEphysTtl, Field(discriminator="kind")]
_RULES: TypeAdapter[tuple[Rule, ...]] = TypeAdapter(tuple[Rule, ...])
_SINKS: TypeAdapter[tuple[Sink, ...]] = TypeAdapter(tuple[Sink, ...])


def read_rules(
    rules: Sequence[Mapping[str, Any]], sinks: Sequence[Mapping[str, Any]], manifest: Manifest
) -> tuple[tuple[Rule, ...], tuple[Sink, ...]]:
    """Return rules and sinks as a config says them, for the classes of a bundle.

    Raises ConfigError naming rule, field, value and remedy.
    """
    made_rules: tuple[Rule, ...] = _read(_RULES, rules, "rules")
    made_sinks: tuple[Sink, ...] = _read(_SINKS, sinks, "sinks")
    known = {sink.name for sink in made_sinks}
    for kind, names in (("rules", [r.name for r in made_rules]), ("sinks", [s.name for s in made_sinks])):
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{kind}: two are named {name!r}; names must differ")
    for rule in made_rules:
        for sink in rule.sinks:
            if sink not in known:
                raise ConfigError(f"rules.{rule.name}.sinks: no sink {sink!r}; there are {_list(known)}")
        _check_classes(rule, manifest)
    return made_rules, made_sinks


def _check_classes(rule: Rule, manifest: Manifest) -> None:
    """A class that the bundle does not know would never fire, in silence."""
    classes_of = {task.name: task.classes for task in manifest.tasks}
    is_placed = isinstance(rule, RegionRule | BoundaryRule)
    task = TASK if isinstance(rule, RegionRule | BoundaryRule) else rule.task
    if task not in classes_of:
        field = "when" if is_placed else "task"
        raise ConfigError(
            f"rules.{rule.name}.{field}: bundle {manifest.name} has no task {task}; it has {_list(classes_of)}"
        )
    if isinstance(rule, RegionRule):
        wanted = {"region": rule.region}
    elif isinstance(rule, BoundaryRule):
        wanted = {"lower": rule.lower, "upper": rule.upper}
    else:
        wanted = {"class": rule.class_}
    for field, name in wanted.items():
        if name not in classes_of[task]:
            raise ConfigError(
                f"rules.{rule.name}.{field} = {name!r}: no class of {task}; choose one of {_list(classes_of[task])}"
            )


def _read(adapter: TypeAdapter[Any], values: Sequence[Mapping[str, Any]], what: str) -> Any:
    try:
        return adapter.validate_python([dict(value) for value in values])
    except ValidationError as error:
        first = error.errors()[0]
        number, *rest = first["loc"]
        name = values[int(number)].get("name", f"number {int(number) + 1}")
        field = ".".join(str(part) for part in rest[1:] or rest)
        given = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{what}.{name}{'.' if field else ''}{field}{given}: {message}") from error


def _http(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give an address such as http://127.0.0.1:8080/event")
    return url


def _list(names: Sequence[str] | set[str] | Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "none"
