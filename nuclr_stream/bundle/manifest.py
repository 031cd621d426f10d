"""The bundle: a directory that holds everything the daemon knows about a model, and the only thing that crosses over.

manifest.json   the contract below, with the SHA-256 of every other file and `digest`, the SHA-256 of itself
encoder.onnx    counts (U, T) float32, mask (U,) bool -> embedding (U, D) float32, for any U
readout_<task>_<set>.onnx   features (U, F) float32, exposure (U,) float32 -> logits (U, C) float32
sample.npz      a sample window with the output that is expected from it
MODEL_CARD.md   what it was trained on, what it may be used for, and its figures

Files are read once, hashed, and handed on as the very bytes that were hashed. The digest finds damage and careless
edits; who wants to be sure of more pins the id of a bundle, NAME@ID, which names every byte of it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nuclr_stream.errors import BundleError
from nuclr_stream.features.accumulator import FeatureSet, feature_count
from nuclr_stream.npz import plain_arrays
from nuclr_stream.prediction.out_of_distribution import OutOfDistribution
from nuclr_stream.prediction.pool import LogLinearPool
from nuclr_stream.windows.binning import WindowRules, WindowSpec, rational
from nuclr_stream.windows.normaliser import Normalisation

FORMAT_VERSION = 1
MAX_FILE_BYTES = 64 * 2**20
MAX_ARRAYS = 256
"""Arrays of one file: 16 tasks of 6 predictors need 105."""
SHIPPED = Path(__file__).parents[1] / "bundles"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NormaliserPart(_Part):
    """What traces are divided by: see normaliser.Normalisation. Absent for spikes, and for traces used as they come."""

    kind: Literal["running_quantile"] = "running_quantile"
    quantile: float = Field(gt=0, lt=1)
    warm_up_frames: int = Field(ge=0)
    trained_with: Literal["offline", "running"]


class WindowPart(_Part):
    """The window that the encoder takes; `bins_per_second` is an exact rational such as "50" or "100000/23344"."""

    bins_per_second: str
    bins_per_patch: int = Field(gt=0)
    patches: int = Field(gt=0)
    hop_bins: int = Field(gt=0)
    input_kind: Literal["spikes", "traces"] = "spikes"
    normaliser: NormaliserPart | None = None


class RulesPart(_Part):
    """Which windows and units may enter the encoder: see binning.WindowRules.

    What this version can only do in one way is written down all the same: only units that fired enter (for traces all
    do), the units of one hardware probe are one population, a window that touches a mask interval is not embedded.
    """

    active_units_only: bool
    one_probe_one_population: Literal[True]
    cut_masks: Literal[True]
    min_population: int = Field(ge=1)
    max_missing: float = Field(ge=0, le=1)
    cut_silence: bool


class MembershipPart(_Part):
    """Which units and stretches of a recording the weights were trained on, beyond the rules about windows.

    A unit had one of `quality_keep` in column `quality_column` of its sorter or laboratory, fired at `min_rate_hz` or
    more, and was in none of `excluded_regions` by `region_column`; `drop_last_s` of every recording were not trained
    on. Units with one value of `population_by` were a population ("all": those of a file), those of a probe without
    it. A daemon can not apply any of it and takes every unit that it is given: this is a statement, not a filter.
    """

    quality_column: str | None = None
    quality_keep: tuple[bool | float | str, ...] = ()
    min_rate_hz: float = Field(default=0.0, ge=0)
    region_column: str = "brain_region"
    excluded_regions: tuple[str, ...] = ()
    population_by: str = ""
    drop_last_s: float = Field(default=0.0, ge=0)


class PoolPart(_Part):
    """How predictors are combined, see pool.LogLinearPool; `weight` has a row per predictor, a column per knot."""

    predictors: tuple[FeatureSet, ...] = Field(min_length=1)
    n: tuple[float, ...] = Field(min_length=1)
    weight: tuple[tuple[float, ...], ...]
    abstain_below: tuple[float, ...]
    set_above: tuple[float, ...]

    @model_validator(mode="after")
    def _consistent(self) -> PoolPart:
        named = f"pool of {', '.join(self.predictors)}"
        rows = (*self.weight, self.abstain_below, self.set_above)
        if len(self.weight) != len(self.predictors) or any(len(row) != len(self.n) for row in rows):
            raise ValueError(f"{named}: one row of {len(self.n)} values each is needed")
        if list(self.n) != sorted(set(self.n)) or self.n[0] < 1 or len(set(self.predictors)) != len(self.predictors):
            raise ValueError(f"{named}: n must ascend from at least 1, predictors differ")
        if min(map(min, self.weight)) < 0 or not all(0 <= v <= 1 for v in (*self.abstain_below, *self.set_above)):
            raise ValueError(f"{named}: weights below 0 or thresholds outside 0 to 1")
        return self

    @property
    def pool(self) -> LogLinearPool:
        """The same as pool.py applies it."""
        return LogLinearPool(**self.model_dump())


class TaskPart(_Part):
    """One question that predictors answer, its classes in the order of the logits, and how far to believe them.

    `prior` is the class prior that the probabilities assume, `pools` are the ways to answer, the preferred first, each
    of `predictors` has a graph. `calibrated_on` says which scores temperatures and thresholds were fitted on,
    `threshold_promise` and `sets_promise` what the thresholds and the sets of classes promise.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    classes: tuple[str, ...] = Field(min_length=2, max_length=64)
    prior: tuple[float, ...]
    predictors: tuple[FeatureSet, ...] = Field(min_length=1)
    pools: tuple[PoolPart, ...] = Field(min_length=1)
    calibrated_on: str
    threshold_promise: str
    sets_promise: str

    @model_validator(mode="after")
    def _consistent(self) -> TaskPart:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes of {self.name} repeat")
        if not all(c.isprintable() and 0 < len(c.encode()) <= 64 for c in self.classes):
            raise ValueError(f"classes of {self.name} must be printable and 1 to 64 bytes long")
        if len(self.prior) != len(self.classes) or abs(sum(self.prior) - 1) > 1e-6 or min(self.prior) < 0:
            raise ValueError(f"prior of {self.name} must be {len(self.classes)} probabilities that add up to 1")
        unknown = {name for pool in self.pools for name in pool.predictors} - set(self.predictors)
        if unknown or len(set(self.predictors)) != len(self.predictors):
            raise ValueError(
                f"predictors of {self.name} must differ and hold {', '.join(sorted(unknown)) or 'no more'}"
            )
        return self

    def file_of(self, predictor: FeatureSet) -> str:
        """Name of a predictor's graph in the bundle."""
        return f"readout_{self.name}_{predictor}.onnx"

    @property
    def log_linear_pools(self) -> tuple[LogLinearPool, ...]:
        """All ways in which this task can be answered, the preferred first."""
        return tuple(part.pool for part in self.pools)


