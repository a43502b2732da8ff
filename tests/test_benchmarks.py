"""What the benchmarks say at their end, and about a machine that is busy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fastws import PerMessageDeflate

from .tools import from_checkout

ROOT = Path(__file__).parents[1]
busy, deflate_memory, highlights, results = from_checkout(
    "", "bench.busy", "bench.deflate_memory", "bench.highlights", "bench.results"
)


def cell(workload: str, server: str, rate: float) -> dict[str, Any]:
    median = {"messages_per_second": rate}
    return {"workload": workload, "server": server, "median": median, "rounds": [median]}


def case(who: str, ns: float, *, reference: bool = False) -> dict[str, Any]:
    about = {"operation": "decode", "size": 16, "kind": "binary", "who": who}
    return about | {"reference": reference, "ns": ns, "noise": 0, "rounds": 5}


def measured(**changes: Any) -> Any:
    servers = {"fastws-callback": 900.0, "fastws-callback-uvloop": 1000.0, "picows": 250.0}
    servers |= {"websockets": 100.0, "uwebsockets": 4000.0}
    workloads = ("50x16x32", "50x1x125", "turns-1000x100")
    content = {
        "kernels": ["avx2", "scalar"],
        "cases": [case("fastws-avx2", 13.0), case("picows", 130.0), case("wsproto", 8000.0)],
        "echo": [cell(workload, *item) for workload in workloads for item in servers.items()],
        "clients": {"fastws-callback": {"256": 2000.0}, "picows": {"256": 2010.0}},
    }
    content["cases"].append(case("memcpy", 3.0, reference=True))
    return results.Results(content | changes)


def test_the_end_has_five_lines() -> None:
    explanation, lines = highlights.report(measured()).split("\n\n")
    assert "The best peer = 1.00 x" in explanation
    shown = [" ".join(line.split()) for line in lines.splitlines()]
    assert len(shown) == 5
    assert shown[0] == ("decode a message of 16 bytes 10.0 x (fastws-avx2 13.0 ns; picows 130 ns)")
    # Our best against their best. C++ is no Python library.
    assert shown[1] == (
        "echo: 50 clients, 16 small messages in flight each 4.00 x "
        "(fastws-callback-uvloop 1,000 messages/s; picows 250 messages/s)"
    )
    assert "1.00 x (fastws-callback 2,000 messages/s; picows 2,010" in shown[4]
    # It is no table of targets.
    assert "NO" not in lines


def test_what_was_not_measured_is_left_out() -> None:
    text = highlights.report(measured(cases=[], clients={"fastws-callback": {"256": 2000.0}}))
    assert "decode" not in text
    assert "no peer  (fastws-callback 2,000 messages/s)" in text
    assert highlights.report(measured(cases=[], clients={}, echo=[])) == ""


def process(pid: int, parent: int, name: str, used: float) -> Any:
    return busy.Process(pid, parent, name, used)


def test_a_process_is_parsed() -> None:
    line = f"7 (a (b) c) S 3 {'0 ' * 9}{busy.TICKS} {busy.TICKS} 0 0\n"
    assert busy.Process.parse(line) == process(7, 3, "a (b) c", 2.0)


def test_interrupts_are_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "PROC", tmp_path)
    fields = [100, 10, 200, 5000, 50, 3, 400, 20, 7, 0]
    (tmp_path / "stat").write_text(f"cpu  {' '.join(map(str, fields))}\ncpu0 1 2\n")
    assert busy.used_by_all() == 330 / busy.TICKS


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_our_own_processes_do_not_count() -> None:
    everything = busy.processes()
    family = busy.ours(everything, os.getpid())
    assert {os.getpid(), os.getppid()} <= family
    assert busy.used_by_all() > 0
    tree = {1: process(1, 0, "init", 0), 2: process(2, 1, "make", 0), 3: process(3, 2, "us", 0)}
    tree |= {4: process(4, 3, "server", 0), 5: process(5, 4, "load", 0)}
    tree |= {6: process(6, 1, "other", 0), 7: process(7, 2, "sibling", 0)}
    assert busy.ours(tree, 3) == {1, 2, 3, 4, 5}


def test_processes_that_use_the_cpu_are_named() -> None:
    before = {
        1: process(1, 0, "cc1", 5.0),
        2: process(2, 0, "idle", 9.0),
        3: process(3, 0, "us", 0),
    }
    after = {1: process(1, 0, "cc1", 5.9), 2: process(2, 0, "idle", 9.01)}
    after |= {3: process(3, 0, "us", 1.0), 4: process(4, 0, "cc1", 0.1)}
    assert busy.shares(before, after, {3}, 2.0) == [("cc1", pytest.approx(0.5))]


@pytest.mark.parametrize(
    ("load", "others", "expected"),
    [
        (0.2, [], ""),
        (1.4, [], "load average 1.40"),
        (0.2, [("cc1", 0.5)], "busy: cc1 uses 50 % of a core"),
    ],
)
def test_a_busy_machine_gets_a_warning(
    load: float, others: list[tuple[str, float]], expected: str
) -> None:
    text = busy.warning(load, others)
    assert expected in text
    assert bool(text) is bool(expected)


@pytest.mark.parametrize(
    ("share", "others", "expected"),
    [
        (0.01, [], ""),
        (0.3, [], "other processes used 30 % of a core during the run (load average 2.50"),
        (0.0, [("cc1", 0.5)], "and are still busy: cc1 uses 50 % of a core"),
    ],
)
def test_a_run_that_was_disturbed_is_marked(
    share: float, others: list[tuple[str, float]], expected: str
) -> None:
    text = busy.disturbance(share, 2.5, others)
    assert expected in text
    assert bool(text) is bool(expected)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_memory_of_compression_is_measured() -> None:
    for _, bits, peer_bits, level in deflate_memory.ROWS[:2]:
        options = {"max_window_bits": bits, "peer_max_window_bits": peer_bits, "mem_level": level}
        # (Nothing is known about so few bytes: others may be freed at the same time.)
        assert isinstance(deflate_memory.measure(1, PerMessageDeflate(**options)), float)
