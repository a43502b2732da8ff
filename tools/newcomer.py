"""Do what README.md says, as somebody who has just found the project, and time each step.

    python tools/newcomer.py [--quick] [--keep] [--timeout SECONDS]

The commands and the code are those of README.md. They run in a fresh clone of the last commit and
in fresh virtual environments, with a home directory that is empty except for the caches of pip, uv
and npm. What README leaves to the reader (a file's name, an application for uvicorn, a page for
the browser) is in this module, and nothing else. It needs git, make, Node with npm, and Chromium.

`--quick` runs one file of the suite instead of all. At the end stands a table; the exit status is 1
if a step failed, and then the table is followed by what was run and what it printed.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.request import urlopen

from install import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
START: Final = 60.0  # seconds until a server must answer or a client must be done
TAIL: Final = 40  # lines of a step that failed
HELLO: Final = "Server: Hello Server!"
QUICK: Final = "tests/test_codec.py -q"
# README does not say what an application looks like: a reader who uses uvicorn has one.
APPLICATION: Final = """\
async def app(scope, receive, send):
    assert scope["type"] == "websocket", scope
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})
"""
CHROMIUM: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--no-proxy-server", "--enable-logging=stderr"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)


class Failed(Exception):
    """A step failed; the message is what was run and what it printed."""


# What README says -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Readme:
    """What a newcomer takes from README.md.

    Attributes:
        run, test: the two commands.
        checkout, wheels, wheel: how to install from a checkout, to build wheels, to install one.
        server, client: the ten lines of Python, and their client.
        browser: the JavaScript for the browser.
        node: what Node needs in addition: a command, and the line that imports it.
        uvicorn: the command that puts fastws under uvicorn.
    """

    run: str
    test: str
    checkout: str
    wheels: str
    wheel: str
    server: str
    client: str
    browser: str
    node: tuple[str, str]
    uvicorn: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Find all of it.

        Raises:
            Failed: if README.md does not say something.
        """

        def find(what: str, pattern: str) -> str:
            match = re.search(pattern, text, re.MULTILINE | re.DOTALL)
            if match is None:
                raise Failed(f"README.md does not say {what} (no match for {pattern!r})")
            return match[1].strip()

        def block(name: str) -> str:
            return find(f"what `{name}` is", rf"^<!-- run: {name} -->\n```python\n(.*?)^```")

        return cls(
            run=find("how to run it", r"^    (make run)\b"),
            test=find("how to test it", r"^    (make test)\b"),
            checkout=find("how to install a checkout", r"^    (pip install \.)(?= |$)"),
            wheels=find("how to build wheels", r"`(make wheels)`"),
            wheel=find("how to install a wheel", r"^    (pip install dist/\S+-none-any\.whl)\b"),
            server=block("server"),
            client=block("client"),
            browser=find(
                "how to connect from a browser", r"^```js\n(const ws = new WebSocket.*?)^```"
            ),
            node=(
                find("how to install ws for Node", r"`(npm install ws)`"),
                find("how to import ws", r"(import WebSocket from 'ws')"),
            ),
            uvicorn=find("how to put it under uvicorn", r"`(uvicorn \w+:\w+ --ws [^`]+)`"),
        )


# Running what it says ---------------------------------------------------------------------------