class TrainedOn(_Part):
    """What the weights have seen: ids, never paths."""

    description: str
    subjects: tuple[str, ...]
    recordings: tuple[str, ...]


class Manifest(_Part):
    """manifest.json. Unknown keys are rejected: a bundle of a later format is never half understood."""

    format_version: int
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,60}$")
    encoder_kind: Literal["window"] = "window"
    window: WindowPart
    rules: RulesPart
    membership: MembershipPart | None = None
    embedding_dim: int = Field(gt=0, le=4096)
    max_units: int = Field(gt=0, le=65536)
    parameters: int = Field(gt=0)
    tasks: tuple[TaskPart, ...] = Field(max_length=16)
    trained_on: TrainedOn
    training: dict[str, Any]
    evaluation: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str]
    digest: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"names of tasks repeat: {', '.join(names)}")
        if self.rules.active_units_only != (self.window.input_kind == "spikes"):
            raise ValueError(f"rules.active_units_only is {self.rules.active_units_only} for {self.window.input_kind}")
        return self

    @property
    def bundle_id(self) -> str:
        """The name and the first 12 hexadecimal digits of the digest."""
        return f"{self.name}-{self.digest[:12]}"

    @property
    def spec(self) -> WindowSpec:
        """The window as binning.py takes it."""
        w = self.window
        normaliser = Normalisation(**w.normaliser.model_dump(exclude={"kind"})) if w.normaliser else None
        rate = rational(w.bins_per_second)
        return WindowSpec(rate, w.bins_per_patch, w.patches, w.hop_bins, w.input_kind, normaliser)

    @property
    def window_rules(self) -> WindowRules:
        """The membership rules as binning.py takes them."""
        return WindowRules(**self.rules.model_dump(include={"min_population", "max_missing", "cut_silence"}))


