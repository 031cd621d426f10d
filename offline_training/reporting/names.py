"""Rows of result files in words that a reader knows."""

from __future__ import annotations

from offline_training.reporting.nested import WHOLE

ROWS = {
    "pool": "nuclr-stream, the shipped pool",
    "predictors": "pool of all predictors",
    "embedding": "NuCLR embedding",
    "embedding_neighbourhood": "NuCLR embedding, with neighbours",
    "statistics": "spike statistics",
    "statistics_neighbourhood": "spike statistics, with neighbours",
    "coupling": "coupling at millisecond lags",
    "coupling_neighbourhood": "coupling at millisecond lags, with neighbours",
    "embedding_offline": "NuCLR embedding, divided by the percentile of the whole recording",
    "trace_statistics": "statistics of the single trace",
    "rate": "mean rate",
    "isi": "interval histogram (128 bins)",
    "isi_aggregated": "interval histogram, with neighbours",
    "lolcat": "LOLCAT (re-implemented)",
    "nemo": "NEMO (re-implemented)",
    "nemo_acg": "NEMO, autocorrelogram alone (re-implemented)",
    "neuprint": "NeuPRINT (re-implemented, no behaviour)",
    "depth": "depth alone (a control that reads what is forbidden here)",
}
TASKS = {"cell_type": "cell type", "brain_region": "brain region", "waveform_class": "waveform class"}


def row_name(row: str, role: str = "") -> str:
    """What a row is, in words, with what its role adds."""
    if role == "plain":
        return "the same pool with readouts of whole recordings only"
    name = ROWS.get(row, row.replace("_", " "))
    return name + {"predictor": " alone", "floor": ", no encoder"}.get(role, "")


def task_name(task: str) -> str:
    """The question of a task in words."""
    return TASKS.get(task, task.replace("_", " "))


def time_name(seconds: str) -> str:
    """The name of a time observed."""
    return "whole recording" if seconds == WHOLE else f"{seconds} s"
