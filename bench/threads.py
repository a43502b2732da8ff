"""What a second thread gains, with a GIL and without.

Each thread has its own decoder; the stream is the same. This module is run by the Python that
draws the chart, and runs itself with the two that are compared: the same CPython, built twice.

python -m bench.threads GIL_PYTHON FREE_THREADED_PYTHON
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
CHARTS = ROOT / "docs" / "_static" / "charts"
THREADS = (1, 2)
SECONDS = 0.4  # for each round
ROUNDS = 4
BUILDS = ("GIL", "free-threaded")

# The operations, and the sizes of their messages.
DECODE, MASK = "decode", "apply_mask"
CASES = [
    ("fastws", DECODE, 16),
    ("fastws-py", DECODE, 16),
    ("websockets-py", DECODE, 16),
    ("wsproto", DECODE, 16),
    ("fastws", DECODE, 1 << 20),
    ("fastws", MASK, 1 << 20),
]


def rate(make: Callable[[], Callable[[], int]], threads: int) -> float:
    """Messages per second of all threads together, in the best round."""
    best = 0.0
    calls = [make() for _ in range(threads)]
    for _ in range(ROUNDS):
        begin = threading.Barrier(threads)
        rates: list[float] = []

        def run(
            call: Callable[[], int],
            begin: threading.Barrier = begin,
            rates: list[float] = rates,
        ) -> None:
            begin.wait()
            start = now = perf_counter()
            messages = 0
            while now - start < SECONDS:
                messages += call()
                now = perf_counter()
            rates.append(messages / (now - start))

        workers = [threading.Thread(target=run, args=(call,)) for call in calls]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = max(best, sum(rates))
    return best


def measure() -> dict[str, Any]:
    """Run all cases in this Python."""
    from .contenders import BEST, DECODERS
    from .payloads import KEY, payload, stream

    decoders = {who.name: who for who in DECODERS}
    decoders["fastws"] = decoders[BEST]

    def made(who: str, operation: str, size: int) -> Callable[[], int]:
        if operation == MASK:
            from fastws.codec import apply_mask

            data = payload("binary", size)
            return lambda: len(apply_mask(data, KEY)) // size
        assert not decoders[who].missing, decoders[who].missing
        call = decoders[who].make(stream("binary", size))
        return lambda: call()[0]

    rates = [
        [rate(lambda case=case: made(*case), threads) for threads in THREADS] for case in CASES
    ]
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {"gil": gil, "python": sys.version.split()[0], "rates": rates}


def run(python: str, gil: bool) -> dict[str, Any]:
    """Measure with another Python."""
    environ = os.environ | {"FASTWS_IMPL": "c"}
    command = [python, "-m", "bench.threads"]
    done = subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if result["gil"] is not gil:
        sys.exit(f"{python} runs {'with' if result['gil'] else 'without'} a GIL")
    return result


def main(pythons: list[str]) -> None:
    if not pythons:
        print(json.dumps(measure()))
        return
    from . import charts
    from .echo.programs import describe

    results = [run(python, gil) for python, gil in zip(pythons, (True, False), strict=True)]
    if len({result["python"] for result in results}) > 1:
        sys.exit("these are not the same Python, built twice")
    rates: dict[str, list[list[float]]] = {}
    for i, (who, operation, size) in enumerate(CASES):
        rows = [result["rates"][i] for result in results]
        rates[charts.threads_label(who, operation, size)] = rows
        print(f"{who:15}{operation:11}{size:8}", end="")
        for build, row in zip(BUILDS, rows, strict=True):
            ones = "  ".join(f"{one:13,.0f}/s" for one in row)
            print(f"   {build}: {ones}  x{row[1] / row[0]:.2f}", end="")
        print()
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    footer = f"{date} · {describe()['cpu']} · CPython {results[0]['python']}, built twice alike"
    print(charts.draw_threads(rates, CHARTS, footer))


if __name__ == "__main__":
    main(sys.argv[1:])
