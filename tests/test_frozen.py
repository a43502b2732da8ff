"""Frozen programs: PyInstaller and similar tools include all that fastws needs.

Such tools find modules by the import statements in Python code, like `modulefinder`. PyInstaller
also uses our hooks. Here it freezes a program, which then runs in an empty environment.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import runpy
import shutil
import signal
import sys
import urllib.request
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from modulefinder import ModuleFinder
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import fastws
from fastws.integrations._hosts import HOSTS

from .tools import FREE_THREADED, Program, free_port, missing, run

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(fastws.__file__).parent
HOOKS = PACKAGE / "__pyinstaller"
COMPILED = find_spec("fastws._c.connection") is not None
TWINS = ("c", "py") if COMPILED else ("py",)
BACKENDS = ("zlib", "zlib-ng", "isal")

pytestmark = pytest.mark.timeout(300)

if sys.implementation.name != "cpython":
    pytest.skip("what freezes programs is for CPython", allow_module_level=True)


# What statements show -----------------------------------------------------------------------

# Uses everything in `import fastws`, and prints what has been imported.
USE = """
import sys

before = set(sys.modules)
import fastws

for name in fastws.__all__:
    getattr(fastws, name)
for name in ("zlib", "zlib-ng", "isal"):
    try:
        fastws.PerMessageDeflate(backend=name)
    except ImportError:
        pass
for name in set(sys.modules) - before:
    # (Cython makes some modules that come from nowhere.)
    if getattr(sys.modules[name], "__spec__", None) is not None:
        print(name)
"""


class Finder(ModuleFinder):
    def find_module(self, name: str, path: Any, parent: Any = None) -> Any:
        try:
            return super().find_module(name, path, parent)
        except AttributeError:  # its result for a package without an __init__.py
            raise ImportError(name) from None


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules that `import fastws` visibly needs, whether they are installed or not."""
    place = tmp_path_factory.mktemp("seen")
    shutil.copytree(PACKAGE, place / "fastws", ignore=shutil.ignore_patterns("__pycache__"))
    # Some tools know that this is false, and ignore the statements under it.
    blocks = 0
    for path in (place / "fastws").rglob("*.py"):
        text, count = re.subn(
            r"^if TYPE_CHECKING\b", "if False", path.read_text("utf-8"), flags=re.M
        )
        path.write_text(text, "utf-8")
        blocks += count
    assert blocks > 10
    program = place / "program.py"
    program.write_text("import fastws\n")
    finder = Finder([str(place), *sys.path])
    finder.run_script(str(program))
    assert finder.modules["fastws"].__file__ == str(place / "fastws" / "__init__.py")
    return {*finder.modules, *finder.badmodules}


@pytest.mark.parametrize("impl", TWINS)
def test_what_is_imported_is_seen(seen: set[str], impl: str) -> None:
    result = run(sys.executable, "-c", USE, env=os.environ | {"FASTWS_IMPL": impl})
    assert (result.returncode, result.stderr) == (0, "")
    imported = set(result.stdout.split())
    twin = "_c" if impl == "c" else "_py"
    assert {
        f"fastws.{twin}.connection",
        "fastws.rules",
        "fastws.aio.server",
        "ssl",
        "h11",
    } <= imported
    assert imported - seen == set()


def test_the_other_twin_is_seen_too(seen: set[str]) -> None:
    modules = {path.stem for path in (PACKAGE / "_py").glob("[!_]*.py")}
    assert len(modules) > 4
    assert {f"fastws._{impl}.{module}" for impl in TWINS for module in modules} <= seen


def calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "_startup":
            continue  # what `fastws run` injects into programs, which a frozen one cannot do
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name):
                yield path, node


def test_what_is_imported_by_name_is_seen_too(seen: set[str]) -> None:
    found = list(calls("import_module"))
    names = {call.args[0].value for _, call in found if isinstance(call.args[0], ast.Constant)}
    assert "fastws._c.kernel" in names
    assert {name for name in names if COMPILED or not name.startswith("fastws._c.")} <= seen
    # Imported by computed names: what `fastws run` installs; libraries for DEFLATE; what the user
    # of `fastws serve` names.
    others = {path.name for path, call in found if not isinstance(call.args[0], ast.Constant)}
    assert others <= {"__init__.py", "info.py", "aiohttp.py", "_handlers.py"}
    assert not list(calls("__import__"))


# What PyInstaller is told --------------------------------------------------------------------


def hook(module: str) -> dict[str, Any]:
    return runpy.run_path(str(HOOKS / f"hook-{module}.py"))


@pytest.fixture(scope="module")
def pyinstaller() -> None:
    if find_spec("PyInstaller") is None:
        if FREE_THREADED:
            pytest.skip("PyInstaller is not available for every free-threaded Python")
        missing("no PyInstaller here: pip install pyinstaller")


def test_pyinstaller_knows_where_the_hooks_are() -> None:
    (point,) = (
        point for point in entry_points(group="pyinstaller40") if point.value.startswith("fastws.")
    )
    assert point.name == "hook-dirs"
    assert point.load()() == [str(HOOKS)]
    files = list(HOOKS.glob("hook-*.py"))
    assert len(files) > 3
    for path in files:
        assert find_spec(path.stem.removeprefix("hook-").rpartition(".")[0]) is not None


