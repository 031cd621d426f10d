"""What rules would have fired over predictions that are there already. Nothing is sent, and no journal is touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nuclr_stream.errors import ConfigError
from nuclr_stream.outputs.result import AnyRecording, labelled
from nuclr_stream.placement.report import TASK, placement_report
from nuclr_stream.rules.engine import Engine, Firing
from nuclr_stream.rules.settings import BoundaryRule, RegionRule, Rule
from nuclr_stream.stream.labeler import Labeler
from nuclr_stream.wire import Predictions


def over_predictions(rules: Sequence[Rule], predictions: Iterable[Predictions]) -> Iterator[Firing]:
    """Yield what would have fired over recorded predictions, in order.

    Raises ConfigError for rules about depth: predictions do not say where their units are.
    """
    for rule in rules:
        if isinstance(rule, RegionRule | BoundaryRule):
            raise ConfigError(
                f"rules.{rule.name}: asks about depth, which a record of predictions does not hold; "
                "replay the recording instead"
            )
    engine = Engine(rules)
    for one in predictions:
        yield from engine.take(one, dict)


def over_recording(rules: Sequence[Rule], recording: AnyRecording, labeler: Labeler) -> Iterator[Firing]:
    """Yield what would have fired over a recording, labelled as live. `labeler` is one that has taken nothing yet."""
    engine = Engine(rules)
    part = next((part for part in labeler.model.manifest.tasks if part.name == TASK), None)
    units = labeler.population.units
    for found in labelled(recording, labeler):
        one = found.predictions

        def placed(one: Predictions = one) -> Mapping[str, Any]:
            if part is None:
                return {}
            return placement_report(one, part, depth_um=units.geometry["depth_um"], shank=units.geometry["shank"])

        yield from engine.take(one, placed)
