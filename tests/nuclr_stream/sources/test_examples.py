"""The examples do what they say: each is run against the daemon's side of the protocol."""

from __future__ import annotations

import re
import runpy
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nuclr_stream.sources.lsl import LslSource
from nuclr_stream.wire import End, SpikeBatch, TraceBatch, UnitTable
from tests.nuclr_stream.sources.daemon_inbox import daemon_inbox

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_spikes_of_python() -> None:
    with daemon_inbox() as inbox:
        runpy.run_path(str(EXAMPLES / "publish_spikes.py"))["publish"](inbox.endpoint, seconds=1.0)
        inbox.take(ends=1)
    assert inbox.of(End)[0].sample == 30_000
    assert inbox.observed(inbox.epochs[0]) == [(0, 30_000)]
    assert 50 < sum(inbox.spikes().values()) < 200


def test_calcium_frames_with_a_unit_that_appears() -> None:
    def frames() -> Iterator[tuple[list[str], list[float]]]:
        for frame in range(6):
            units = ["a", "b"] if frame < 3 else ["a", "b", "c"]
            yield units, [frame + row / 10 for row in range(len(units))]

    with daemon_inbox() as inbox:
        runpy.run_path(str(EXAMPLES / "calcium_frames.py"))["publish"](frames(), inbox.endpoint)
        inbox.take(ends=1)
    assert [table.unit_ids for table in inbox.of(UnitTable)] == [("a", "b"), ("a", "b", "c")]
    assert inbox.of(UnitTable)[1].added.tolist()[2] == 3
    assert [batch.values.shape for batch in inbox.of(TraceBatch)] == [(2, 1)] * 3 + [(3, 1)] * 3
    assert [batch.first_frame for batch in inbox.of(TraceBatch)] == list(range(6))


def test_onacid_units_appear_and_frames_that_never_came_are_missing() -> None:
    estimates = SimpleNamespace(gnb=2, C_on=np.arange(60, dtype=np.float64).reshape(6, 10))
    with daemon_inbox() as inbox:
        forwarder = runpy.run_path(str(EXAMPLES / "calcium_onacid.py"))["Forwarder"]
        with forwarder(rate_hz=4.2837, endpoint=inbox.endpoint, first_frame=2) as sending:
            for t, units in ((2, 2), (3, 2), (6, 4)):
                sending.frame(estimates, units, t)
        inbox.take(ends=1)
    batches = inbox.of(TraceBatch)
    assert [(batch.first_frame, batch.values[:, 0].tolist()) for batch in batches] == [
        (2, [22.0, 32.0]),
        (3, [23.0, 33.0]),
        (6, [26.0, 36.0, 46.0, 56.0]),
    ]


def test_spikes_on_lsl_are_read_by_the_source() -> None:
    pytest.importorskip("pylsl", reason="pylsl, or the liblsl that it wraps, is not installed")
    name = f"example-{uuid.uuid4().hex[:8]}"
    publish = runpy.run_path(str(EXAMPLES / "publish_lsl.py"))["publish"]
    thread = threading.Thread(target=publish, args=(name,), kwargs={"seconds": 0.5})
    with daemon_inbox() as inbox:
        source = LslSource(name, endpoint=inbox.endpoint)
        thread.start()
        while not source.counters["rows"] or source.writer is None or source.writer.watermark < 15_000:
            source.turn(0.2)
        source.close()
        thread.join()
        inbox.take(ends=1)
    assert source.counters["rows_lost"] == 0
    assert inbox.observed(inbox.epochs[0])[-1][1] >= 15_000
    assert isinstance(inbox.messages[0], UnitTable) and inbox.of(SpikeBatch)


def test_the_example_of_bonsai_is_python_that_compiles() -> None:
    text = (EXAMPLES / "publish_spikes_bonsai.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(code, "rig.py", "exec")


def test_every_example_is_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.name}`" in listed for path in EXAMPLES.iterdir() if path.name != "README.md")