@dataclass(frozen=True)
class Sample:
    """What travels with a bundle to check a machine by.

    A window, counts (U, T) and mask (U,), and the embedding (U, D) that must come out of it; features (U, F) by feature
    set, and logits (U, C) by graph that must come out of those at exposure 1.
    """

    counts: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    embedding: npt.NDArray[np.float32]
    features: dict[str, npt.NDArray[np.float32]]
    logits: dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its manifest and the bytes of its files as they were hashed.

    `bundle_id` is the name and the first 12 hexadecimal digits of the manifest's digest. The digest covers the hashes
    of all files, so the id names every byte and every value.
    """

    manifest: Manifest
    bundle_id: str
    files: dict[str, bytes]

    @property
    def sample(self) -> Sample:
        """The sample window. Raises BundleError when it is no such file, or its arrays do not fit the manifest."""
        arrays, manifest = self._arrays("sample.npz"), self.manifest
        sizes: dict[str, tuple[str, tuple[int, ...]]] = {  # type and all dimensions but the first
            "counts": ("float32", (manifest.spec.bins,)),
            "mask": ("bool", ()),
            "embedding": ("float32", (manifest.embedding_dim,)),
        }
        rows = {"mask": "counts"}  # whose rows are those of another array
        for task in manifest.tasks:
            for name in task.predictors:
                sizes[f"features_{name}"] = "float32", (feature_count(name, manifest.embedding_dim),)
                sizes[task.file_of(name)] = "float32", (len(task.classes),)
                rows[task.file_of(name)] = f"features_{name}"
        if missing := set(sizes) - set(arrays):
            raise BundleError(f"sample.npz: {', '.join(sorted(missing))} missing; export the bundle again")
        for key, (kind, rest) in sizes.items():
            found = arrays[key]
            fits = found.ndim == 1 + len(rest) and found.shape[1:] == rest and len(found) > 0 and found.dtype == kind
            if not fits or len(found) != len(arrays[rows.get(key, key)]):
                raise BundleError(f"sample.npz: {key} is {found.dtype} {found.shape}, which does not fit the manifest")
        if len(arrays["embedding"]) != arrays["mask"].sum():
            raise BundleError("sample.npz: embedding has other rows than mask has active units")
        features = {k.removeprefix("features_"): v for k, v in arrays.items() if k.startswith("features_")}
        logits = {k: v for k, v in arrays.items() if k.endswith(".onnx")}
        return Sample(arrays["counts"], arrays["mask"], arrays["embedding"], features, logits)

    @property
    def out_of_distribution(self) -> OutOfDistribution | None:
        """What the bundle knows of the units that it was trained on, or None. Raises BundleError where it is broken."""
        if "out_of_distribution.npz" not in self.files:
            return None
        known = OutOfDistribution.of_arrays(self._arrays("out_of_distribution.npz"))
        for name, one in known.sets.items():
            if one.centres.shape[1] != (wanted := feature_count(name, self.manifest.embedding_dim)):
                raise BundleError(
                    f"out_of_distribution.npz: {name} has {one.centres.shape[1]} features, the bundle's has {wanted}; "
                    "export the bundle again"
                )
        return known

    def _arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        try:
            return plain_arrays(
                io.BytesIO(self.files[name]), name, most_bytes=4 * MAX_FILE_BYTES, most_arrays=MAX_ARRAYS
            )
        except ValueError as error:
            raise BundleError(f"{error}; export the bundle again") from error


def find_bundle(name: str, expected_id: str | None = None) -> Path:
    """Return the directory of a bundle: a path, or the name of a shipped one; NAME@ID is the same as `expected_id`.

    Raises BundleError when there is none, saying what there is, and when the bundle has another id than expected.
    """
    folder = _folder_of(name)
    if folder is None and "@" in name:
        name, _, expected_id = name.rpartition("@")
        folder = _folder_of(name)
    if folder is None:
        raise BundleError(f"no bundle {name!r}: neither a directory with manifest.json nor one of {shipped_bundles()}")
    if expected_id is not None:
        _require_id(_manifest(_read(folder, "manifest.json"), folder), expected_id, folder)
    return folder


def shipped_bundles() -> list[str]:
    """Return the names of the bundles that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/manifest.json"))


