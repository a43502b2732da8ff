"""Run the Autobahn test suite against fastws, as a server and as a client.

    python tests/conformance/run.py [--role server|client] [--impl c|py] [--loop asyncio|uvloop]
                                    [--quick] [--cases 1.*,2.*] [--keep DIR]

Each option may be repeated; by default, all combinations run. Every case must be OK or
INFORMATIONAL, both in its behaviour and in how it closes; anything else is printed, and the exit
status is 1. It is 3 if the suite is not available here.

The suite runs on Python 2.7. It is looked for in this order: the environment variable WSTEST (a
path), `wstest` on PATH, a virtual environment under .cache/ made with a Python 2.7 from PATH or
from pyenv, the image crossbario/autobahn-testsuite if there is a docker engine.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "autobahn"
IMAGE = "crossbario/autobahn-testsuite"

GOOD = {"OK", "INFORMATIONAL"}
MISSING = 3  # the exit status if there is no suite to run
# The cases of limits and compression take minutes, the rest takes seconds.
SLOW = ["9.*", "12.*", "13.*"]


# The suite itself ---------------------------------------------------------------------


def find_wstest() -> list[str]:
    """Return the command that runs wstest, or exit and say what is missing."""
    if command := os.environ.get("WSTEST") or shutil.which("wstest"):
        return [command]
    wstest = CACHE / "bin" / "wstest"
    if wstest.exists():
        return [str(wstest)]
    if python := find_python2():
        print("installing the Autobahn test suite (once) ...", flush=True)
        run = subprocess.check_call
        run(
            [python, "-m", "pip", "install", "-q", "virtualenv==20.15.1"], stderr=subprocess.DEVNULL
        )
        run([python, "-m", "virtualenv", "-q", str(CACHE)], stderr=subprocess.DEVNULL)
        pip = str(CACHE / "bin" / "pip")
        run([pip, "install", "-q", "autobahntestsuite==0.8.2"], stderr=subprocess.DEVNULL)
        return [str(wstest)]
    if (
        shutil.which("docker")
        and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    ):
        return ["docker", "run", "--rm", "--network=host", "-v", "/tmp:/tmp", IMAGE, "wstest"]
    print(
        "The Autobahn test suite needs Python 2.7 (python2.7 on PATH, or pyenv install 2.7.18), "
        f"or docker for the image {IMAGE}; neither is here."
    )
    sys.exit(MISSING)


def find_python2() -> str | None:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = ["python2.7", *map(str, sorted(pyenv.glob("versions/2.7*/bin/python")))]
    for candidate in candidates:
        try:
            check = [candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
            if subprocess.run(check, capture_output=True, check=False).returncode == 0:
                return candidate
        except OSError:
            continue
    return None


# One run ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            sys.exit(f"{process.args} ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{process.args} does not listen")


def run(
    wstest: list[str],
    role: str,
    impl: str,
    loop: str,
    cases: list[str],
    without: list[str],
    out: Path,
) -> dict[str, dict[str, str]]:
    """Run the suite once; return its index of results, by case."""
    port = free_port()
    agent = f"fastws-{role}-{impl}-{loop}"
    spec = {"outdir": str(out), "cases": cases, "exclude-cases": without, "exclude-agent-cases": {}}
    if role == "server":
        spec["servers"] = [{"agent": agent, "url": f"ws://127.0.0.1:{port}"}]
    else:
        spec["url"] = f"ws://127.0.0.1:{port}"
    out.mkdir(parents=True, exist_ok=True)
    spec_file = out / "spec.json"
    spec_file.write_text(json.dumps(spec))

    env = os.environ | {"FASTWS_IMPL": impl}
    ours = [sys.executable, str(HERE / "endpoint.py"), role, str(port)]
    if role == "client":
        ours.append(agent)
    if loop == "uvloop":
        ours.append("--uvloop")
    mode = "fuzzingclient" if role == "server" else "fuzzingserver"
    theirs = [*wstest, "-m", mode, "-s", str(spec_file)]
    if role == "client":
        theirs.append("--webport=0")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}

    server, client = (ours, theirs) if role == "server" else (theirs, ours)
    # The output of wstest is in its reports; the output of our end is not.
    process = subprocess.Popen(server, env=env, **({} if server is ours else quiet))
    try:
        wait_for(port, process)
        subprocess.run(client, env=env, check=True, **({} if client is ours else quiet))
    finally:
        process.terminate()
        process.wait(30)
    index = json.loads((out / "index.json").read_text())
    return index[agent]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--role", action="append", choices=["server", "client"])
    parser.add_argument("--impl", action="append", choices=["c", "py"])
    parser.add_argument("--loop", action="append", choices=["asyncio", "uvloop"])
    parser.add_argument("--cases", default="*", help="patterns of cases, with commas between")
    parser.add_argument("--quick", action="store_true", help=f"leave out {', '.join(SLOW)}")
    parser.add_argument("--keep", type=Path, help="keep the reports in this directory")
    parser.add_argument("--find", action="store_true", help="only tell whether there is a suite")
    args = parser.parse_args()
    wstest = find_wstest()
    if args.find:
        return 0
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        out = args.keep.resolve() if args.keep else Path(directory)
        for role, impl, loop in itertools.product(
            args.role or ["server", "client"],
            args.impl or ["c", "py"],
            args.loop or ["asyncio", "uvloop"],
        ):
            started = time.monotonic()
            index = run(
                wstest, role, impl, loop, args.cases.split(","), SLOW if args.quick else [],
                out / f"{role}-{impl}-{loop}",
            )  # fmt: skip
            counts = collections.Counter(result["behavior"] for result in index.values())
            took = time.monotonic() - started
            summary = ", ".join(f"{n} {name}" for name, n in counts.most_common())
            print(
                f"{role:6} {impl:2} {loop:7}: {len(index)} cases in {took:.0f} s: {summary}",
                flush=True,
            )
            # (Patterns may match no case.)
            failed += not index
            for case, result in sorted(
                index.items(), key=lambda item: [int(n) for n in item[0].split(".")]
            ):
                if result["behavior"] not in GOOD or result["behaviorClose"] not in GOOD:
                    failed += 1
                    print(f"  {case}: {result['behavior']}, closes {result['behaviorClose']}")
    print(f"{failed} failed" if failed else "all cases OK or INFORMATIONAL")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
