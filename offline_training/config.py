"""Settings of one training: what is read, how windows are cut, which encoder, which loss, how long, which tasks.

One TOML file is one `TrainConfig`. Nothing is guessed: an unknown key is an error that names the nearest known one.
This module is free of torch, so that labels and windows can be had without it.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nuclr_stream.errors import ConfigError
from nuclr_stream.recordings.recorded import Recorded
from nuclr_stream.recordings.recording import Recording
from nuclr_stream.windows.binning import InputKind, WindowRules, WindowSpec, rational
from nuclr_stream.windows.normaliser import Normalisation

UNLABELLED = -1
"""Class index of a unit without a label for a task: it is context only."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, values: Any) -> Any:
        return _only_known(values, list(cls.model_fields))


def _only_known(values: Any, known: list[str]) -> Any:
    """The values as they are. Raises ValueError for a key that is not known, with the nearest one that is."""
    for key in values if isinstance(values, dict) else ():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise ValueError(f"unknown key {key!r}; the nearest known key is {near[0]!r} (all: {', '.join(known)})")
    return values


class NormaliserSettings(_Section):
    """What traces are divided by, see `nuclr_stream.windows.normaliser.Normalisation`."""

    quantile: float = Field(default=0.99, gt=0, lt=1)
    warm_up_frames: int = Field(default=0, ge=0)
    trained_with: Literal["offline", "running"] = "offline"


class WindowSettings(_Section):
    """How windows are cut, see `nuclr_stream.windows.binning.WindowSpec`; a fraction is written "6250/1459"."""

    bins_per_second: int | float | str = 50
    bins_per_patch: int = Field(default=50, ge=1)
    patches: int = Field(default=10, ge=1)
    hop_s: float = Field(default=1.0, gt=0)
    input_kind: InputKind = "spikes"
    normaliser: NormaliserSettings | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> WindowSettings:
        _ = self.spec
        return self

    @property
    def spec(self) -> WindowSpec:
        """The window in exact numbers."""
        rate = rational(self.bins_per_second)
        normaliser = Normalisation(**self.normaliser.model_dump()) if self.normaliser else None
        spec = WindowSpec(rate, self.bins_per_patch, self.patches, 1, self.input_kind, normaliser)
        return spec.with_hop_s(self.hop_s)


class RuleSettings(_Section):
    """Which windows are used; see `nuclr_stream.windows.binning.WindowRules`."""

    min_population: int = Field(default=11, ge=1)
    max_missing: float = Field(default=0.1, ge=0, lt=1)
    cut_silence: bool = True

    @property
    def rules(self) -> WindowRules:
        """The same as the object that binning, labeler and manifest use."""
        return WindowRules(**self.model_dump())


class RecordingSettings(_Section):
    """Which units of a recording are used at all, applied when it is read; without a rule all are.

    A unit must have one of the values `quality_keep` in column `quality_column`, fire at `min_rate_hz` or more over the
    recording, and not be in one of `excluded_regions` by column `region_column`. `population_by` is the column whose
    values are populations instead of the probes, or "all". The bundle's manifest states them.
    """

    quality_column: str | None = None
    quality_keep: tuple[bool | float | str, ...] = ()
    min_rate_hz: float = Field(default=0.0, ge=0)
    region_column: str = "brain_region"
    excluded_regions: tuple[str, ...] = ()
    population_by: str = ""

    @model_validator(mode="after")
    def _quality_is_whole(self) -> RecordingSettings:
        if (self.quality_column is None) != (not self.quality_keep):
            raise ValueError("give quality_column and quality_keep together")
        return self


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes of the encoder, the published model for spikes by default; the window's lengths come from `window`.

    A plain dataclass, because modules of torch hold it. `ffn_hidden` is the width of the value (the gate is as wide,
    in_proj gives both); `rope_ratio` the share of every head that is rotated; `rope_max_period_factor` times the
    patches of a window the longest period, in patches. Raises ValueError naming a size that cannot be.
    """

    dim: int = 256
    heads: int = 4
    head_dim: int = 64
    ffn_hidden: int = 1024
    temporal_blocks: int = 2
    spatiotemporal_blocks: int = 2
    dropout: float = 0.2
    rope_ratio: float = 0.5
    rope_max_period_factor: float = 8.0

    def __post_init__(self) -> None:
        for name in ("dim", "heads", "head_dim", "ffn_hidden"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("temporal_blocks", "spatiotemporal_blocks"):
            _require(self, name, getattr(self, name) >= 0, "at least 0")
        _require(self, "head_dim", self.head_dim % 2 == 0, "even, rotary positions turn pairs")
        _require(self, "dropout", 0 <= self.dropout < 1, "in [0, 1)")
        _require(self, "rope_ratio", 0 <= self.rope_ratio <= 1, "in [0, 1]")
        _require(self, "rope_max_period_factor", self.rope_max_period_factor > 0, "above 0")


def _require(sizes: EncoderSizes, name: str, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"encoder.{name} = {getattr(sizes, name)}: must be {what}")


def _known_sizes(values: Any) -> Any:
    return _only_known(values, [field.name for field in fields(EncoderSizes)])


class LossSettings(_Section):
    """`scaled` divides within-view negatives by the temperature too, `published` does not, as the paper's code."""

    kind: Literal["scaled", "published", "vicreg"] = "scaled"
    temperature: float = Field(default=0.2, gt=0)


