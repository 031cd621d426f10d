"""Settings of the daemon: every one has a default, so no file is needed; configs/rig.toml lists them all."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from nuclr_stream.errors import ConfigError, EndpointError

_PORTS = {"data": 5581, "results": 5582, "query": 5583}
_MAX_FOLDER = 80
"""An ipc path has at most 107 bytes; the names in the folder and of its lock need some."""


def private_folder() -> Path | None:
    """Return the folder of this user's endpoints, which nobody else may enter; None where there is no ipc (Windows).

    XDG_RUNTIME_DIR has one where the system keeps it; elsewhere it lies in the temporary folder. Whoever uses it
    checks whose it is: anybody may have made one of that name in the temporary folder.
    """
    if sys.platform == "win32":
        return None
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and len(runtime) <= _MAX_FOLDER and Path(runtime).is_dir():
        return Path(runtime) / "nuclr-stream"
    temporary = tempfile.gettempdir()
    return Path(temporary if len(temporary) <= _MAX_FOLDER else "/tmp") / f"nuclr-stream-{os.getuid()}"


def _default_endpoint(name: str) -> str:
    folder = private_folder()
    return f"tcp://127.0.0.1:{_PORTS[name]}" if folder is None else f"ipc://{folder}/{name}"


DATA_ENDPOINT = _default_endpoint("data")
RESULTS_ENDPOINT = _default_endpoint("results")
QUERY_ENDPOINT = _default_endpoint("query")
HTTP_PORT = 5580
_LOOPBACK = ("localhost", "::1")
_EXAMPLE = "tcp://127.0.0.1:5581 or ipc:///run/user/1000/nuclr-stream/data"


class Settings(BaseModel):
    """What `nuclr-stream serve` runs with. Times in seconds, sizes in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str = Field(default="", description="name of a shipped bundle, or its directory; needed")
    hop_s: float | None = Field(default=None, gt=0, le=3600, description="s between windows; the bundle's if left out")
    lateness_s: float = Field(default=0.0, ge=0, le=60, description="s that a bin stays open behind the watermark")
    provider: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where the graphs run; auto may warn")
    threads: int = Field(default=0, ge=0, le=256, description="of one inference; 0 takes all cores but one")
    keys: str = Field(default="", description="folder of the daemon's key and allow-list; tcp is then encrypted")
    data_endpoint: str = Field(default="", description="sources push spikes here; empty: in this user's private folder")
    results_endpoint: str = Field(default="", description="predictions, states and events; empty: as above")
    query_endpoint: str = Field(default="", description="snapshot, embeddings and status; empty: as above")
    http_port: int = Field(default=HTTP_PORT, ge=0, le=65535, description="of /metrics and /readyz on 127.0.0.1")
    max_streams: int = Field(default=8, ge=1, le=12, description="probes at once; more are rejected and counted")
    max_units: int = Field(default=2048, ge=1, le=8192, description="units of one probe; more are dropped and counted")
    queue_bytes: int = Field(default=2**25, ge=2**16, le=2**31, description="B of undecoded input; more is dropped")
    results_queue: int = Field(default=256, ge=1, le=4096, description="results kept for each slow subscriber")
    embed_queue: int = Field(default=8, ge=1, le=1024, description="windows of clients that may wait to be embedded")
    half_life_s: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="s in which exposure fades by half; never if left out"
    )
    state_interval_s: float = Field(default=0.5, ge=0.05, le=0.5, description="s between states, the sign of life")
    record: str = Field(default="", description="file that keeps every prediction; empty keeps none; --record sets it")
    snapshots: str = Field(default="", description="folder for the state of all streams; empty keeps none")
    snapshot_s: float = Field(default=1.0, ge=0.05, le=60, description="s between snapshots of a stream, or more")
    rules: list[dict[str, Any]] = Field(default=[], description="what fires events, see docs/closed_loop.md")
    sinks: list[dict[str, Any]] = Field(default=[], description="where events are sent beside the topic rule/")
    rules_journal: str = Field(default="", description="file that keeps what fired; rules need it")
    priors: dict[str, dict[str, float]] = Field(default={}, description="weights of classes by task; else the bundle's")
    abstain: dict[str, float] = Field(default={}, description="top probability below which no class is called, by task")

    @field_validator("data_endpoint", "results_endpoint", "query_endpoint")
    @classmethod
    def _lets_nobody_in(cls, endpoint: str, info: ValidationInfo) -> str:
        error = bind_error(endpoint, keyed=bool(info.data.get("keys"))) if endpoint else ""
        if error:
            raise ValueError(error)
        return endpoint

    def endpoint(self, name: Literal["data", "results", "query"]) -> str:
        """Return where to bind that socket."""
        given: str = getattr(self, f"{name}_endpoint")
        return given or _default_endpoint(name)


def bind_error(endpoint: str, *, keyed: bool = False) -> str:
    """Return why nothing may be bound to `endpoint`, or an empty string: for ipc and loopback, for all tcp if `keyed`.

    `keyed` says that only keys of an allow-list get in.
    """
    if endpoint.startswith("ipc://"):
        path = endpoint[6:]
        return "" if path.startswith("/") and len(path) <= 100 else "an ipc path must be absolute, at most 100 long"
    try:
        parts = urlsplit(endpoint.replace(":*", ":0"))
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"not an endpoint such as {_EXAMPLE}"
    plain = not (parts.path or parts.query or parts.fragment or parts.username is not None or endpoint[-1] in "?#")
    if parts.scheme != "tcp" or port is None or not host or not plain:
        return f"not an endpoint such as {_EXAMPLE}"
    if keyed or host in _LOOPBACK or (host.startswith("127.") and host.replace(".", "").isdigit()):
        return ""
    return (
        f"host {host!r} is not loopback, so others could reach it; bind 127.0.0.1, or make keys with "
        "nuclr-stream keys new and allow, and name their folder with --keys"
    )


def load_settings(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of a TOML file with `overrides` on top; both may be absent.

    Raises ConfigError naming the key, its value and, for an unknown key, the nearest known one; EndpointError for a
    bind beyond this machine.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: not a readable TOML file ({error})") from error
    where = path.name if path is not None else "settings"
    return _validated(values | dict(overrides or {}), where)


def parse_priors(texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the weights of classes by task that `texts`, such as "cell_type.PV=2", give. Raises ConfigError."""
    priors: dict[str, dict[str, float]] = {}
    for text in texts:
        (task, dot, rest), weight = text.partition("."), text.rpartition("=")[2]
        name = rest.rpartition("=")[0]
        try:
            priors.setdefault(task, {})[name] = float(weight)
        except ValueError:
            dot = ""
        if not (task and dot and name):
            raise ConfigError(f"--prior {text}: give it as task.CLASS=weight, such as cell_type.PV=2")
    return priors


def option(name: str) -> str:
    """Return the command line option of a setting."""
    return "--" + name.replace("_", "-")


def _validated(values: dict[str, Any], where: str) -> Settings:
    for key in values:
        if key not in Settings.model_fields:
            raise ConfigError(f"{where}: unknown key {key!r}{_nearest(key)}")
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        message = f"{where}: {name} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
        raise (EndpointError if name.endswith("endpoint") else ConfigError)(message) from error


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.0)
    return f"; did you mean {near[0]!r}?" if near else ""
