"""Run the whole test suite with one twin after the other, and sum up both.

    python tools/suite.py TWIN... [-- PYTEST OPTIONS]

A twin is `c` or `py`. A failure of the first one does not keep the second from running: it often
shows whether the fault is in one twin or in what they share. The exit status is 1 if any failed,
or if the extension is missing and FASTWS_EXT does not allow that.

This module knows how to run pytest and to read its report. It does not know what is tested.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from install import seconds

ROOT: Final = Path(__file__).resolve().parents[1]
NAMES: Final = {"c": "compiled", "py": "pure Python"}
# Reports, and how long each twin took with the same options, are kept in the virtual environment.
DIRECTORY = Path(sys.prefix)
UNKNOWN: Final = "the whole suite takes 5 to 15 minutes for each, depending on the machine"
NOT_COMPILED: Final = (
    "The extension is not compiled. Run `make clean` and the same command again, or add EXT=auto."
)
MOST_NAMES: Final = 20
# Statuses of pytest after which the other twin is not worth a try: wrong options, no tests.
HOPELESS: Final = (4, 5)


@dataclass
class Outcome:
    """What became of a run of pytest.

    Attributes:
        status: pytest's exit status; None if it was interrupted.
        time: seconds.
        counts: the numbers of tests that passed, failed and were skipped; None without a report.
        failed: the names of those that failed.
    """

    twin: str
    status: int | None
    time: float
    counts: tuple[int, int, int] | None = None
    failed: list[str] = field(default_factory=list)


def main(args: list[str]) -> int:
    at = args.index("--") if "--" in args else len(args)
    twins, options = args[:at], args[at + 1 :]
    if not twins or not set(twins) <= NAMES.keys():
        print("usage: suite.py {c,py}... [-- PYTEST OPTIONS]", file=sys.stderr)
        return 2
    known = remembered()
    times = known.setdefault(shlex.join(options), {})
    there = [twin for twin in twins if twin == "py" or is_compiled()]
    print(announcement(there, times), flush=True)
    outcomes = []
    for twin in there:
        print(f"\n=== {NAMES[twin]} (FASTWS_IMPL={twin})", flush=True)
        outcomes.append(outcome := run(twin, options))
        if outcome.status == 0:
            times[twin] = round(outcome.time)
        if outcome.status is None or outcome.status in HOPELESS:
            break
    times_file().write_text(json.dumps(known))
    print(f"\n{report(outcomes, twins)}", flush=True)
    if there != twins and os.environ.get("FASTWS_EXT", "require") == "require":
        print(NOT_COMPILED, file=sys.stderr)
        return 1
    return int(any(outcome.status != 0 for outcome in outcomes))


def is_compiled() -> bool:
    command = [sys.executable, "-c", "import fastws"]
    env = {**os.environ, "FASTWS_IMPL": "c"}
    return not subprocess.run(command, env=env, capture_output=True, check=False).returncode


def times_file() -> Path:
    return DIRECTORY / "suite.json"


def remembered() -> dict[str, dict[str, int]]:
    """Return how long each twin took the last time, by pytest's options."""
    try:
        known: dict[str, dict[str, int]] = json.loads(times_file().read_text())
    except (OSError, ValueError):
        return {}
    return known


def announcement(twins: list[str], times: dict[str, int]) -> str:
    """Return what will run and how long it will take."""
    names = " and then ".join(NAMES[twin] for twin in twins)
    if not twins:
        return "Nothing to test."
    if all(twin in times for twin in twins):
        expected = f"about {seconds(sum(times[twin] for twin in twins))}, as the last time"
    else:
        expected = UNKNOWN
    return f"Testing fastws, {names}: {expected}."


def run(twin: str, options: list[str]) -> Outcome:
    """Run pytest for a twin; its output goes to the terminal."""
    path = DIRECTORY / f"suite-{twin}.xml"
    path.unlink(missing_ok=True)
    began = time.monotonic()
    command = [sys.executable, "-X", "dev", "-m", "pytest", f"--junitxml={path}", *options]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "FASTWS_IMPL": twin})
    status: int | None
    try:
        status = process.wait()
    except KeyboardInterrupt:
        # The terminal has interrupted pytest, too. It stops its workers and prints what it knows,
        # unless it is interrupted again: that is up to pytest, and ours is the summary.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.wait()
        status = None
    outcome = Outcome(twin, status, time.monotonic() - began)
    if path.exists():
        read(outcome, path)
    return outcome


def read(outcome: Outcome, path: Path) -> None:
    """Fill in what a report in JUnit's format says."""
    total = skipped = 0
    for case in ElementTree.parse(path).iter("testcase"):
        total += 1
        skipped += case.find("skipped") is not None
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed.append(f"{case.get('classname')}::{case.get('name')}".removeprefix("::"))
    # A test that failed may also fail when it is torn down.
    failed = len(set(outcome.failed))
    outcome.counts = (total - skipped - len(outcome.failed), failed, skipped)


def report(outcomes: list[Outcome], twins: list[str]) -> str:
    """Return a table of the outcomes, and a sentence that says whether all is well."""
    lines = [f"{'':<14}{'passed':>8}{'failed':>8}{'skipped':>9}{'time':>14}"]
    for outcome in outcomes:
        if outcome.counts is None:
            text = f"{'no report':>25}"
        else:
            passed, failed, skipped = outcome.counts
            text = f"{passed:>8}{failed:>8}{skipped:>9}"
        lines.append(f"{NAMES[outcome.twin]:<14}{text}{seconds(outcome.time):>14}")
    run_twins = [outcome.twin for outcome in outcomes]
    lines += [f"{NAMES[twin]:<14}{'not run':>25}" for twin in twins if twin not in run_twins]
    for outcome in outcomes:
        names = list(dict.fromkeys(outcome.failed))
        if names:
            lines += ["", f"failed, {NAMES[outcome.twin]}:"]
            lines += [f"  {name}" for name in names[:MOST_NAMES]]
        if len(names) > MOST_NAMES:
            lines.append(f"  and {len(names) - MOST_NAMES} more")
    took = seconds(sum(outcome.time for outcome in outcomes))
    if any(outcome.status is None for outcome in outcomes):
        verdict = f"Interrupted after {took}."
    elif bad := [outcome for outcome in outcomes if outcome.status]:
        why = ", ".join(f"{NAMES[outcome.twin]} (status {outcome.status})" for outcome in bad)
        verdict = f"FAILED after {took}: {why}."
    else:
        verdict = f"All tests passed, in {took}."
    return "\n".join([*lines, "", verdict])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
