"""The fixtures that every test file may use; first of all `twin`.

FASTWS_IMPL=c   both twins are tested; a missing extension is an error
FASTWS_IMPL=py  the pure-Python twin alone is tested, and _c need not exist
unset           both, if the extension is compiled
"""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from fastws import codec
from fastws.deflate import LIBRARIES, load_library

from .terminals import Terminal
from .tools import FREE_THREADED, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# No test depends on how fast the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# For emulated CPUs: --hypothesis-profile=emulated
settings.register_profile(
    "emulated", max_examples=10, deadline=None, suppress_health_check=list(HealthCheck)
)

HERE = Path(__file__).parent
MODULES = ("masking", "utf8", "frames", "messages", "connection")

# A shell ignores SIGINT for what it runs in the background, and child processes of the tests
# would inherit that; some of the tests are about Ctrl-C.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A test has 2,000 sockets, and shells often allow 1,024 files.
if os.name == "posix" and sys.platform != "emscripten":
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _load(name: str) -> SimpleNamespace:
    names: dict[str, object] = {"name": name}
    for module in MODULES:
        loaded = import_module(f"fastws._{name}.{module}")
        names |= {public: getattr(loaded, public) for public in loaded.__all__}
    return SimpleNamespace(**names)


collect_ignore = []
if os.environ.get("FASTWS_IMPL") == "py" or codec.implementation == "py":
    TWINS = [_load("py")]
    # These files need both.
    collect_ignore += ["test_capi.py", "test_differential.py", "test_kernels.py"]
else:
    TWINS = [_load("py"), _load("c")]
if find_spec("_interpreters") is None and find_spec("_xxsubinterpreters") is None:
    collect_ignore += ["test_subinterpreters.py"]  # PyPy has none

# These test the checkout, or need more than the package: a browser, Node, hosts.
AROUND = {"browser", "bus", "conformance", "docs", "integrations", "node", "proxies"}
AROUND |= {"test_cli_run.py", "test_examples.py", "test_fuzz_targets.py", "test_packaging.py"}
AROUND |= {
    "test_architecture.py",
    "test_benchmarks.py",
    "test_english.py",
    "test_inspect.py",
    "test_instructions.py",
    "test_make.py",
    "test_newcomer.py",
    "test_phases.py",
    "test_readme.py",
    "test_release.py",
    "test_sources.py",
    "test_versions.py",
    "test_wheels.py",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--installed",
        action="store_true",
        help="test nothing but what is installed, for one more Python or platform",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which kernels the tests could run: that depends on the CPU."""
    if codec.implementation == "c":
        kernels = import_module("fastws._c.kernel")
        there = kernels.available()
        missing = [name for name in kernels.compiled() if name not in there]
        line = f"kernels on this CPU: {' '.join(there)}"
        terminalreporter.write_line(line + (f"; not on it: {' '.join(missing)}" if missing else ""))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    around = collection_path.parent == HERE and collection_path.name in AROUND
    return True if around and config.getoption("installed") else None


@pytest.fixture(autouse=True)
def no_gil() -> None:
    """A free-threaded Python enables its GIL permanently if a module needs it."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    """The write end of a pipe whose read end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture(params=LIBRARIES)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a library for DEFLATE."""
    name: str = request.param
    try:
        load_library(name)
    except ImportError as exc:
        if FREE_THREADED or sys.implementation.name != "cpython":
            pytest.skip(f"there is no {name} for this Python")
        missing(str(exc))
    return name


@pytest.fixture(params=TWINS, ids=lambda twin: twin.name, scope="session")
def twin(request: pytest.FixtureRequest) -> SimpleNamespace:
    """All public names of one implementation of the codec."""
    return request.param


@pytest.fixture
def hangups() -> Iterator[None]:
    """Programs that the test starts get SIGHUP, even if `nohup` has started the tests."""
    handler = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, handler)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Run a `fastws` command on a terminal of its own."""
    terminals: list[Terminal] = []

    def start(*args: str, **options: Any) -> Terminal:
        terminals.append(Terminal(*args, **options))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()
