"""`fastws run`: programs that know nothing of fastws, and run with it."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from fastws.cli import main

from .tools import FASTWS, TIMEOUT, Program, free_port, run

if TYPE_CHECKING:
    from pathlib import Path

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are POSIX's")

# Tells what it is, like any program that is run with fastws might.
REPORT = """
import json, os, sys
import fastws.integrations

def report():
    return {
        "installed": fastws.integrations.installed(),
        "argv": sys.argv,
        "name": __name__,
        "path": [entry for entry in sys.path if "_startup" in entry],
        "pid": os.getpid(),
    }
"""
PRINT = REPORT + "\nif __name__ == '__main__':\n    print(json.dumps(report()))\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "tell.py").write_text(PRINT)
    return tmp_path


def fastws_run(folder: Path, *args: str, **options: Any) -> Any:
    return run(*FASTWS, "run", *args, cwd=folder, **options)


def told(folder: Path, *args: str, **options: Any) -> Any:
    result = fastws_run(folder, *args, **options)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


# Programs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (["tell.py", "--a", "b"], ["tell.py", "--a", "b"]),
        (["--", "./tell.py", "-m", "x"], ["./tell.py", "-m", "x"]),
        (["-m", "tell", "--with", "no"], ["--with", "no"]),
        (["--", "-m", "tell", "--", "x"], ["--", "x"]),
    ],
    ids=" ".join,
)
def test_runs_scripts_and_modules(folder: Path, command: list[str], argv: list[str]) -> None:
    report = told(folder, "--with", "wsproto", *command)
    assert report["installed"] == ["wsproto"]
    assert report["name"] == "__main__"
    assert report["argv"][-len(argv) :] == argv
    assert report["path"] == []


@posix
def test_runs_console_scripts(folder: Path) -> None:
    script = folder / "tell-me"
    script.write_text(f"#!{sys.executable}\n{PRINT}")
    script.chmod(0o755)
    environ = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    report = told(folder, "--with", "wsproto", "--", "tell-me", "-x", env=environ)
    assert (report["installed"], report["argv"]) == (["wsproto"], [str(script), "-x"])
    # This is how pip writes it if the path is long.
    script.write_text(f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n{PRINT}")
    assert told(folder, "--with", "wsproto", "tell-me", env=environ)["installed"] == ["wsproto"]


def test_finds_the_scripts_of_this_python(folder: Path) -> None:
    environ = os.environ | {"PATH": ""}
    result = fastws_run(folder, "--with", "wsproto", "hypercorn", "--help", env=environ)
    assert result.returncode == 0
    assert result.stdout.startswith("usage: hypercorn ")


@posix
@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"#!/bin/sh\necho hello\n", "is not a Python script"),
        (b"\x7fELF\0\0", "is not a Python script"),
        (b"#!/opt/python/bin/python3\n", "is for another Python, /opt/python/bin/python3"),
    ],
)
def test_refuses_other_programs(folder: Path, head: bytes, message: str) -> None:
    script = folder / "other"
    script.write_bytes(head)
    script.chmod(0o755)
    result = fastws_run(folder, "--with", "wsproto", str(script))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"fastws run: {script} {message}")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--with", "nobody", "x"], "fastws run: no integration 'nobody', but "),
        (["--with", "wsproto", "no-such-program"], "fastws run: no program 'no-such-program'"),
        (["--with", "wsproto"], "fastws run: what is to be run?"),
        (["--with", "wsproto", "--"], "fastws run: what is to be run?"),
        (["--with", "wsproto", "-m"], "fastws run: -m needs the name of a module"),
    ],
    ids=str,
)
def test_says_what_is_wrong(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *args]) == 2
    assert message in capsys.readouterr().err


def test_lists_the_integrations(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--with", "nobody", "x"])
    assert "wsproto" in capsys.readouterr().err
    main(["info", "--json"])
    info = json.loads(capsys.readouterr().out)
    assert info["integrations"]["wsproto"]["host"] == "wsproto"
    assert info["integrations"]["wsproto"]["tested"] is True


# As without fastws ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    ["raise SystemExit(3)", "import sys; sys.exit('why')", "1 / 0", "import os; os._exit(7)"],
)
def test_ends_as_without(folder: Path, code: str) -> None:
    (folder / "ends.py").write_text(f"print('out')\n{code}\n")
    without = run(sys.executable, "ends.py", cwd=folder)
    result = fastws_run(folder, "--with", "wsproto", "ends.py")
    assert (result.returncode, result.stderr) == (without.returncode, without.stderr)


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_gets_the_signals_as_without(folder: Path, number: signal.Signals) -> None:
    (folder / "waits.py").write_text(
        # A signal that comes just before a sleep is heeded after it.
        "import os, time\nprint(os.getpid(), flush=True)\nfor _ in range(1200): time.sleep(0.05)\n"
    )
    statuses = []
    for start in [sys.executable], [*FASTWS, "run", "--with", "wsproto"]:
        with Program(*start, "waits.py", cwd=folder) as program:
            assert program.line() == str(program.pid)
            statuses.append(program.stop(number))
    assert statuses[0] == statuses[1]


def test_runs_the_sitecustomize_that_is_there(folder: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text("print('theirs:', __name__, __file__)")
    environ = os.environ | {"PYTHONPATH": str(folder / "site")}
    (folder / "shows.py").write_text(
        "import sitecustomize, fastws.integrations\n"
        "print(sitecustomize.__file__, fastws.integrations.installed())\n"
    )
    result = fastws_run(folder, "--with", "wsproto", "shows.py", env=environ)
    theirs = str(folder / "site" / "sitecustomize.py")
    # That of the process of `fastws run` itself, and that of the program.
    first, *lines = result.stdout.splitlines()
    assert first == f"theirs: sitecustomize {theirs}"
    assert lines == [first, f"{theirs} ['wsproto']"]
    (folder / "site" / "sitecustomize.py").write_text("1 / 0")
    result = fastws_run(folder, "--with", "wsproto", "tell.py", env=environ)
    assert json.loads(result.stdout)["installed"] == ["wsproto"]
    assert result.stderr.count("ZeroDivisionError") == 2


# Other processes ------------------------------------------------------------------------


WORKERS = """
import multiprocessing, subprocess, sys
import tell