class TrainingSettings(_Section):
    """How long and how fast. Exactly one of `steps` and `epochs`; no `warmup_steps` means one epoch.

    `unit_keep` is the range from which each view draws the share of units it keeps. `max_units_per_view` then leaves at
    most so many units in a pair, drawn at random: it makes a step affordable on a CPU. `drop_last_s` ignores the end of
    every recording. A step sees `batch_windows` pairs of windows, of all processes together. `loader_workers` processes
    sample ahead of every training process (none: it samples itself). `compile` hands the encoder to torch.compile.
    """

    seed: int = Field(default=0, ge=0)
    steps: int | None = Field(default=None, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    batch_windows: int = Field(default=8, ge=1)
    max_pair_distance_s: float = Field(default=30.0, ge=0)
    unit_keep: tuple[float, float] = (0.5, 1.0)
    max_units_per_view: int | None = Field(default=None, ge=1)
    peak_lr: float = Field(default=5e-4, gt=0)
    final_lr_share: float = Field(default=0.0, ge=0, le=1)
    warmup_steps: int | None = Field(default=None, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int = Field(default=1, ge=1)
    loader_workers: int | None = Field(default=None, ge=1)
    compile: Literal["encoder"] | None = None
    checkpoint_every_s: float = Field(default=300.0, gt=0)
    drop_last_s: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSettings:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        low, high = self.unit_keep
        if not 0 < low <= high <= 1:
            raise ValueError(f"unit_keep = [{low}, {high}]: must be an ascending range within (0, 1]")
        return self


class SelectionSettings(_Section):
    """Which checkpoint counts: the one with the best macro-F1, over all tasks, on `subjects`, which the encoder is not
    trained on. Scored every `every_steps`, by default once an epoch. Labels choose then, as the NuCLR authors' do."""

    by: Literal["validation_macro_f1"] = "validation_macro_f1"
    subjects: tuple[str, ...] = Field(min_length=1)
    every_steps: int | None = Field(default=None, ge=1)


class TaskSettings(_Section):
    """A question that a readout answers: which values of a unit-table column belong to which class.

    `classes` is in the order of the readout's outputs. A class is a list of raw values, or for a numeric column an
    interval [low, high], ends included. Units with any other value, or with fewer than `min_spikes` spikes in the whole
    recording, are context only.
    """

    column: str
    classes: dict[str, tuple[float, float] | tuple[str, ...]] = Field(min_length=2)
    min_spikes: int = Field(default=100, ge=0)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the readout's outputs."""
        return tuple(self.classes)

    def labels(self, recording: Recorded) -> npt.NDArray[np.int64]:
        """Class index of every unit (U,); UNLABELLED where the unit is context only or the column is missing."""
        labels = np.full(len(recording.unit_ids), UNLABELLED, dtype=np.int64)
        column = recording.units.get(self.column)
        if column is not None:
            for index, members in enumerate(self.classes.values()):
                labels[_belongs(column, members)] = index
        if isinstance(recording, Recording):  # traces have no spikes to be too few
            labels[recording.spikes_per_unit < self.min_spikes] = UNLABELLED
        return labels


class TrainConfig(_Section):
    """Everything about one training. `kind` describes the recordings in words, for cards and results. Without
    `selection` the last checkpoint counts."""

    name: str
    kind: str = ""
    window: WindowSettings = WindowSettings()
    rules: RuleSettings = RuleSettings()
    recordings: RecordingSettings | None = None
    encoder: Annotated[EncoderSizes, BeforeValidator(_known_sizes)] = EncoderSizes()
    loss: LossSettings = LossSettings()
    training: TrainingSettings
    selection: SelectionSettings | None = None
    tasks: dict[str, TaskSettings] = {}

    @model_validator(mode="after")
    def _selection_has_labels(self) -> TrainConfig:
        if self.selection and not self.tasks:
            raise ValueError("selection: validation_macro_f1 needs tasks; name some, or leave selection out")
        return self

    @model_validator(mode="after")
    def _views_hold_a_population(self) -> TrainConfig:
        most = self.training.max_units_per_view
        if most is not None and most < self.rules.min_population:
            raise ValueError(
                f"training.max_units_per_view = {most} is below rules.min_population = {self.rules.min_population}: "
                "every pair would be dropped"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a TOML file. Raises ConfigError naming file, key, value and remedy."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: not a readable TOML file ({error})") from error
        return cls.parse(values, path.name)

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "config") -> TrainConfig:
        """Check plain values, e.g. of a run's config.json; `where` begins the error message."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{where}: {_first_fault(error)}") from None

    def with_training(self, **changes: int | float | str | None) -> TrainConfig:
        """This config with other values in its `training` section, e.g. another seed. Raises ConfigError."""
        values = self.model_dump(exclude_none=True)
        values["training"] = {k: v for k, v in (values["training"] | changes).items() if v is not None}
        return self.parse(values, self.name)


def _belongs(column: npt.NDArray[Any], members: tuple[float, float] | tuple[str, ...]) -> npt.NDArray[np.bool_]:
    if isinstance(members[0], str):
        return np.isin(column.astype(np.str_), members)
    if not np.issubdtype(column.dtype, np.number):
        return np.zeros(len(column), dtype=bool)
    low, high = members
    return (column >= low) & (column <= high)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"]) or "top level"
    value = "" if isinstance(fault["input"], dict) else f" = {fault['input']!r}"
    message = fault["msg"].removeprefix("Value error, ")
    # The sizes of the encoder name themselves: nothing but themselves stands where they are checked.
    return message if message.startswith(f"{place}.") else f"{place}{value}: {message}"
