"""`fastws run`: programs that know nothing about fastws, and run with it."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import signal
import sys
import textwrap
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

import fastws
from fastws.cli import main
from fastws.integrations import _servers
from fastws.integrations._hosts import HOSTS
from fastws.integrations._startup import hook

from .tools import FASTWS, TIMEOUT, Program, free_port, run

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are POSIX's")

# Prints how it was started, as any program that is run with fastws might.
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
    result = fastws_run(folder, "--quiet", *args, **options)
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def in_place(name: str = "wsproto") -> str:
    """What is printed about a host, except for what is replaced."""
    kernel, twin = fastws.kernel, fastws.implementation
    return (
        f"fastws run: {name} {version(name)} with fastws {fastws.__version__}, "
        f"twin {twin}, kernel {kernel}: "
    )


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
    # pip writes it like this if the path is long.
    script.write_text(f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n{PRINT}")
    assert told(folder, "--with", "wsproto", "tell-me", env=environ)["installed"] == ["wsproto"]


def test_finds_the_scripts_of_this_python(folder: Path) -> None:
    environ = os.environ | {"PATH": ""}
    result = fastws_run(folder, "--with", "wsproto", "hypercorn", "--help", env=environ)
    assert result.returncode == 0
    assert result.stderr.startswith(in_place())
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
        (
            ["--with", "nobody", "x"],
            "fastws run: unknown integration 'nobody' (choose from aiohttp, ",
        ),
        (
            ["--with", "wsproto", "no-such-program"],
            "fastws run: cannot find the program 'no-such-program'",
        ),
        (["--with", "wsproto"], "fastws run: no program to run"),
        (["--with", "wsproto", "--"], "fastws run: no program to run"),
        (["--with", "wsproto", "-m"], "fastws run: -m needs the name of a module"),
        (["x"], "fastws run: --with is missing (choose from aiohttp, autobahn, "),
        (["hypercorn"], "fastws run: --with is missing; hypercorn: its WebSockets are wsproto's: "),
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
    result = fastws_run(folder, "--with", "wsproto", "--quiet", "ends.py")
    assert (result.returncode, result.stderr) == (without.returncode, without.stderr)
    result = fastws_run(folder, "--with", "wsproto", "ends.py")
    assert result.returncode == without.returncode
    first, *errors = result.stderr.splitlines(keepends=True)
    assert first.startswith(in_place())
    if "os._exit" not in code:
        assert errors.pop() == NEVER
    assert "".join(errors) == without.stderr


NEVER = "fastws run: wsproto was never imported, so fastws did nothing there\n"


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_gets_the_signals_as_without(folder: Path, number: signal.Signals) -> None:
    (folder / "waits.py").write_text(
        # A signal that arrives just before a sleep is handled after it.
        "import os, time\nprint(os.getpid(), flush=True)\nfor _ in range(1200): time.sleep(0.05)\n"
    )
    statuses = []
    for start in [sys.executable], [*FASTWS, "run", "--quiet", "--with", "wsproto"]:
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
    result = fastws_run(folder, "--quiet", "--with", "wsproto", "shows.py", env=environ)
    theirs = str(folder / "site" / "sitecustomize.py")
    # The one of the `fastws run` process itself, and the one of the program.
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


# What a program imports, and whether it then runs with fastws.
IMPORTS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
import wsproto.connection
print(wsproto.connection.FrameProtocol.__module__)
"""


