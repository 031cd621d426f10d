"""What a measurement says about the machine, and about the work of others that made it slower."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from nuclr_stream.commands import machine
from nuclr_stream.commands.machine import MachineWatch

TICK_S = 0.01


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """A machine of two cores whose clocks are ours: seconds of the clock, of this process, and busy since boot."""
    now = {"clock_s": 0.0, "own_s": 0.0}
    monkeypatch.setattr(machine, "CPU_TIMES", tmp_path / "stat")
    monkeypatch.setattr(machine.time, "monotonic", lambda: now["clock_s"])
    monkeypatch.setattr(machine.time, "process_time", lambda: now["own_s"])
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(machine.os, "sysconf", lambda name: {"SC_CLK_TCK": round(1 / TICK_S)}[name])
    return now


def busy(**seconds: float) -> None:
    """Write /proc/stat as proc(5) orders it; guest time is part of user time already."""
    columns = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
    ticks = [str(round(seconds.get(column, 0.0) / TICK_S)) for column in columns]
    machine.CPU_TIMES.write_text(f"cpu  {' '.join(ticks)}\ncpu0 1 2 3 4 5 6 7 8 9 10\n", encoding="ascii")


def test_facts_name_what_was_measured_on_and_are_json() -> None:
    facts = MachineWatch().facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu"] and facts["cores"] >= 1
    assert facts["python"] == platform.python_version()
    assert "numpy" in facts["packages"]
    assert any(name.startswith("onnxruntime") for name in facts["packages"])


def test_other_work_is_all_busy_time_but_our_own(clock: dict[str, float]) -> None:
    busy(user=100.0, idle=1000.0)
    watch = MachineWatch()
    clock.update(clock_s=10.0, own_s=9.0)
    busy(user=110.0, system=1.0, softirq=0.5, steal=1.5, idle=1005.0, iowait=2.0, guest=3.0)
    assert watch.facts()["other_work"] == pytest.approx((10.0 + 1.0 + 0.5 + 1.5 - 9.0) / (2 * 10.0))


def test_rounding_of_ticks_is_no_work(clock: dict[str, float]) -> None:
    busy(user=100.0)
    watch = MachineWatch()
    clock.update(clock_s=10.0, own_s=10.004)
    busy(user=110.0)
    assert watch.facts()["other_work"] == 0.0


def test_where_the_system_does_not_say_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CPU_TIMES", tmp_path / "absent")
    monkeypatch.setattr(machine, "CPU_NAMES", tmp_path / "absent")
    facts = MachineWatch().facts()
    assert facts["other_work"] is None
    assert facts["cpu"] == (platform.processor() or platform.machine())


def test_the_name_of_the_cpu_is_the_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CPU_NAMES", tmp_path / "cpuinfo")
    machine.CPU_NAMES.write_text("processor\t: 0\nmodel name\t: Some CPU: 3 GHz\n", encoding="utf-8")
    assert MachineWatch().facts()["cpu"] == "Some CPU: 3 GHz"