@pytest.mark.usefixtures("pyinstaller")
def test_each_host_has_a_hook_for_its_metadata() -> None:
    def datas_of(*modules: str) -> list[tuple[str, str]]:
        graph = SimpleNamespace(find_node=dict.fromkeys(modules, object()).get)
        datas: list[tuple[str, str]] = []
        hook("fastws.integrations")["hook"](SimpleNamespace(graph=graph, add_datas=datas.extend))
        return datas

    assert datas_of("fastws.integrations") == []
    installed = 0
    for name, host in HOSTS.items():
        datas = datas_of("fastws.integrations", f"fastws.integrations.{name}")
        try:
            start = f"{host.name.replace('-', '_')}-{version(host.name)}."
        except ModuleNotFoundError:
            assert datas == []
        else:
            installed += 1
            assert [Path(source).name.startswith(start) for source, _ in datas] == [True]
    assert installed


@pytest.mark.usefixtures("pyinstaller")
@pytest.mark.parametrize("compiled", [True, False])
def test_whoever_freezes_pure_python_is_told(
    *, compiled: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object() if compiled else None)
    with caplog.at_level(logging.INFO):
        hook("fastws.codec")
    assert ("in pure Python" in caplog.text) is not compiled


# A program -----------------------------------------------------------------------------------

PROGRAM = """
import asyncio
import json
import sys

import fastws
import fastws.integrations.websocket_client
from fastws.cli import main


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def converse(backend):
    deflate = fastws.PerMessageDeflate(backend=backend, threshold=0)
    async with fastws.serve(echo, "127.0.0.1", 0, deflate=deflate) as server:
        port = server.sockets[0].getsockname()[1]
        async with fastws.connect(f"ws://127.0.0.1:{port}", deflate=deflate) as ws:
            await ws.send("many times the same, " * 100)
            return await ws.recv()


def check():
    found = {"implementation": fastws.implementation, "kernel": fastws.kernel, "deflate": {}}
    for backend in ("zlib", "zlib-ng", "isal"):
        try:
            found["deflate"][backend] = asyncio.run(converse(backend)).count("many times")
        except ImportError as exc:
            found["deflate"][backend] = repr(exc)
    found["host"] = fastws.integrations.websocket_client.install().active
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(check() if sys.argv[1:] == ["check"] else main())
"""

# websocket-client would use these if they were there, and they import a lot.
LEFT_OUT = ("python_socks", "wsaccel")

# The program runs without a Python and without settings, except for one that Windows needs.
CLEAN = {name: value for name, value in os.environ.items() if name == "SYSTEMROOT"}


@pytest.fixture(scope="module")
def frozen(pyinstaller: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("frozen")
    (place / "program.py").write_text(PROGRAM)
    result = run(
        *(sys.executable, "-m", "PyInstaller", "--log-level", "WARN", "--noupx"),
        *(f"--exclude-module={name}" for name in LEFT_OUT),
        "program.py",
        cwd=place,
        env=os.environ | {"PYINSTALLER_CONFIG_DIR": str(place / "cache")},
        timeout=240,
    )
    if "PythonLibraryNotFoundError" in result.stderr:
        pytest.skip("PyInstaller needs a Python that has a shared library")
    assert result.returncode == 0, result.stderr
    assert ("the program will run in pure Python" in result.stderr) is not COMPILED
    suffix = ".exe" if sys.platform == "win32" else ""
    return place / "dist" / "program" / f"program{suffix}"


def run_frozen(frozen: Path, *args: str) -> Any:
    return run(str(frozen), *args, cwd=frozen.parents[2], env=CLEAN)


def test_a_frozen_program_has_the_extension_and_every_backend(frozen: Path) -> None:
    result = run_frozen(frozen, "check")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["implementation"] == ("c" if COMPILED else "py")
    assert (found["kernel"] == "python") is not COMPILED
    assert found["deflate"].keys() == set(BACKENDS)
    for name, answer in found["deflate"].items():
        if name == "zlib" or find_spec(name.replace("-", "_")) is not None:
            assert answer == 100, name
        else:
            assert answer.startswith("ImportError(")
    # It is useful with the extension, or without wsaccel; its version is known in any case.
    assert found["host"] is True


@pytest.mark.parametrize("workers", [None, 2])
def test_a_frozen_echo_server_has_its_page(frozen: Path, workers: int | None) -> None:
    if workers is not None and sys.platform in ("win32", "darwin"):
        pytest.skip("workers share a port on Linux")
    args = ["echo", "--port", str(free_port())]
    if workers is not None:
        args += ["--workers", str(workers)]
    with Program(str(frozen), *args) as program:
        url = re.findall(r"http://[\d.:]+", program.line())[0]
        with urllib.request.urlopen(url) as answer:
            page = answer.read().decode()
        assert page == (PACKAGE / "demo" / "index.html").read_text("utf-8")
        for name in re.findall(r'(?:src|href)="([a-z.]+)"', page):
            with urllib.request.urlopen(f"{url}/{name}") as part:
                assert part.read() == (PACKAGE / "demo" / name).read_bytes()
        assert answer.status == 200
        if sys.platform != "win32":
            assert program.stop(signal.SIGTERM) == 0
            assert program.errors == ""


def test_a_frozen_program_tells_what_is_in_it(frozen: Path) -> None:
    result = run_frozen(frozen, "info", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["twin"] == ("c" if COMPILED else "py")
    assert found["installation"]["version"] == version("fastws-codec")
    assert found["dependencies"]["h11"] == version("h11")
    assert found["dependencies"]["aiofastnet"] is None
    # Not the versions that were installed where it was built.
    assert found["integrations"].keys() == {"websocket_client"}
    assert found["integrations"]["websocket_client"]["version"] == version("websocket-client")


def test_a_frozen_program_runs_no_other(frozen: Path) -> None:
    result = run_frozen(frozen, "run", "--with", "websocket_client", "other.py")
    assert result.returncode == 2
    assert result.stderr == "fastws run: a frozen program cannot run other programs\n"
