"""Recordings through the encoder of a run, kept beside it, so that a long evaluation can stop and go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuclr_stream.recordings.readers import AnyRecording
from nuclr_stream.windows.binning import BoolArray, Float32Array, WindowRules, WindowSpec
from offline_training.pretraining.runs import Run
from offline_training.readouts.embed import Embedded, Encode, embed_recording, through_torch


def embed_by_run(run_dir: Path, recordings: Sequence[AnyRecording], *, hop_s: float | None = None) -> list[Embedded]:
    """The windows of every recording, `hop_s` or one window apart, as the encoder of a run embeds them.

    Embeddings one window apart are kept in run_dir/embedded, where the next call finds them; those of another recording
    of that name, or of other rules, do not fit its units and windows and are made anew.
    """
    run = Run.open(run_dir)
    encoder, config = run.encoder, run.config
    window_s = config.window.spec.window_s
    spec = config.window.spec.with_hop_s(hop_s or window_s)
    if spec.hop_s != window_s:
        return [embed_recording(through_torch(encoder), each, spec, config.rules.rules) for each in recordings]
    folder = run_dir / "embedded"
    folder.mkdir(exist_ok=True)
    found = []
    for recording in recordings:
        path = folder / f"{recording.recording_id}.npz"
        embedded = _kept(path, recording, spec, config.rules.rules)
        if embedded is None:
            embedded = embed_recording(through_torch(encoder), recording, spec, config.rules.rules)
            _keep(path, embedded)
        found.append(embedded)
    return found


def _kept(path: Path, recording: AnyRecording, spec: WindowSpec, rules: WindowRules) -> Embedded | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:
        values, members = archive["embeddings"], archive["embedded"]
    embedded = embed_recording(_replay(values), recording, spec, rules)
    return embedded if np.array_equal(embedded.embedded, members) else None


def _keep(path: Path, embedded: Embedded) -> None:
    temporary = path.with_name(path.stem + ".part.npz")
    np.savez(temporary, embeddings=embedded.embeddings[embedded.embedded], embedded=embedded.embedded)
    temporary.replace(path)


def _replay(values: Float32Array) -> Encode:
    """Give the embeddings (N, D) out again, in the order of windows and units."""
    given = 0

    def encode(counts: Float32Array, mask: BoolArray) -> Float32Array:
        nonlocal given
        out = np.zeros((*mask.shape, values.shape[1]), dtype=np.float32)
        wanted = int(mask.sum())
        if given + wanted <= len(values):  # otherwise they are not those of these windows, see `_kept`
            out[mask] = values[given : given + wanted]
        given += wanted
        return out

    return encode
