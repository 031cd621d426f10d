"""One message of every kind, and the very bytes that it is on the wire. Never edit bytes of a release."""

from fractions import Fraction

import numpy as np

from nuclr_stream import wire
from tests.nuclr_stream import wire_inspection_examples


def _f4(*values):
    return np.array(values, dtype="<f4")


def _u4(*values):
    return np.array(values, dtype="<u4")


SOURCE = {"stream": "probeA", "epoch": 7, "seq": 3, "sample_rate": Fraction(390625, 16), "origin": -5}
TASK = wire.TaskPredictions(
    name="cell_type",
    classes=("E", "PV"),
    probabilities=_f4([0.75, 0.25], [0.5, 0.5]),
    sets=np.array([[True, False], [True, True]]),
    why=np.array([wire.Abstained.NO, wire.Abstained.LOW_PROBABILITY], dtype=np.uint8),
    stable_since=np.array([300, -1]),
    flips=1,
)
STATE = wire.StreamState(
    stream="probeA",
    epoch=7,
    instance=5,
    state="warming_up",
    reasons=("silence",),
    progress=0.5,
    units=2,
    step=-1,
    end_sample=0,
    watermark=150,
    skipped_steps=0,
    counters={"late": 2},
)
MESSAGES = {
    "spikes": wire.SpikeBatch(
        **SOURCE, start=-10, stop=600, table_version=2, samples=np.array([599, -10]), units=_u4(1, 4_000_000_000)
    ),
    "traces": wire.TraceBatch(
        **SOURCE, first_frame=128, table_version=2, units=_u4(4, 6), values=_f4([0, 1.5, -2], [0.5, 0, 0])
    ),
    "units": wire.UnitTable(
        **SOURCE,
        version=2,
        full=True,
        sample=600,
        continues=True,
        action=np.array([wire.UnitAction.ADD, wire.UnitAction.MERGE], dtype=np.uint8),
        index=_u4(4, 6),
        into=_u4(0, 4),
        added=np.array([600, 0]),
        shank=np.array([1, -1], dtype=np.int32),
        x_um=_f4(16, np.nan),
        depth_um=_f4(3840, np.nan),
        channel=np.array([383, -1], dtype=np.int32),
        unit_ids=("a", "µ2"),
    ),
    "mask": wire.MaskInterval(**SOURCE, start=600, stop=900, cause="stimulation"),
    "heartbeat": wire.Heartbeat(**SOURCE, start=600, stop=600),
    "end": wire.End(**SOURCE, sample=900),
    "predictions": wire.Predictions(
        stream="probeA",
        epoch=7,
        step=2,
        seq=9,
        instance=5,
        end_sample=300,
        sample_rate=Fraction(30000),
        origin=0,
        closed_ns=1000,
        published_ns=2000,
        state="degraded",
        reasons=("gap",),
        missing=0.25,
        active_units=2,
        skipped_steps=1,
        bundle="demo",
        hop_s=1.0,
        window_s=10.0,
        unit_index=_u4(4, 6),
        unit_ids=("a", "µ2"),
        windows=_u4(3, 0),
        exposure=_f4(1.25, 0),
        ood_score=_f4(0.5, 1.5),
        flags=np.array([0, wire.UnitFlag.SMALL_POPULATION | wire.UnitFlag.OOD_RATE], dtype=np.uint8),
        tasks=(TASK,),
    ),
    "state": STATE,
    "daemon": wire.DaemonState(
        instance=5,
        uptime_s=1.5,
        provider="CPUExecutionProvider",
        bundle="demo",
        streams=("probeA",),
        counters={"kind": 1},
    ),
    "event": wire.Event(stream="probeA", kind="gap", detail="600 samples", epoch=7, sample=600, monotonic_ns=1000),
    "rule": wire.RuleFired(
        stream="probeA",
        event_id="pv/probeA/7/a",
        rule="pv",
        subject="a",
        value=0.75,
        epoch=7,
        step=3,
        end_sample=600,
        closed_ns=1000,
        fired_ns=2000,
    ),
    "snapshot": wire.SnapshotRequest(request_id=1),
    "embeddings": wire.EmbeddingsRequest(request_id=2, stream="probeA", unit_ids=("a", "µ2")),
    "embed_window": wire.EmbedWindowRequest(request_id=3, counts=_f4([0, 1, 2], [3, 0, 0]), within_ms=250),
    "status": wire.StatusRequest(request_id=4),
    "placement": wire.PlacementRequest(
        request_id=5,
        stream="probeA",
        task="brain_region",
        regions=("CTX", "µ"),
        from_um=_f4(-100, 500),
        to_um=_f4(500, 900),
    ),
    "received": wire.ReceivedRequest(request_id=6, stream="probeA"),
    "received_reply": wire.ReceivedReply(
        request_id=6, stream="probeA", instance=9, known=True, epoch=7, next_seq=3, watermark=-5
    ),
    "snapshot_reply": wire.SnapshotReply(request_id=1, messages=(STATE,)),
    "embeddings_reply": wire.EmbeddingsReply(
        request_id=2,
        stream="probeA",
        epoch=7,
        end_sample=300,
        unit_ids=("a",),
        windows=_u4(3),
        mean=_f4([0.5, -1]),
        last=_f4([0, 2]),
    ),
    "embed_window_reply": wire.EmbedWindowReply(request_id=3, embedding=_f4([1, 0], [0, -1])),
    "status_reply": wire.StatusReply(request_id=4, status='{"ready":true}'),
    "placement_reply": wire.PlacementReply(request_id=5, stream="probeA", placement='{"shanks":[]}'),
    "error": wire.ErrorReply(request_id=4, reason="unknown_stream", detail="probeB"),
}
FRAMES = {
    "spikes": [
        b"spikes/probeA",
        (
            b"\x89"
            b"\xa1v\x01"
            b"\xa5epoch\x07"
            b"\xa3seq\x03"
            b"\xabsample_rate\x92\xce\x00\x05\xf5\xe1\x10"
            b"\xa6origin\xfb"
            b"\xa5start\xf6"
            b"\xa4stop\xcd\x02X"
            b"\xadtable_version\x02"
            b"\xa6spikes\x02"
        ),
        b"W\x02\x00\x00\x00\x00\x00\x00\xf6\xff\xff\xff\xff\xff\xff\xff",
        b"\x01\x00\x00\x00\x00(k\xee",
    ],
    "traces": [
        b"traces/probeA",
        (
            b"\x89"
            b"\xa1v\x01"
            b"\xa5epoch\x07"
            b"\xa3seq\x03"
            b"\xabsample_rate\x92\xce\x00\x05\xf5\xe1\x10"
            b"\xa6origin\xfb"
            b"\xabfirst_frame\xcc\x80"
            b"\xadtable_version\x02"
            b"\xa5units\x02"
            b"\xa6frames\x03"
        ),
        b"\x04\x00\x00\x00\x06\x00\x00\x00",
        b"\x00\x00\x00\x00\x00\x00\xc0?\x00\x00\x00\xc0\x00\x00\x00?\x00\x00\x00\x00\x00\x00\x00\x00",
    ],
    "units": [
        b"units/probeA",
        (
            b"\x8a"
            b"\xa1v\x01"
            b"\xa5epoch\x07"
            b"\xa3seq\x03"
            b"\xabsample_rate\x92\xce\x00\x05\xf5\xe1\x10"
            b"\xa6origin\xfb"
            b"\xa7version\x02"
            b"\xa4full\xc3"
            b"\xa6sample\xcd\x02X"
            b"\xa9continues\xc3"
            b"\xa4rows\x02"
        ),
        b"\x00\x02",
        b"\x04\x00\x00\x00\x06\x00\x00\x00",
        b"\x00\x00\x00\x00\x04\x00\x00\x00",
        b"X\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\xff\xff\xff\xff",
        b"\x00\x00\x80A\x00\x00\xc0\x7f",
        b"\x00\x00pE\x00\x00\xc0\x7f",
        b"\x7f\x01\x00\x00\xff\xff\xff\xff",
        b"\x00\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00",
        b"a\xc2\xb52",
    ],
    "mask": [
        b"mask/probeA",
        (
            b"\x88"
            b"\xa1v\x01"
            b"\xa5epoch\x07"
            b"\xa3seq\x03"
            b"\xabsample_rate\x92\xce\x00\x05\xf5\xe1\x10"
            b"\xa6origin\xfb"
            b"\xa5start\xcd\x02X"
            b"\xa4stop\xcd\x03\x84"
            b"\xa5cause\xabstimulation"
        ),
    ],
    "heartbeat": [
        b"heartbeat/probeA",
        (
            b"\x87"
            b"\xa1v\x01"
            b"\xa5epoch\x07"
            b"\xa3seq\x03"
            b"\xabsample_rate\x92\xce\x00\x05\xf5\xe1\x10"
            b"\xa6origin\xfb"
            b"\xa5start\xcd\x02X"
            b"\xa4stop\xcd\x02X"
        ),
    ],
    "end": [
        b"end/probeA",
        (
            b"\x86"
            b"\xa1v\x01"
            b"\xa5epoch\x07"
            b"\xa3seq\x03"
            b"\xabsample_rate\x92\xce\x00\x05\xf5\xe1\x10"
            b"\xa6origin\xfb"
            b"\xa6sample\xcd\x03\x84"
        ),
    ],
    "predictions": [
        b"predictions/probeA",
        (
            b"\xde\x00\x14"
            b"\xa1v\x01"
            b"\xa5epoch\x07"
            b"\xa4step\x02"
            b"\xa3seq\t"
            b"\xa8instance\x05"
            b"\xaaend_sample\xcd\x01,"
            b"\xabsample_rate\x92\xcdu0\x01"
            b"\xa6origin\x00"
            b"\xa9closed_ns\xcd\x03\xe8"
            b"\xacpublished_ns\xcd\x07\xd0"
            b"\xa5state\xa8degraded"
            b"\xa7reasons\x91\xa3gap"
            b"\xa7missing\xcb?\xd0\x00\x00\x00\x00\x00\x00"
            b"\xacactive_units\x02"
            b"\xadskipped_steps\x01"
            b"\xa6bundle\xa4demo"
            b"\xa5hop_s\xcb?\xf0\x00\x00\x00\x00\x00\x00"
            b"\xa8window_s\xcb@$\x00\x00\x00\x00\x00\x00"
            b"\xa5units\x02"
            b"\xa5tasks\x91\x83\xa4name\xa9cell_type\xa7classes\x02\xa5flips\x01"
        ),
        b"\x04\x00\x00\x00\x06\x00\x00\x00",
        b"\x00\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00",
        b"a\xc2\xb52",
        b"\x03\x00\x00\x00\x00\x00\x00\x00",
        b"\x00\x00\xa0?\x00\x00\x00\x00",
        b"\x00\x00\x00?\x00\x00\xc0?",
        b"\x00!",
        b"\x00\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00",
        b"EPV",
        b"\x00\x00@?\x00\x00\x80>\x00\x00\x00?\x00\x00\x00?",
        b"\x01\x00\x01\x01",
        b"\x00\x02",
        b",\x01\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
    "state": [
        b"state/probeA",
        (
            b"\x8c"
            b"\xa1v\x01"
            b"\xa5epoch\x07"
            b"\xa8instance\x05"
            b"\xa5state\xaawarming_up"
            b"\xa7reasons\x91\xa7silence"
            b"\xa8progress\xcb?\xe0\x00\x00\x00\x00\x00\x00"
            b"\xa5units\x02"
            b"\xa4step\xff"
            b"\xaaend_sample\x00"
            b"\xa9watermark\xcc\x96"
            b"\xadskipped_steps\x00"
            b"\xa8counters\x81\xa4late\x02"
        ),
    ],
    "daemon": [
        b"daemon/",
        (
            b"\x87"
            b"\xa1v\x01"
            b"\xa8instance\x05"
            b"\xa8uptime_s\xcb?\xf8\x00\x00\x00\x00\x00\x00"
            b"\xa8provider\xb4CPUExecutionProvider"
            b"\xa6bundle\xa4demo"
            b"\xa7streams\x91\xa6probeA"
            b"\xa8counters\x81\xa4kind\x01"
        ),
    ],
    "event": [
        b"event/probeA",
        (
            b"\x86"
            b"\xa1v\x01"
            b"\xa4kind\xa3gap"
            b"\xa6detail\xab600 samples"
            b"\xa5epoch\x07"
            b"\xa6sample\xcd\x02X"
            b"\xacmonotonic_ns\xcd\x03\xe8"
        ),
    ],
    "rule": [
        b"rule/probeA",
        (
            b"\x8a"
            b"\xa1v\x01"
            b"\xa8event_id\xadpv/probeA/7/a"
            b"\xa4rule\xa2pv"
            b"\xa7subject\xa1a"
            b"\xa5value\xcb?\xe8\x00\x00\x00\x00\x00\x00"
            b"\xa5epoch\x07"
            b"\xa4step\x03"
            b"\xaaend_sample\xcd\x02X"
            b"\xa9closed_ns\xcd\x03\xe8"
            b"\xa8fired_ns\xcd\x07\xd0"
        ),
    ],
    "snapshot": [
        b"snapshot/",
        b"\x82\xa1v\x01\xaarequest_id\x01",
    ],
    "embeddings": [
        b"embeddings/probeA",
        b"\x83\xa1v\x01\xaarequest_id\x02\xa5units\x02",
        b"\x00\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00",
        b"a\xc2\xb52",
    ],
    "embed_window": [
        b"embed_window/",
        b"\x85\xa1v\x01\xaarequest_id\x03\xa9within_ms\xcc\xfa\xa5units\x02\xa4bins\x03",
        b"\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x00\x00\x00\x00\x00\x00",
    ],
    "status": [
        b"status/",
        b"\x82\xa1v\x01\xaarequest_id\x04",
    ],
    "snapshot_reply": [
        b"snapshot_reply/",
        b"\x83\xa1v\x01\xaarequest_id\x01\xa5parts\x91\x02",
        b"state/probeA",
        (
            b"\x8c"
            b"\xa1v\x01"
            b"\xa5epoch\x07"
            b"\xa8instance\x05"
            b"\xa5state\xaawarming_up"
            b"\xa7reasons\x91\xa7silence"
            b"\xa8progress\xcb?\xe0\x00\x00\x00\x00\x00\x00"
            b"\xa5units\x02"
            b"\xa4step\xff"
            b"\xaaend_sample\x00"
            b"\xa9watermark\xcc\x96"
            b"\xadskipped_steps\x00"
            b"\xa8counters\x81\xa4late\x02"
        ),
    ],
    "embeddings_reply": [
        b"embeddings_reply/probeA",
        (b"\x86\xa1v\x01\xaarequest_id\x02\xa5epoch\x07\xaaend_sample\xcd\x01,\xa5units\x01\xa3dim\x02"),
        b"\x00\x00\x00\x00\x01\x00\x00\x00",
        b"a",
        b"\x03\x00\x00\x00",
        b"\x00\x00\x00?\x00\x00\x80\xbf",
        b"\x00\x00\x00\x00\x00\x00\x00@",
    ],
    "embed_window_reply": [
        b"embed_window_reply/",
        b"\x84\xa1v\x01\xaarequest_id\x03\xa5units\x02\xa3dim\x02",
        b"\x00\x00\x80?\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\xbf",
    ],
    "status_reply": [
        b"status_reply/",
        b"\x82\xa1v\x01\xaarequest_id\x04",
        b'{"ready":true}',
    ],
    "placement": [
        b"placement/probeA",
        (b"\x85\xa1v\x01\xaarequest_id\x05\xa4task\xacbrain_region\xa9within_ms\x00\xa7regions\x02"),
        b"\x00\x00\x00\x00\x03\x00\x00\x00\x05\x00\x00\x00",
        b"CTX\xc2\xb5",
        b"\x00\x00\xc8\xc2\x00\x00\xfaC",
        b"\x00\x00\xfaC\x00\x00aD",
    ],
    "placement_reply": [
        b"placement_reply/probeA",
        b"\x82\xa1v\x01\xaarequest_id\x05",
        b'{"shanks":[]}',
    ],
    "received": [b"received/probeA", b"\x82\xa1v\x01\xaarequest_id\x06"],
    "received_reply": [
        b"received_reply/probeA",
        (b"\x87\xa1v\x01\xaarequest_id\x06\xa8instance\x09\xa5known\xc3\xa5epoch\x07\xa8next_seq\x03\xa9watermark\xfb"),
    ],
    "error": [
        b"error/",
        (b"\x84\xa1v\x01\xaarequest_id\x04\xa6reason\xaeunknown_stream\xa6detail\xa6probeB"),
    ],
}
MESSAGES |= wire_inspection_examples.MESSAGES
FRAMES |= wire_inspection_examples.FRAMES
