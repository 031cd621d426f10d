import time, sys, tempfile
from pathlib import Path
import numpy as np
from tests.faults.rig import *

folder = Path(tempfile.mkdtemp())
snap = sys.argv[1] == "1"
opts = ("--snapshots", str(folder / "snap")) if snap else ()
t = time.monotonic()
a = Process(folder, *opts)
print("start", time.monotonic() - t)
speed = float(sys.argv[2])
probe = Probe(a, units=12, seed=3, speed=speed)
l = Listener(a, "probe")
with probe, l:
    l.wait(lambda: len(l.heard) >= 6, 30, "first")
    for k in range(int(sys.argv[3])):
        time.sleep(0.3 + 0.37 * k)
        a.kill()
        t = time.monotonic()
        a = Process(folder, *opts, like=a)
        up = time.monotonic() - t
        l.wait(lambda: l.since(t), 30, "back")
        first = [w for w, _ in l.heard if w >= t][0] - t
        l.wait(lambda: len(l.since(t)) >= 10, 30, "back")
        print(
            "up %.2f first %.2f" % (up, first),
            [p.step for p in l.since(t)],
            probe.publisher.unsent,
            l.subscription.lost,
        )
        print(a.status()["streams"]["probe"])
        print(a.log[-500:])
    probe.finish()
exp = truth(units=12, seed=3, stop=probe.publisher.watermark)
print(len(l.heard), sum(same(p, exp[p.end_sample]) for _, p in l.heard), len({p.end_sample for _, p in l.heard}))
bad = [
    (p.step, p.end_sample / 30000, p.missing, p.windows.max(), exp[p.end_sample].windows.max(), p.reasons)
    for _, p in l.heard
    if not same(p, exp[p.end_sample])
]
print(bad[:20])
a.end()
print(a.get("/livez"))