class Place:
    """A directory with a home, where commands run as on a machine that does not know fastws."""

    def __init__(self, path: Path) -> None:
        self.path = path
        home = path / "home"
        home.mkdir(parents=True, exist_ok=True)
        kept = ("PATH", "LANG", "LC_ALL", "TERM", "CI", "PYENV_ROOT", "PYENV_VERSION")
        self.env = {name: os.environ[name] for name in kept if name in os.environ}
        # Settings and proxies of the machine, without which nothing can be downloaded.
        self.env |= {
            name: value
            for name, value in os.environ.items()
            if re.match(r"(?i)(pip|uv|npm_config|ssl|requests|node_extra)_|.*_proxy$", name)
        }
        real = Path.home()
        self.env["HOME"] = str(home)
        self.env.setdefault("PYENV_ROOT", str(real / ".pyenv"))
        self.env.setdefault("PIP_CACHE_DIR", str(real / ".cache" / "pip"))
        self.env.setdefault("UV_CACHE_DIR", str(real / ".cache" / "uv"))
        self.env.setdefault("npm_config_cache", str(real / ".npm"))
        for name in (".npmrc", ".config/pip", ".config/uv", ".pip"):
            if (real / name).exists():
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                (home / name).symlink_to(real / name)

    def activated(self, venv: Path) -> dict[str, str]:
        """Return the environment in which the programs of a virtual environment come first."""
        path = f"{venv / 'bin'}{os.pathsep}{self.env['PATH']}"
        return self.env | {"PATH": path, "VIRTUAL_ENV": str(venv)}

    def run(self, command: str, cwd: Path, env: dict[str, str], timeout: float) -> str:
        """Run a command line to its end, and return its output.

        Raises:
            Failed: if it fails.
        """
        with Running(command, cwd, env) as running:
            try:
                status = running.process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise running.failed(f"still runs after {seconds(timeout)}") from None
            if status:
                raise running.failed(f"exit status {status}")
        return running.output


