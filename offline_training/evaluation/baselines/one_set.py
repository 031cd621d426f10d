"""One feature set of a comparison method, as the readouts of the product take it."""

from __future__ import annotations

from typing import cast

from nuclr_stream.features.accumulator import FeatureSet, FeatureSnapshot
from nuclr_stream.windows.binning import Float32Array


def feature_set(name: str) -> FeatureSet:
    """The name of a set that no bundle holds; readouts fit it as any other."""
    return cast(FeatureSet, name)


def snapshot_of(name: str, values: Float32Array, exposure: Float32Array) -> FeatureSnapshot:
    """What is known of units (U,) by this set alone: its values (U, F), after exposure (U,) in windows."""
    key = feature_set(name)
    return FeatureSnapshot(exposure=exposure, observed=exposure, features={key: values}, has={key: exposure > 0})
