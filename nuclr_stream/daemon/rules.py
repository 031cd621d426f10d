"""The rules of a daemon: made from its settings, or refused before anything is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nuclr_stream.config import Settings
from nuclr_stream.errors import ConfigError
from nuclr_stream.inference.model import Model
from nuclr_stream.placement.report import TASK
from nuclr_stream.rules.journal import Journal
from nuclr_stream.rules.runner import RuleRunner
from nuclr_stream.rules.settings import read_rules

NOWHERE = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32)
"""Places of units for rules that do not ask for them."""


def start_rules(settings: Settings, model: Model, wake: Callable[[], None]) -> RuleRunner | None:
    """Return the rules at work, None where the settings have none.

    Raises ConfigError for rules that the bundle cannot answer or without a journal, NuclrStreamError for a journal that
    cannot be used.
    """
    rules, sinks = read_rules(settings.rules, settings.sinks, model.manifest)
    if not rules:
        return None
    if not settings.rules_journal:
        raise ConfigError(
            "rules_journal is empty, and rules need it to fire once per epoch over restarts too: name a file, such as "
            'rules_journal = "/var/lib/nuclr-stream/rules.jsonl"'
        )
    part = next((part for part in model.manifest.tasks if part.name == TASK), None)
    return RuleRunner(rules, sinks, Journal(Path(settings.rules_journal)), part=part, wake=wake)