@pytest.mark.parametrize("first", ["wsproto", "wsproto.frame_protocol", "hypercorn.protocol"])
def test_is_in_place_when_the_host_is_imported(folder: Path, first: str) -> None:
    (folder / "imports.py").write_text(IMPORTS)
    result = fastws_run(folder, "--with", "wsproto", "imports.py", first)
    assert (result.returncode, result.stdout) == (0, "fastws.integrations.wsproto\n")
    assert result.stderr.startswith(in_place() + "wsproto.connection.FrameProtocol")
    assert result.stderr.count("\n") == 1
    result = fastws_run(folder, "--quiet", "--with", "wsproto", "imports.py", first)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("aiohttp", "aiohttp"),
        ("autobahn", "autobahn"),
        ("gunicorn", "gunicorn"),
        ("tornado", "tornado"),
        ("websocket_client", "websocket"),
        ("websockets", "websockets"),
        ("wsproto", "wsproto"),
    ],
)
def test_each_host_is_found(folder: Path, name: str, host: str) -> None:
    (folder / "imports.py").write_text(
        "import sys, fastws.integrations as i\n"
        f"print(i.installed())\nimport {host}\n"
        f"print(i.installed(), 'fastws.integrations.{name}' in sys.modules)\n"
        f"print({host}.__spec__.loader is {host}.__loader__, type({host}.__loader__).__name__)\n"
    )
    result = fastws_run(folder, "--with", name, "imports.py")
    distribution = name.replace("_", "-")
    assert result.stdout.splitlines() == [
        f"['{distribution}']",
        f"['{distribution}'] True",
        "True SourceFileLoader",
    ]
    assert result.stderr.startswith(in_place(distribution))
    assert result.stderr.count("\n") == 1


def test_says_what_is_in_place_of_each_host(folder: Path) -> None:
    result = fastws_run(folder, "--with", "wsproto,websockets", "--with", "wsproto", "tell.py")
    first, second, last = result.stderr.splitlines()
    assert first.startswith(in_place("wsproto"))
    assert second.startswith(in_place("websockets"))
    if fastws.implementation == "py":
        assert second.endswith("nothing would be gained with the twin py")
    assert last == (
        "fastws run: wsproto and websockets were never imported, so fastws did nothing there"
    )


def test_a_program_that_only_asks_whether_the_host_is_there(folder: Path) -> None:
    (folder / "asks.py").write_text(
        "import importlib.util\nspec = importlib.util.find_spec('wsproto')\n"
        "print(spec.name, spec.loader.get_filename('wsproto') == spec.origin)\n"
    )
    result = fastws_run(folder, "--with", "wsproto", "asks.py")
    assert result.stdout == "wsproto True\n"
    assert result.stderr.endswith(f"\n{NEVER}")


