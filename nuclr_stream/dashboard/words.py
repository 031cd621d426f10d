"""States, reasons and losses in words, each with what to do about it. The page shows these and has none of its own."""

from __future__ import annotations

from nuclr_stream.wire import Abstained, UnitFlag

WHY = {
    Abstained.NO_DATA: "nothing has been gathered yet",
    Abstained.LOW_PROBABILITY: "no class is probable enough",
    Abstained.OUT_OF_DISTRIBUTION: "unlike the units of training",
    Abstained.SMALL_POPULATION: "too few active units on this probe",
    Abstained.NONFINITE: "the model gave no number",
}
"""Why no class is named for a unit."""

FLAGS = {
    UnitFlag.SMALL_POPULATION: "population smaller than in training",
    UnitFlag.SILENT: "silent in this window: the prediction rests on earlier ones",
    UnitFlag.NEW: "younger than one window",
    UnitFlag.OOD_EMBEDDING: "its embedding is far from those of training",
    UnitFlag.OOD_STATISTICS: "its spike statistics are far from those of training",
    UnitFlag.OOD_RATE: "its firing rate is outside of training",
    UnitFlag.OOD_POPULATION: "the whole population of this probe is unlike those of training",
    UnitFlag.UNSORTED: "its spikes seem to be of more than one neuron",
}
"""What is to be known about a unit."""

STATES = {
    "ready": "predictions are made",
    "warming_up": "the first window is not complete yet",
    "degraded": "predictions must be read with care",
    "ended": "the source has ended its stream",
}

REASONS = {
    "gap": "too much of the window has no data. Check the acquisition, and the counter of lost messages",
    "mask": "the window touches a masked stretch (stimulation or artefact). It is not used; the next ones will be",
    "silence": "the whole probe was silent for a second. Check that spikes still arrive from the sorter",
    "normaliser": "too few frames so far to normalise traces by. Wait",
    "population_below_minimum": "too few active units for the encoder: only single-unit statistics predict. "
    "Record more units, or take a bundle for fewer",
    "nonfinite": "the model gave no number for this window. Check the input for absurd rates",
    "source_silent": "nothing has come from the source for 2 s. Check the acquisition and the sorter",
    "duplicate": "messages repeat sequence numbers: was an epoch used twice? Start the source with a larger epoch",
    "rejected_stale_epoch": "messages are of an older epoch: did a clock step back? Start a new, larger epoch",
    "rejected_epoch": "the epoch lies beyond the year 2100: epochs are milliseconds of Unix time. Start a new one",
    "rejected_grid_changed": "sample rate or origin changed within the epoch. Start a new epoch",
    "rejected_jump": "samples jump ahead by a day or more. Start a new epoch",
    "rejected_after_end": "the source has ended this epoch and still sends. Start a new epoch",
    "rejected_rate": "the sample rate does not suit the bundle. Take another bundle, or resample",
    "rejected_block": "a message holds a longer stretch than is allowed. Send smaller blocks",
    "rejected_input_kind": "spikes were sent to a bundle for traces, or the reverse. Take another bundle",
}
"""Why a stream is degraded: the cause, and what to do about it."""

LOSSES = {
    "messages_gap": "messages of the source that never arrived",
    "samples_missing": "samples without any data",
    "spikes_late": "spikes that came after their window",
    "spikes_unknown_unit": "spikes of units that no table lists",
    "spikes_out_of_range": "spikes outside of their message's stretch",
    "spikes_repeated": "spikes sent twice",
    "table_behind": "messages that name a newer unit table than the last",
    "tables_out_of_order": "changes of the unit table that missed one before",
    "table_rows_rejected": "rows of unit tables that make no sense",
    "units_over_maximum": "units beyond the most that are taken",
    "frames_late": "frames of traces that came after their window",
    "frames_repeated": "frames of traces sent twice",
    "traces_unknown_unit": "traces of units that no table lists",
    "traces_absent_unit": "units that a message of traces left out",
    "stretches_dropped": "pieces of data in more parts than can be kept apart",
    "masks_melted": "masks in more parts than can be kept apart",
    "operations_overflow": "changes of the unit table that no window took up",
    "unapplied": "messages dropped when a new epoch began",
    "windows_without_data": "windows without any data",
    "duplicate": "messages with a sequence number that was used",
    "skipped_steps": "windows overtaken by newer ones: the machine is too slow",
    "queue_full": "messages dropped because the daemon did not keep up",
    "too_many_streams": "messages of streams beyond the limit",
    "not_recorded": "predictions that could not be written to the record",
    "replies_lost": "answers that no client took",
    "loop_errors": "errors inside the daemon; its log has them",
    "lost_by_page": "predictions that this page's server did not get",
}
"""What a counter of losses counts; one without words is shown by its name."""

NO_LOSS = frozenset(
    {"received", "accepted", "spikes_received", "spikes_accepted", "frames_received", "tables_repeated"}
    | {"messages_reordered", "samples_recovered", "epochs_taken_over"}
)
"""Counters that count no loss."""

FEATURE_SETS = {
    "embedding": "NuCLR embedding",
    "statistics": "spike statistics",
    "coupling": "population coupling",
    "embedding_neighbourhood": "embedding, neighbours",
    "statistics_neighbourhood": "statistics, neighbours",
    "coupling_neighbourhood": "coupling, neighbours",
}

PLACEMENT = {
    "no_depth": "the source gives no depths",
    "no_data": "no window is complete yet",
    "all_abstained": "every unit is abstained from",
    "too_few_units": "too few units with a prediction",
    "one_region": "one region only, so there is no boundary",
    "too_many_shanks": "more shanks than can be placed",
}
"""Why no region was placed on a shank."""


def words() -> dict[str, dict[str, str]]:
    """Return everything in words, as the page takes it: numbers of `why` and bits of `flags` are keys in decimal."""
    return {
        "why": {str(int(why)): text for why, text in WHY.items()},
        "flags": {str(int(flag)): text for flag, text in FLAGS.items()},
        "states": STATES,
        "reasons": REASONS,
        "losses": LOSSES,
        "sets": FEATURE_SETS,
        "placement": PLACEMENT,
    }
