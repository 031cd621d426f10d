"""`nuclr_stream.label`: a recording in, a pandas table of predictions out, by the Labeler that runs live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nuclr_stream.bundle.manifest import find_bundle, load_bundle, shipped_bundles
from nuclr_stream.errors import ConfigError, NuclrStreamError
from nuclr_stream.inference.model import Model
from nuclr_stream.notebook.objects import TimeUnit, recordings_of
from nuclr_stream.outputs.result import Result, labelled, result_of
from nuclr_stream.outputs.wide import unit_columns
from nuclr_stream.stream.labeler import Labeler

if TYPE_CHECKING:
    import pandas as pd


def label(
    recording: object,
    *,
    bundle: str | Path | Model,
    embeddings: bool = False,
    time_unit: TimeUnit | None = None,
    sample_rate: float | None = None,
    depth_um: Mapping[Any, float] | Sequence[float] | None = None,
    population_by: str = "",
    hop_s: float | None = None,
    priors: Mapping[str, Mapping[str, float]] | None = None,
    abstain: Mapping[str, float] | None = None,
    threads: int = 0,
) -> pd.DataFrame:
    """Return what a bundle predicts of every unit of a recording, a row per unit.

    >>> from nuclr_stream import label
    >>> frame = label("session.nwb", bundle="rat")
    >>> frame["predicted_brain_region"].value_counts(dropna=False)

    A column `predicted_<task>` holds a class only where one is called; `predicted_<task>_why` says in a word why not,
    `predicted_<task>_top` what is most probable all the same. docs/outputs.md lists all columns. `frame.attrs` holds
    `bundle`, `notes` (what readers left out and guessed) and `placement` (regions along depth, by recording id).

    Args:
        recording: A path (.npz, NWB, Kilosort/phy or suite2p folder, torch_brain), a SpikeInterface sorting or sorting
            analyzer, a pynapple TsGroup, a pynwb NWBFile that was read from a file, or spike times and clusters (N,)
            as two arrays.
        bundle: Name of a shipped bundle, the directory of one, or a Model that is loaded already.
        embeddings: Also the mean embedding of every unit, as columns e_0, e_1, ...
        time_unit: "s", "ms", "us" or "samples"; what arrays are in. Nothing else takes it, for it would be a guess.
        sample_rate: Samples per second of arrays in "samples".
        depth_um: Distance from the tip of every unit, by its id or in ascending order of clusters; arrays only.
        population_by: Column whose values are populations instead of probes, or "all"; files only.
        hop_s: Seconds between windows instead of the bundle's.
        priors: Weights of classes by task, where it is known how common they are.
        abstain: Top probability by task below which no class is called, instead of the bundle's own.
        threads: Of one inference; 0 takes all cores but one.

    Raises NuclrStreamError naming what cannot be used and what to do instead.
    """
    pandas = _pandas()
    model = bundle if isinstance(bundle, Model) else _model(bundle, threads)
    recordings = recordings_of(
        recording, time_unit=time_unit, sample_rate=sample_rate, depth_um=depth_um, population_by=population_by
    )
    results = []
    for one in recordings:
        labeler = Labeler(
            model,
            stream=one.recording_id,
            max_units=len(one.unit_ids),
            hop_s=hop_s,
            priors=priors,
            abstain=abstain,
        )
        latest = None
        for found in labelled(one, labeler):
            latest = found
        results.append(result_of(one, labeler, latest))
    frame = pandas.concat([_frame(pandas, result, embeddings) for result in results], ignore_index=True)
    frame.attrs = {
        "bundle": model.bundle_id,
        "notes": [note for one in recordings for note in one.notes],
        "placement": {result.recording_id: result.placement for result in results if result.placement},
    }
    return frame


def _frame(pandas: Any, result: Result, embeddings: bool) -> pd.DataFrame:
    columns = {column.name: column.values for column in unit_columns(result, embeddings=embeddings)}
    frame: pd.DataFrame = pandas.DataFrame(columns)
    return frame


def _model(bundle: str | Path, threads: int) -> Model:
    if not str(bundle):
        raise ConfigError(f"bundle is empty; name a shipped one ({', '.join(shipped_bundles())}) or a directory")
    return Model(load_bundle(find_bundle(str(bundle))), threads=threads or None)


def _pandas() -> Any:
    try:
        return import_module("pandas")
    except ImportError as error:
        raise NuclrStreamError(
            f"label() returns a pandas table; pandas is not installed ({error}): pip install 'nuclr-stream[outputs]'"
        ) from error
