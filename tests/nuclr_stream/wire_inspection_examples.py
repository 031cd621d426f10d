"""One message of each kind about units, and the bytes that it must be."""

from __future__ import annotations

import numpy as np

from nuclr_stream import wire

MESSAGES = {
    "activity": wire.ActivityRequest(request_id=6, stream="probeA", counts=True),
    "evidence": wire.EvidenceRequest(request_id=7, stream="probeA", unit_ids=("a", "µ2")),
    "activity_reply": wire.ActivityReply(
        request_id=6,
        stream="probeA",
        epoch=7,
        version=2,
        end_sample=300,
        scale=1.0,
        unit_index=np.array([4, 6], dtype=np.uint32),
        shank=np.array([3, -1], dtype=np.int32),
        x_um=np.array([16, np.nan], dtype=np.float32),
        depth_um=np.array([3840, np.nan], dtype=np.float32),
        channel=np.array([383, -1], dtype=np.int32),
        unit_ids=("a", "µ2"),
        counts=np.array([[0, 1, 2], [255, 0, 0]], dtype=np.uint8),
        observed=np.array([True, True, False]),
    ),
    "evidence_reply": wire.EvidenceReply(request_id=7, stream="probeA", evidence='{"units":[]}'),
}
FRAMES = {
    "activity": [
        b"activity/probeA",
        b"\x83\xa1v\x01\xaarequest_id\x06\xa6counts\xc3",
    ],
    "evidence": [
        b"evidence/probeA",
        b"\x83\xa1v\x01\xaarequest_id\x07\xa5units\x02",
        b"\x00\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00",
        b"a\xc2\xb52",
    ],
    "activity_reply": [
        b"activity_reply/probeA",
        (
            b"\x88"
            b"\xa1v\x01"
            b"\xaarequest_id\x06"
            b"\xa5epoch\x07"
            b"\xa7version\x02"
            b"\xaaend_sample\xcd\x01,"
            b"\xa5scale\xcb?\xf0\x00\x00\x00\x00\x00\x00"
            b"\xa5units\x02"
            b"\xa4bins\x03"
        ),
        b"\x04\x00\x00\x00\x06\x00\x00\x00",
        b"\x03\x00\x00\x00\xff\xff\xff\xff",
        b"\x00\x00\x80A\x00\x00\xc0\x7f",
        b"\x00\x00pE\x00\x00\xc0\x7f",
        b"\x7f\x01\x00\x00\xff\xff\xff\xff",
        b"\x00\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00",
        b"a\xc2\xb52",
        b"\x00\x01\x02\xff\x00\x00",
        b"\x01\x01\x00",
    ],
    "evidence_reply": [
        b"evidence_reply/probeA",
        b"\x82\xa1v\x01\xaarequest_id\x07",
        b'{"units":[]}',
    ],
}