def load_bundle(folder: Path, expected_id: str | None = None) -> Bundle:
    """Read and verify a bundle: format, digest of the manifest, the hash of every file, and its id where one is given.

    Raises BundleError naming the cause.
    """
    manifest = _manifest(_read(folder, "manifest.json"), folder)
    if expected_id is not None:
        _require_id(manifest, expected_id, folder)
    graphs = {task.file_of(predictor) for task in manifest.tasks for predictor in task.predictors}
    needed = {"encoder.onnx", "sample.npz", "MODEL_CARD.md"} | graphs
    absent = needed - set(manifest.files)
    if absent:
        raise BundleError(f"{folder.name}/manifest.json: files does not list {', '.join(sorted(absent))}")
    files: dict[str, bytes] = {}
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise BundleError(f"{folder.name}/manifest.json: file name {name!r} leaves the bundle")
        files[name] = _read(folder, name)
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise BundleError(f"{folder.name}/{name}: SHA-256 is {found[:12]}..., the manifest says {expected[:12]}...")
    return Bundle(manifest, manifest.bundle_id, files)


def manifest_digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's plain values but `digest`: JSON with sorted keys, no spaces, ASCII only."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _folder_of(name: str) -> Path | None:
    if (Path(name) / "manifest.json").is_file():
        return Path(name)
    if (SHIPPED / name / "manifest.json").is_file() and "/" not in name:
        return SHIPPED / name
    return None


def _require_id(manifest: Manifest, expected_id: str, folder: Path) -> None:
    if manifest.bundle_id != expected_id:
        raise BundleError(f"{folder.name}: the bundle is {manifest.bundle_id}, expected was {expected_id}")


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if not path.is_file():
        raise BundleError(f"{folder.name}/{name}: no such file; the bundle is incomplete")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BundleError(f"{folder.name}/{name}: larger than {MAX_FILE_BYTES} bytes")
    return path.read_bytes()


def _manifest(raw: bytes, folder: Path) -> Manifest:
    where = f"{folder.name}/manifest.json"
    try:
        content = json.loads(raw)
        digest = manifest_digest(content) if isinstance(content, dict) else ""
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not JSON ({error})") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(f"{where}: format_version is {version!r}; this version reads {FORMAT_VERSION}")
    if content.get("digest") != digest:
        raise BundleError(
            f"{where}: digest is {str(content.get('digest'))[:12]}, that of its content {digest[:12]}: it was altered, "
            "or written by an early version; export the bundle again"
        )
    try:
        manifest = Manifest.model_validate(content)
        _ = manifest.spec
    except (ValidationError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("window",), "msg": str(error)}
        raise BundleError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return manifest