@pytest.mark.parametrize("method", ["spawn", *(["fork"] if os.name == "posix" else [])])
def test_a_host_that_only_workers_import(folder: Path, method: str, tmp_path: Path) -> None:
    (folder / "workers.py").write_text(
        WORKERS.replace("queue.put(tell.report())", "import wsproto; queue.put(tell.report())")
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = os.environ | {"TMPDIR": str(temporary)}
    result = fastws_run(folder, "--with", "wsproto", "workers.py", method, env=environ)
    assert json.loads(result.stdout)["installed"] == ["wsproto"]
    assert result.stderr.count("\n") == 1
    assert list(temporary.iterdir()) == []


# Children that have no use for it -----------------------------------------------------------


CHILD = """
import os, subprocess, sys
result = subprocess.run(
    [*sys.argv[2:], "-c", "import sys; sys.stdout.write('alive')"],
    env=os.environ | eval(sys.argv[1]), capture_output=True, text=True,
)
print(result.returncode, result.stdout, result.stderr)
"""


@pytest.fixture
def ends(folder: Path, tmp_path: Path) -> Any:
    """Run a Python under a program; return the outcome."""

    def run_child(environ: dict[str, str], *python: str) -> str:
        (folder / "child.py").write_text(CHILD)
        command = python or (sys.executable,)
        result = fastws_run(
            folder,
            "--quiet",
            "--with",
            "wsproto,websocket_client",
            "child.py",
            repr(environ),
            *command,
        )
        assert (result.returncode, result.stderr) == (0, "")
        return str(result.stdout)

    return run_child


def test_a_child_whose_host_is_broken(ends: Any, folder: Path) -> None:
    (folder / "broken").mkdir()
    for name in ("wsproto", "websocket", "h11"):
        (folder / "broken" / f"{name}.py").write_text("1 / 0")
    startup = str(Path(hook.__file__).parent)
    path = os.pathsep.join([startup, str(folder / "broken")])
    assert ends({"PYTHONPATH": path}) == "0 alive \n"


def test_a_child_without_fastws(ends: Any, folder: Path) -> None:
    (folder / "shadow").mkdir()
    (folder / "shadow" / "fastws.py").write_text("raise ImportError('no')")
    startup = str(Path(hook.__file__).parent)
    path = os.pathsep.join([startup, str(folder / "shadow")])
    assert ends({"PYTHONPATH": path}) == "0 alive \n"
    # A program that uses the host runs without fastws.
    (folder / "child.py").write_text(CHILD)
    code = CHILD.replace("import sys; sys", "import wsproto.connection, sys; sys")
    (folder / "uses.py").write_text(code)
    result = fastws_run(
        folder,
        "--quiet",
        "--with",
        "wsproto",
        "uses.py",
        repr({"PYTHONPATH": path}),
        sys.executable,
    )
    assert (result.stdout, result.stderr) == ("0 alive \n", "")


@pytest.mark.parametrize("options", ["-S", "-I", "-E", "-s", "-B", "-O"])
def test_a_child_with_options(ends: Any, options: str) -> None:
    assert ends({}, sys.executable, options) == "0 alive \n"


@pytest.mark.parametrize(
    "setting",
    [
        {"FASTWS_INTEGRATIONS": ""},
        {"FASTWS_INTEGRATIONS": "nonsense"},
        {"FASTWS_INTEGRATIONS": "a=b,c"},
        {"FASTWS_RUN_SEEN": "/no/such/folder/x"},
        {"FASTWS_IMPL": "nonsense"},
    ],
    ids=str,
)
def test_a_child_with_other_settings(ends: Any, setting: dict[str, str]) -> None:
    assert ends(setting) == "0 alive \n"


def other_pythons() -> list[str]:
    """The Pythons on this machine that are outside our environment; at least one."""
    names = ("python2.7", "python3.6", "python3.12", "python3.13", "pypy3")
    found = {sys._base_executable}
    for name in names:
        found.add(shutil.which(name, path=os.defpath))
        found |= {str(path) for path in Path(sys.base_prefix).parent.glob(f"*/bin/{name}")}
    return sorted(filter(None, found))


@posix
@pytest.mark.parametrize("python", other_pythons())
def test_a_child_of_another_python(ends: Any, python: str) -> None:
    # As if with the prefix of ours, as the Pythons of a system have the same.
    prefix = run(python, "-c", "import sys; sys.stdout.write(sys.prefix)").stdout
    assert ends({"FASTWS_INTEGRATIONS_PREFIX": prefix}, python) == "0 alive \n"


def test_any_python_can_read_it() -> None:
    source = Path(hook.__file__).with_name("sitecustomize.py").read_text()
    tree = ast.parse(source, feature_version=(3, 4))
    # Not in Python 2.
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.JoinedStr, ast.AnnAssign))]
    assert "__future__" not in source


@posix
def test_runs_their_customizations_in_other_pythons(ends: Any, folder: Path) -> None:
    (folder / "site").mkdir()
    for name in ("sitecustomize", "usercustomize"):
        (folder / "site" / f"{name}.py").write_text(f"import sys; sys.stdout.write('{name} ')")
    startup = str(Path(hook.__file__).parent)
    path = os.pathsep.join([startup, str(folder / "site")])
    python = Path(sys.base_prefix) / "bin" / "python3"
    # A virtual environment does not use the user's site-packages.
    environ = {"PYTHONPATH": path}
    assert ends(environ, str(python)) == "0 sitecustomize usercustomize alive \n"
    assert ends(environ) == "0 sitecustomize alive \n"