class Running:
    """A command that runs while the `with` block does, and its output until now."""

    def __init__(self, command: str, cwd: Path, env: dict[str, str]) -> None:
        self._command = command
        self._cwd = cwd
        self._lines: list[str] = []
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            shlex.split(command),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line)
            self._news.put(line)
        self._news.put(None)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def failed(self, why: str) -> Failed:
        if self.process.poll() is not None:
            self._thread.join(START)  # it has the last lines
        lines = self.output.splitlines()[-TAIL:]
        return Failed("\n".join([f"$ cd {self._cwd}", f"$ {self._command}", *lines, f"({why})"]))

    def wait_for(self, text: str, timeout: float) -> None:
        """Wait until it prints a line with this text.

        Raises:
            Failed: if it does not, or ends.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self.failed(f"no {text!r} after {seconds(timeout)}") from None
            if line is None:
                raise self.failed(f"it ended without {text!r}")
            if text in line:
                return

    def wait_for_port(self, port: int) -> None:
        """Wait until something listens on this port of localhost.

        Raises:
            Failed: if nothing does.
        """
        deadline = time.monotonic() + START
        while True:
            with suppress(OSError), socket.create_connection(("localhost", port), 1):
                return
            if self.process.poll() is not None:
                raise self.failed(f"it ended with {self.process.returncode}")
            if time.monotonic() > deadline:
                raise self.failed(f"nothing listens on port {port}")
            time.sleep(0.02)

    def interrupt(self) -> None:
        """Press Ctrl-C, and wait for the end.

        Raises:
            Failed: if it does not end.
        """
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(START)
        except subprocess.TimeoutExpired:
            raise self.failed("Ctrl-C does not end it") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._thread.join(START)
        assert self.process.stdout is not None
        self.process.stdout.close()


# The walk ---------------------------------------------------------------------------------------


class Walk:
    """The newcomer's path, step by step.

    Args:
        path: an empty directory for everything.
        quick: whether to run one file of the suite instead of all.
        timeout: seconds that a build or the suite may take.
    """

    def __init__(self, path: Path, *, quick: bool, timeout: float) -> None:
        self._place = Place(path)
        self._path = path
        self._clone = path / "fastws"
        self._quick = quick
        self._timeout = timeout
        self._readme = Readme.parse((ROOT / "README.md").read_text("utf-8"))
        # Where README's programs listen, if that is free.
        self._port = free_port(8080)

    def steps(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Return what to do, in this order, and what it is called."""
        readme = self._readme
        yield "git clone", self._cloned
        yield readme.run, self._run
        yield f"{readme.test}{' (one file)' if self._quick else ''}", self._test
        yield f"{readme.checkout} (new environment)", self._install_checkout
        yield readme.wheels, self._build_wheels
        yield "pip install the wheel (new environment)", self._install_wheel
        yield "the ten lines, with the client in Python", self._python
        yield "the ten lines, with Chromium", self._chromium
        yield "the ten lines, with Node", self._node
        yield "under uvicorn", self._uvicorn

    def _cloned(self) -> str:
        command = f"git clone -q {shlex.quote(str(ROOT))} fastws"
        # The clone must not depend on who owns the checkout.
        env = self._place.env | {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
        self._place.run(command, self._path, env | {"GIT_CONFIG_VALUE_0": "*"}, START)
        text = (self._clone / "README.md").read_text("utf-8")
        if Readme.parse(text) != self._readme:
            raise Failed("README.md has changes that are not committed")
        return ""

    def _make(self, command: str, *more: str) -> str:
        return " ".join([command, *more])

    def _run(self) -> str:
        port = () if self._port == 8080 else (f"PORT={self._port}",)
        command = self._make(self._readme.run, *port)
        with Running(command, self._clone, self._place.env) as server:
            server.wait_for(f":{self._port}", self._timeout)
            with urlopen(f"http://localhost:{self._port}/", timeout=START) as answer:
                page = answer.read().decode()
            if answer.status != 200 or "<html" not in page:
                raise server.failed(f"GET / was answered with {answer.status} and {page:.80}")
            server.interrupt()
        return f"a page of {len(page) / 1024:.0f} KiB on port {self._port}"

    def _test(self) -> str:
        more = (f"PYTEST_ARGS={shlex.quote(QUICK)}",) if self._quick else ()
        command = self._make(self._readme.test, *more)
        output = self._place.run(command, self._clone, self._place.env, self._timeout)
        return output.strip().splitlines()[-1]

    def _environment(self, name: str) -> Path:
        """Create a virtual environment with a directory of its own."""
        folder = self._path / name
        folder.mkdir()
        command = f"{shlex.quote(sys.executable)} -m venv venv"
        self._place.run(command, folder, self._place.env, START)
        return folder / "venv"

    def _installed(self, venv: Path) -> str:
        """Return which twin is installed."""
        code = "import fastws; print(fastws.__version__, fastws.implementation, fastws.kernel)"
        command = f"python -c {shlex.quote(code)}"
        env = self._place.activated(venv)
        return self._place.run(command, venv.parent, env, START).strip()

    def _install_checkout(self) -> str:
        venv = self._environment("checkout")
        env = self._place.activated(venv)
        self._place.run(self._readme.checkout, self._clone, env, self._timeout)
        return self._installed(venv)

    def _build_wheels(self) -> str:
        self._place.run(self._readme.wheels, self._clone, self._place.env, self._timeout)
        count = len([*(self._clone / "dist").glob("*.whl")])
        return f"{count} wheels"

    def _install_wheel(self) -> str:
        self._venv = self._environment("user")
        env = self._place.activated(self._venv)
        self._place.run(self._readme.wheel, self._clone, env, self._timeout)
        # From here on, nothing may come from the checkout.
        self._user = self._venv.parent
        self._env = env
        return self._installed(self._venv)

    def _ported(self, code: str) -> str:
        return code.replace("8080", str(self._port))

    @contextmanager
    def _ten_lines(self) -> Iterator[Running]:
        """Run the server of README."""
        (self._user / "server.py").write_text(self._ported(self._readme.server), "utf-8")
        with Running("python -X dev server.py", self._user, self._env) as server:
            server.wait_for_port(self._port)
            yield server
            server.interrupt()
        if server.output:
            raise server.failed("it should print nothing")

    def _python(self) -> str:
        (self._user / "client.py").write_text(self._ported(self._readme.client), "utf-8")
        with self._ten_lines():
            output = self._place.run("python -X dev client.py", self._user, self._env, START)
        if output != f"{HELLO}\n":
            raise Failed(f"the client printed {output!r}")
        return output.strip()

    def _chromium(self) -> str:
        program = needed("chromium", "chromium-browser", "google-chrome")
        page = (
            f"<!doctype html><title>x</title><script>{self._ported(self._readme.browser)}</script>"
        )
        with self._ten_lines(), page_server(page) as port:
            profile = self._user / "chromium"
            arguments = [program, *CHROMIUM, f"--user-data-dir={profile}"]
            command = shlex.join([*arguments, f"http://localhost:{port}/"])
            with Running(command, self._user, self._env) as browser:
                browser.wait_for(HELLO, START)
        return HELLO

    def _node(self) -> str:
        needed("node")
        needed("npm")
        command, line = self._readme.node
        # The version that the tests use.
        lock = json.loads((ROOT / "tests" / "node" / "package-lock.json").read_text("utf-8"))
        ws = lock["packages"]["node_modules/ws"]["version"]
        quiet = f"@{ws} --ignore-scripts --no-audit --no-fund"
        self._place.run(f"{command}{quiet}", self._user, self._env, self._timeout)
        code = f"{line};\n\n{self._ported(self._readme.browser)}"
        (self._user / "client.mjs").write_text(code, "utf-8")
        with self._ten_lines():
            output = self._place.run("node client.mjs", self._user, self._env, START)
        if HELLO not in output:
            raise Failed(f"Node printed {output!r}")
        return f"{HELLO} (ws {ws})"

    def _uvicorn(self) -> str:
        # Without a library for WebSocket: uvicorn can only use fastws.
        self._place.run("pip install -q uvicorn", self._user, self._env, self._timeout)
        (self._user / "app.py").write_text(APPLICATION, "utf-8")
        port = free_port(8000)
        command = self._readme.uvicorn + ("" if port == 8000 else f" --port {port}")
        code = self._readme.client.replace("8080", str(port))
        (self._user / "client.py").write_text(code, "utf-8")
        with Running(command, self._user, self._env) as server:
            server.wait_for_port(port)
            output = self._place.run("python -X dev client.py", self._user, self._env, START)
            server.interrupt()
        if output != f"{HELLO}\n" or "Traceback" in server.output:
            raise server.failed(f"the client printed {output!r}")
        return output.strip()


def free_port(wanted: int) -> int:
    """Return this port, or another one if it is in use."""
    for port in (wanted, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as sock:
            free: int = sock.getsockname()[1]
            return free
    raise Failed("no port is free")


def needed(*names: str) -> str:
    """Find one of these programs.

    Raises:
        Failed: if none is installed.
    """
    for name in names:
        if path := shutil.which(name):
            return path
    raise Failed(f"{' or '.join(names)} is not installed")


@contextmanager
def page_server(page: str) -> Iterator[int]:
    """Serve a page on a port of localhost."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def walk(steps: Iterator[tuple[str, Callable[[], str]]]) -> int:
    """Take these steps, print a table, and return how many failed.

    After a failure, the next steps would only fail for the same reason, so they are not taken.
    """
    rows: list[tuple[str, str, str]] = []
    failure = ""
    began = time.monotonic()
    for name, step in steps:
        if failure:
            rows.append((name, "", "not reached"))
            continue
        print(f"{name} … ", end="", flush=True)
        started = time.monotonic()
        try:
            text = step()
        except Failed as exc:
            failure = str(exc)
            text = "FAILED"
        took = seconds(time.monotonic() - started)
        print(took, flush=True)
        rows.append((name, took, text))
    width = max(len(name) for name, _, _ in rows)
    print()
    for name, took, text in rows:
        print(f"{name:<{width}}  {took:>12}  {text}".rstrip())
    total = seconds(time.monotonic() - began)
    if failure:
        print(f"\n{failure}\n\nFAILED after {total}: README.md does not work as it says.")
    else:
        print(f"\nA newcomer gets through in {total}.")
    return int(bool(failure))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="run only one file of the suite")
    parser.add_argument("--keep", action="store_true", help="keep the files, and say where")
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="how long a build or the suite may take (default: %(default)g)",
    )
    args = parser.parse_args()
    path = Path(tempfile.mkdtemp(prefix="newcomer-"))
    try:
        return walk(Walk(path, quick=args.quick, timeout=args.timeout).steps())
    except Failed as exc:
        print(exc, file=sys.stderr)
        return 1
    finally:
        if args.keep:
            print(f"The files are in {path}")
        else:
            shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