def work(queue):
    queue.put(tell.report())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    process = context.Process(target=work, args=(queue,))
    process.start()
    tell.json.dump(queue.get(timeout=30), sys.stdout)
    process.join()
"""


@pytest.mark.parametrize(
    "method", ["spawn", *(["fork", "forkserver"] if os.name == "posix" else [])]
)
def test_reaches_workers(folder: Path, method: str) -> None:
    (folder / "workers.py").write_text(WORKERS)
    assert told(folder, "--with", "wsproto", "workers.py", method)["installed"] == ["wsproto"]


def test_reaches_other_processes_of_this_python_only(folder: Path) -> None:
    (folder / "starts.py").write_text(
        textwrap.dedent("""
            import os, subprocess, sys
            environ = dict(os.environ)
            if len(sys.argv) > 1:
                environ["FASTWS_INTEGRATIONS_PREFIX"] = sys.argv[1]
            subprocess.run([sys.executable, "tell.py"], env=environ, check=True)
        """)
    )
    assert told(folder, "--with", "wsproto", "starts.py")["installed"] == ["wsproto"]
    assert told(folder, "--with", "wsproto", "starts.py", "/other")["installed"] == []


# What cannot be installed ---------------------------------------------------------------


def fails(folder: Path, *args: str) -> str:
    environ = os.environ | {"PYTHONPATH": str(folder)}
    result = fastws_run(folder, "--with", "wsproto", *args, "tell.py", env=environ)
    assert (result.returncode, result.stdout) == (2, "")
    return result.stderr


def test_fails_without_the_host(folder: Path) -> None:
    (folder / "wsproto.py").write_text("raise ModuleNotFoundError('no', name='wsproto')")
    assert fails(folder) == (
        "fastws run: fastws.integrations.wsproto needs wsproto, which is not installed\n"
    )


def test_fails_with_a_broken_host(folder: Path) -> None:
    (folder / "wsproto.py").write_text("1 / 0")
    assert fails(folder) == "fastws run: wsproto: ZeroDivisionError('division by zero')\n"


def test_fails_with_an_untested_host(folder: Path) -> None:
    metadata = folder / "wsproto-99.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: wsproto\nVersion: 99.1\n")
    error = fails(folder)
    assert error.startswith("fastws run: fastws was not tested with wsproto 99.1, but with ")
    assert error.endswith("; --untested installs it all the same\n")
    environ = os.environ | {"PYTHONPATH": str(folder)}
    result = fastws_run(folder, "--with", "wsproto", "--untested", "tell.py", env=environ)
    assert json.loads(result.stdout)["installed"] == ["wsproto"]
    assert "UntestedHostWarning" in result.stderr


# Servers with workers -------------------------------------------------------------------


ASGI = (
    REPORT
    + """
async def app(scope, receive, send):
    if scope["type"] == "http":
        headers = [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(report()).encode()})
"""
)


@posix
@pytest.mark.parametrize(
    "command",
    [
        ["hypercorn", "asgi:app", "--workers", "2", "--bind", "127.0.0.1:{port}"],
        ["uvicorn", "asgi:app", "--workers", "2", "--port", "{port}"],
        ["-m", "uvicorn", "asgi:app", "--reload", "--port", "{port}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_reaches_the_workers_of_servers(folder: Path, command: list[str]) -> None:
    (folder / "asgi.py").write_text(ASGI)
    port = free_port()
    command = [part.format(port=port) for part in command]
    with Program(*FASTWS, "run", "--with", "wsproto", "--", *command, cwd=folder) as program:
        report = None
        deadline = time.monotonic() + TIMEOUT
        while report is None and time.monotonic() < deadline and not program.has_ended:
            try:
                report = json.load(urlopen(f"http://127.0.0.1:{port}", timeout=TIMEOUT))
            except (URLError, ConnectionError):
                time.sleep(0.1)
        assert report is not None
        assert report["installed"] == ["wsproto"]
        assert report["pid"] != program.pid
        program.stop()
