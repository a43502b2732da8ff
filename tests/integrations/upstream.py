"""Run the hosts' own WebSocket tests, without fastws and with it.

    python tests/integrations/upstream.py [--impl c|py] [--versions oldest|newest|all] [host ...]

A test that passes without fastws must pass with it, unless upstream.toml lists it with a reason.
Anything else is printed, and the exit status is 1; so is a listed difference that does not exist.

The tests are those in the hosts' sdists on PyPI. They are fetched when this runs, and kept under
.cache/ together with a virtual environment for each version of a host. fastws is taken from this
checkout. A test that fails only with fastws is run again both ways. If it then fails without
fastws too, or no longer fails, it is flaky, which is printed but not counted.

Each table in upstream.toml is a host, with these keys:

    versions       the oldest and the newest that the integration supports
    integrations   which modules of fastws.integrations to install
    tests          files or directories in the sdist; those that exist are run
    requires       what the tests need besides the host
    arguments      more arguments for pytest
    distribution   the host's name on PyPI, if it is not the name of the table
    source         where the tests are, if not in the sdist of the host: a requirement for pip
    plugins        modules in plugins/ to import with fastws: for hosts that are not patched
    environment    variables for the run with fastws
    differences    tests that pass only without fastws, and the reason
    own            files in this directory with our own tests, which must pass with each version

A table inside it, named after a version, has the keys that differ for that version.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLUGINS = HERE / "plugins"
CACHE = ROOT / ".cache" / "upstream"

TIMEOUT = 1200  # seconds, for one run of the tests of one host
AGAIN = 3  # how often to rerun a test that fails only with fastws


class Host(NamedTuple):
    """One version of one host, and where its tests are."""

    name: str
    version: str
    table: dict[str, Any]
    python: Path
    source: Path


class Run(NamedTuple):
    """The outcomes of one run, by test id."""

    outcomes: dict[str, str]
    problems: dict[str, str]

    def __str__(self) -> str:
        counts = collections.Counter(self.outcomes.values())
        return "  ".join(f"{counts[name]:5}" for name in ("passed", "failed", "skipped"))


class Unusable(Exception):
    """The tests could not be run."""


# What is needed for it ----------------------------------------------------------------


def prepare(name: str, version: str, table: dict[str, Any]) -> Host:
    """Fetch the tests and create the environment, unless that was done before."""
    table = table | table.get(version, {})
    distribution = table.get("distribution", name)
    python = environment(
        f"{name}-{version}", [f"{distribution}=={version}", *table.get("requires", ["pytest"])]
    )
    requirement = table.get("source", f"{distribution}=={version}")
    return Host(name, version, table, python, fetch(requirement, python))


def environment(name: str, requires: list[str]) -> Path:
    """Return the interpreter of a virtual environment that has these packages, and fastws."""
    venv = CACHE / "venvs" / name
    python = venv / "bin" / "python"
    stamp = venv / "requires.json"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = json.dumps([sys.version, str(ROOT), *project["dependencies"], *requires])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(venv, ignore_errors=True)
    call([sys.executable, "-m", "venv", str(venv)])
    call([*pip(python), "install", *project["dependencies"], *requires])
    # It is based on the interpreter that runs this, so extensions compiled in place fit.
    where = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    (Path(where.strip()) / "fastws-checkout.pth").write_text(f"{ROOT / 'src'}\n")
    stamp.write_text(wanted)
    return python


def fetch(requirement: str, python: Path) -> Path:
    """Return the directory with the contents of an sdist."""
    directory = CACHE / "sdists" / requirement
    if not directory.exists():
        unpacked = directory.with_name(f"{requirement}.part")
        shutil.rmtree(unpacked, ignore_errors=True)
        name = requirement.partition("==")[0]
        options = ["--no-deps", "--no-binary", name, "-d", str(unpacked)]
        call([*pip(python), "download", *options, requirement])
        (archive,) = unpacked.iterdir()
        with tarfile.open(archive) as file:
            file.extractall(unpacked, filter="data")
        archive.unlink()
        unpacked.rename(directory)
    (found,) = directory.iterdir()
    return found


def pip(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "-q", "--disable-pip-version-check"]


def call(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Unusable(f"{' '.join(command)}\n{done.stdout}")


# One run ------------------------------------------------------------------------------------


def run(host: Host, impl: str | None, only: list[str] | None = None) -> Run:
    """Run the tests of a host, with one of the twins or with none.

    Args:
        only: the ids of tests; by default all in the table.

    Raises:
        Unusable: if no outcome is known.
    """
    tests = only
    if tests is None:
        wanted = host.table.get("tests", [])
        tests = [path for path in wanted if (host.source / path.partition("::")[0]).exists()]
        if wanted and not tests:
            raise Unusable(f"none of {', '.join(wanted)} is in {host.source}")
    # For sdists without settings for pytest, which would find those of this project.
    (CACHE / "pytest.ini").touch()
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out.json"
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        env["PYTHONPATH"] = str(PLUGINS)
        env["FASTWS_UPSTREAM_OUT"] = str(out)
        env["FASTWS_UPSTREAM_WITH"] = env["FASTWS_UPSTREAM_PLUGINS"] = ""
        if impl is not None:
            env |= host.table.get("environment", {})
            env["FASTWS_IMPL"] = impl
            env["FASTWS_UPSTREAM_WITH"] = " ".join(host.table.get("integrations", []))
            env["FASTWS_UPSTREAM_PLUGINS"] = " ".join(host.table.get("plugins", []))
        command = [
            str(host.python), "-m", "pytest", "-p", "fastws_upstream", "-p", "no:cacheprovider",
            "--rootdir", str(host.source), "-q", *host.table.get("arguments", []), *tests,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=host.source, env=env, timeout=TIMEOUT, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            text = (exc.stdout or b"").decode(errors="replace")
            raise Unusable(f"not done within {TIMEOUT} s\n{text[-4000:]}") from None
        if not out.exists():
            raise Unusable(f"{' '.join(command)}\n{done.stdout[-4000:]}")
        found = json.loads(out.read_text())
    if found["gone"]:
        raise Unusable(f"at the end, fastws was no longer installed: {found['gone']}")
    return Run(found["outcomes"], found["problems"])


def run_own(host: Host, impl: str) -> bool:
    """Run our own tests of the integration with this version of the host."""
    files = [str(HERE / name) for name in host.table.get("own", [])]
    if not files:
        return True
    env = os.environ | {"FASTWS_IMPL": impl}
    command = [
        str(host.python), "-m", "pytest", "-q", "-c", str(CACHE / "pytest.ini"),
        "--rootdir", str(HERE), "-p", "no:cacheprovider", "-W", "error", *files,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=CACHE, env=env, timeout=TIMEOUT, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    print(f"    our own tests: {lines[-1] if lines else 'nothing'}")
    if done.returncode:
        print(f"{done.stdout[-4000:]}")
    return done.returncode == 0


def fails_again(host: Host, impl: str | None, tests: list[str]) -> set[str]:
    """Return which of these tests fail if they are rerun a few times."""
    failing = set()
    for _ in range(AGAIN):
        outcomes = run(host, impl, tests).outcomes
        failing |= {test for test in tests if outcomes.get(test) != "passed"}
    return failing


# The comparison ---------------------------------------------------------------------------


def compare(host: Host, impl: str) -> tuple[int, set[str]]:
    """Run the tests both ways, and print the differences.

    Returns:
        how many tests fail that should not, and the listed differences that exist.
    """
    listed = host.table.get("differences", {})
    started = time.monotonic()
    stock = run(host, None)
    between = time.monotonic()
    ours = run(host, impl)
    ended = time.monotonic()
    print(
        f"{host.name:20} {host.version:>10}  {impl:4}  {stock}   {ours}   "
        f"{between - started:5.0f} s {ended - between:5.0f} s",
        flush=True,
    )
    if "passed" not in stock.outcomes.values():
        problems = "\n".join(stock.problems.values())
        raise Unusable(f"no test passes without fastws\n{problems[-4000:]}")
    worse = [
        test
        for test, outcome in stock.outcomes.items()
        if outcome == "passed" and ours.outcomes.get(test) != "passed"
    ]
    better = [
        test
        for test, outcome in ours.outcomes.items()
        if outcome == "passed" and stock.outcomes.get(test) == "failed"
    ]
    for test in better:
        print(f"    {test}: passes only with fastws")
    new = [test for test in worse if test not in listed]
    if new and len(new) <= 50:
        unsteady = set(new) & fails_again(host, None, new)
        rest = [test for test in new if test not in unsteady]
        if rest:
            unsteady |= set(rest) - fails_again(host, impl, rest)
        for test in sorted(unsteady):
            print(f"    {test}: unsteady")
        new = [test for test in new if test not in unsteady]
    for test in new:
        outcome = ours.outcomes.get(test, "not run")
        print(f"    {test}: {outcome} with fastws")
        print("      " + "\n      ".join(ours.problems.get(test, "").splitlines()[-30:]))
    return len(new), {test for test in worse if test in listed}


def main() -> int:
    tables = tomllib.loads((HERE / "upstream.toml").read_text())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("host", nargs="*", help=f"by default all: {', '.join(tables)}")
    parser.add_argument("--impl", choices=["c", "py"], default="c")
    parser.add_argument("--versions", choices=["oldest", "newest", "all"], default="all")
    args = parser.parse_args()
    if unknown := [name for name in args.host if name not in tables]:
        parser.error(f"not in upstream.toml: {', '.join(unknown)}")
    chosen = {"oldest": slice(0, 1), "newest": slice(-1, None), "all": slice(None)}[args.versions]

    print(f"{'':39} {'without fastws':^19}   {'with fastws':^19}")
    counts = "passed failed skipped"
    print(f"{'host':20} {'version':>10}  impl  {counts} {counts}  without    with", flush=True)
    failed = 0
    for name in args.host or tables:
        table = tables[name]
        seen: set[str] = set()
        usable = True
        for version in table["versions"][chosen]:
            try:
                host = prepare(name, version, table)
                new, known = compare(host, args.impl)
                failed += not run_own(host, args.impl)
            except Unusable as exc:
                print(f"{name} {version}: {exc}", flush=True)
                failed += 1
                usable = False
            else:
                failed += new
                seen |= known
        if args.versions == "all" and usable:
            for test in table.get("differences", {}).keys() - seen:
                print(f"    {name}: {test} is listed, but is no difference")
                failed += 1
    print(f"{failed} failed" if failed else "what passes without fastws passes with it")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
