"""The programs that take part: how to build them, start them on their own core, and end them.

This module knows compilers, npm, processes and what Linux reports about them. It does not know
what is measured.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HOST = "127.0.0.1"
MISSING = 3  # the exit status of a server whose library is not installed
CACHE = ROOT / ".cache" / "bench"
START_TIMEOUT = 30.0  # seconds until a server listens


class MissingError(Exception):
    """Something is not available on this machine; the message says what."""


class FailedError(Exception):
    """A program failed; the message says how."""


# Building -----------------------------------------------------------------------------


def _compiler(*names: str) -> str:
    for name in names:
        if name and (path := shutil.which(name)):
            return path
    raise MissingError(f"no compiler: {' or '.join(filter(None, names))}")


def _has_header(compiler: str, language: str, header: str) -> bool:
    probe = f"#if !__has_include(<{header}>)\n#error missing\n#endif\n"
    command = [compiler, "-E", "-x", language, "-"]
    return not subprocess.run(
        command, input=probe, capture_output=True, text=True, timeout=60, check=False
    ).returncode


def _compile(source: Path, command: Sequence[str], libraries: Sequence[str]) -> Path:
    """The program built from `source`; rebuilt if that, a header beside it or the command has
    changed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    program = CACHE / f"{source.parent.name}-{source.stem}"
    stamp = program.with_suffix(".json")
    texts = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    wanted = json.dumps([*command, *libraries, *texts])
    if program.exists() and stamp.exists() and stamp.read_text() == wanted:
        return program
    print(f"building {source.name} …", file=sys.stderr, flush=True)
    result = subprocess.run(
        [*command, "-o", str(program), str(source), *libraries],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if result.returncode:
        raise FailedError(f"{source.name} does not compile:\n{result.stderr[:2000]}")
    stamp.write_text(wanted)
    return program


def build_load(name: str) -> tuple[Path, bool]:
    """The load client of this name, and whether it supports TLS."""
    compiler = _compiler(os.environ.get("CC", ""), "cc", "gcc", "clang")
    if not _has_header(compiler, "c", "zlib.h"):
        raise MissingError("zlib.h (Debian: zlib1g-dev)")
    tls = _has_header(compiler, "c", "openssl/ssl.h")
    command = [compiler, "-std=c11", "-O2", "-Wall", "-Wextra"]
    libraries = ["-lz"]
    if tls:
        command.append("-DLOAD_TLS")
        libraries += ["-lssl", "-lcrypto"]
    return _compile(HERE / f"{name}.c", command, libraries), tls


def build_beast(source: Path) -> tuple[Path, bool]:
    """A server with Boost.Beast, and whether it supports TLS."""
    compiler = _compiler(os.environ.get("CXX", ""), "c++", "g++", "clang++")
    if not _has_header(compiler, "c++", "boost/beast/websocket.hpp"):
        raise MissingError("the headers of Boost.Beast (Debian: libboost-dev)")
    tls = _has_header(compiler, "c++", "openssl/ssl.h")
    command = [compiler, "-std=c++17", "-O3", "-DNDEBUG"]
    libraries = ["-pthread"]
    if tls:
        command.append("-DBEAST_TLS")
        libraries += ["-lssl", "-lcrypto"]
    return _compile(source, command, libraries), tls


def build_uwebsockets(source: Path) -> tuple[Path, bool]:
    """A server with uWebSockets, and whether it supports TLS. Its source is not a package: it must
    have been cloned, with the submodule uSockets."""
    place = CACHE / "uWebSockets"
    if not (place / "uSockets" / "src" / "libusockets.h").exists():
        shown = place.relative_to(ROOT)
        raise MissingError(f"no clone of uNetworking/uWebSockets with its submodules in {shown}")
    compiler = _compiler(os.environ.get("CC", ""), "cc", "gcc", "clang")
    cxx = _compiler(os.environ.get("CXX", ""), "c++", "g++", "clang++")
    tls = _has_header(compiler, "c", "openssl/ssl.h")
    sockets = place / "uSockets" / "src"
    flags = ["-O3", "-DNDEBUG", "-DLIBUS_USE_OPENSSL" if tls else "-DLIBUS_NO_SSL"]
    flags += ["-I", str(sockets)]
    objects = []
    for folder in (".", "eventing", "crypto"):
        files = sorted((sockets / folder).glob("*.c"))
        objects += [_compile(file, [compiler, "-std=c11", "-c", *flags], []) for file in files]
    flags += ["-std=c++20", "-I", str(place / "src")]
    if tls:
        objects.append(_compile(sockets / "crypto" / "sni_tree.cpp", [cxx, "-c", *flags], []))
    libraries = [*map(str, objects), "-lz", *(["-lssl", "-lcrypto"] if tls else [])]
    return _compile(source, [cxx, *flags], libraries), tls


def install_ws() -> Path:
    """The directory whose node_modules contains ws and, if available, bufferutil."""
    if not shutil.which("node"):
        raise MissingError("node")
    place = CACHE / "node"
    if (place / "node_modules" / "ws").exists():
        return place
    problem = "npm, to install ws"
    if npm := shutil.which("npm"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text('{"private": true}\n')
        print("installing ws …", file=sys.stderr, flush=True)
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"]
        result = subprocess.run(
            [*command, "ws", "bufferutil"],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if not result.returncode:
            return place
        problem = f"ws: {(result.stderr.strip().splitlines() or ['npm failed'])[-1]}"
    # What the tests have installed lacks bufferutil, but is good enough.
    if (ROOT / "tests" / "node" / "node_modules" / "ws").exists():
        return ROOT / "tests" / "node"
    raise MissingError(problem)


@contextmanager
def certificate() -> Iterator[tuple[str, str] | None]:
    """The paths of a certificate for the loopback address and of its key; None without trustme."""
    try:
        import trustme
    except ImportError:
        yield None
        return
    issued = trustme.CA().issue_cert(HOST)
    with tempfile.TemporaryDirectory() as directory:
        cert, key = Path(directory, "cert.pem"), Path(directory, "key.pem")
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        yield str(cert), str(key)


# Cores --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cores:
    """The cores for the server and the load; None on a machine with a single core."""

    server: int | None
    load: int | None


def choose_cores() -> Cores:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return Cores(None, None)
    # Most interrupts go to the first core, so the server must not use it. Two threads of one
    # core would slow each other down.
    server = cores[-1]
    topology = f"/sys/devices/system/cpu/cpu{server}/topology/thread_siblings_list"
    siblings = _parse_cores(_read(topology))
    load = next((core for core in cores if core not in siblings | {server}), cores[0])
    return Cores(server, load)


def _parse_cores(text: str) -> set[int]:
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores


def on_core(core: int | None) -> Callable[[], None] | None:
    """Return what a child process calls first to run on that core only."""
    return None if core is None else lambda: os.sched_setaffinity(0, {core})


def raise_file_limit() -> int:
    """Raise the limit of open files as far as possible, also for children; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


# Processes ----------------------------------------------------------------------------


def child_environment() -> dict[str, str]:
    """Return an environment in which the project's source and this package can be imported."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return sock.getsockname()[1]


@contextmanager
def running(command: Sequence[str], port: int, core: int | None) -> Iterator[subprocess.Popen]:
    """A server that listens."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                preexec_fn=on_core(core),
                start_new_session=True,
            )
        except OSError as exc:
            raise MissingError(str(exc)) from exc
        try:
            _wait_for_port(process, port, errors)
            try:
                yield process
            except FailedError as exc:
                said = _last_line(errors)
                raise FailedError(f"{exc}; the server said: {said}" if said else exc) from exc
        finally:
            # With its children.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for_port(process: subprocess.Popen, port: int, errors: Any) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        status = process.poll()
        if status is not None:
            kind = MissingError if status == MISSING else FailedError
            raise kind(_last_line(errors) or f"exit status {status}")
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise FailedError(f"does not listen after {START_TIMEOUT:.0f} s")


def _last_line(errors: Any) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def resident(pid: int) -> int:
    """Resident memory of a process and its children, in bytes."""
    children = [_read(str(path)).split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return _resident(pid) + sum(resident(int(child)) for found in children for child in found)


def _resident(pid: int) -> int:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) << 10
    pages = _read(f"/proc/{pid}/statm").split()
    if not pages:
        raise FailedError("the server is gone")
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")


def collect_garbage(process: subprocess.Popen) -> None:
    """Ask one of our servers to collect garbage, with a signal that would kill others."""
    process.send_signal(signal.SIGUSR2)
    time.sleep(0.5)


# The environment ----------------------------------------------------------------------

PACKAGES = [
    "uvloop",
    "websockets",
    "aiohttp",
    "picows",
    "aiofastnet",  # picows uses it by default
    "uvicorn",
    "httptools",
    "granian",
    "socketify",
    "websocket-rs",
    "wsproto",
    "tornado",
    "websocket-client",
    "wsaccel",
    "autobahn",
    "numpy",
]


def describe() -> dict[str, Any]:
    """The machine, and the versions of everything."""
    versions: dict[str, str | None] = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    versions["fastws"] = _output(
        sys.executable,
        "-c",
        "import fastws; print(fastws.__version__, fastws.implementation, fastws.kernel)",
    )
    versions["commit"] = _output(
        "git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12"
    )
    versions["node"] = _output("node", "--version")
    for package in ("ws", "bufferutil"):
        versions[package] = _node_version(package)
    versions["c compiler"] = _output(os.environ.get("CC") or "cc", "--version")
    compiler = os.environ.get("CXX") or "c++"
    versions["c++ compiler"] = _output(compiler, "--version")
    boost = _output(
        *(compiler, "-E", "-P", "-x", "c++", "-"),
        stdin="#include <boost/version.hpp>\nBOOST_LIB_VERSION\n",
        line=-1,
    )
    versions["boost"] = boost and boost.strip('"').replace("_", ".")
    models = [line for line in _read("/proc/cpuinfo").splitlines() if "model name" in line]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": models[0].partition(":")[2].strip() if models else None,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": os.uname().release,
        "versions": versions,
    }


def _node_version(package: str) -> str | None:
    for place in (CACHE / "node", ROOT / "tests" / "node"):
        # bufferutil only counts if it is next to the ws in use.
        if (place / "node_modules" / "ws").exists():
            text = _read(str(place / "node_modules" / package / "package.json"))
            return json.loads(text)["version"] if text else None
    return None


def _output(*command: str, stdin: str | None = None, line: int = 0) -> str | None:
    try:
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=child_environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except OSError:
        return None
    lines = result.stdout.strip().splitlines()
    return lines[line] if lines and not result.returncode else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