def test_a_host_that_turns_out_to_be_another(folder: Path) -> None:
    """The program has its own, and fastws leaves that alone."""
    (folder / "vendored").mkdir()
    (folder / "vendored" / "wsproto.py").write_text("connection = None\n")
    (folder / "vendors.py").write_text(
        "import sys; sys.path.insert(0, 'vendored'); import wsproto; print(wsproto.connection)"
    )
    result = fastws_run(folder, "--with", "wsproto", "vendors.py")
    assert (result.returncode, result.stdout) == (0, "None\n")
    assert result.stderr.endswith(
        "\nfastws run: wsproto runs without fastws: "
        "fastws.integrations.wsproto needs wsproto, which is not installed\n"
    )


def test_a_host_whose_import_fails_at_first(folder: Path) -> None:
    (folder / "tries.py").write_text(
        textwrap.dedent("""
            import sys
            sys.modules["h11"] = None
            try:
                import wsproto
            except ImportError:
                for name in ["h11", *sys.modules]:
                    if name.partition(".")[0] in ("h11", "wsproto"):
                        sys.modules.pop(name, None)
            import wsproto.connection
            print(wsproto.connection.FrameProtocol.__module__)
        """)
    )
    result = fastws_run(folder, "--quiet", "--with", "wsproto", "tries.py")
    assert (result.stdout, result.stderr) == ("fastws.integrations.wsproto\n", "")


# Names of servers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("hypercorn", "--with wsproto"),
        ("quart", "--with wsproto"),
        ("nicegui", "--with wsproto"),
        ("sanic", "--with websockets"),
        ("daphne", "--with autobahn"),
        ("channels", "--with autobahn"),
        ("django", "--with autobahn"),
        ("jupyter", "--with tornado"),
        ("jupyter-lab", "--with tornado"),
        ("uvicorn", "--ws fastws.integrations.uvicorn:WebSocketProtocol"),
        ("fastapi", "--ws fastws.integrations.uvicorn:WebSocketProtocol"),
        ("Starlette", "--ws fastws.integrations.uvicorn:WebSocketProtocol"),
        ("websocket", "--with websocket_client"),
    ],
)
def test_knows_servers(name: str, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--with", name, "x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fastws run: {name.replace('-', '_')} is not a host itself; ")
    assert advice in error
    assert error.count("\n") == 1
    for command in ([name, "app"], ["-m", name]):
        assert main(["run", "--", *command]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"fastws run: --with is missing; {name}: ")
        assert advice in error


def test_every_advice_can_be_followed() -> None:
    known = {name for name, host in HOSTS.items() if host.installable}
    for name, server in _servers._SERVERS.items():
        assert set(server.hosts) <= known, name
        for named in re.findall(r"--with (\w+)", server.advice):
            assert named in server.hosts, name
        assert name not in known or name == "gunicorn"
    integration = importlib.import_module("fastws.integrations.uvicorn")
    assert integration.WebSocketProtocol


@pytest.mark.parametrize(
    ("named", "command", "told"),
    [
        ("websockets", ["-m", "hypercorn", "--help"], True),
        ("wsproto", ["-m", "hypercorn", "--help"], False),
        ("wsproto", ["-m", "uvicorn", "--help"], True),
        ("wsproto", ["-m", "uvicorn", "--ws", "wsproto", "--help"], False),
        ("wsproto", ["tell.py"], False),
    ],
)
def test_says_that_a_server_has_no_use_for_it(
    folder: Path, named: str, command: list[str], told: bool
) -> None:
    result = fastws_run(folder, "--with", named, "--", *command)
    assert result.returncode == 0
    start = f"fastws run: {command[1]}: " if len(command) > 1 else "fastws run: tell.py: "
    assert (result.stderr.splitlines()[1].startswith(start)) is told
    result = fastws_run(folder, "--quiet", "--with", named, "--", *command)
    assert (result.returncode, result.stderr) == (0, "")


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
    assert error.endswith("; use --untested to install it anyway\n")
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
