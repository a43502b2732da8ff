"""Checks the import arrows of docs/explanation/architecture.md, by reading the source tree.

    spec <- exceptions <- errors <- rules <- _py | _c <- codec <- deflate <- connection
    http <- extensions, heads <----------------------------- handshake <- aio <- cli
    uri <----------------------------------------------------'
    connection, handshake <- session

The sources of what is above the codec and compiled are in _py and _c, too, but not of the codec.

A module that does not exist yet is no error; one that is not in the tables below is. The arrows
inside of aio, cli and integrations have tables of their own. And nothing below aio may know
asyncio, by import or in any other way.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastws.spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import SimpleNamespace

ROOT = Path(fastws.spec.__file__).parent

TWIN = {"closing", "errors", "exceptions", "events", "rules", "spec"}
PARTS = TWIN | {"_cython", "deflate", "prepared"}  # of a connection, beside the codec
CODEC = TWIN | {"codec"}
OPENING = {
    *("extensions", "handshake", "heads", "hosts", "http", "peers", "proxy_protocol"),
    *("tunnels", "uri"),
}
SANS_IO = CODEC | OPENING | {"connection", "deflate", "prepared", "session", "stats", "text"}
ALL = SANS_IO | {"aio", "bus", "cli", "demo", "integrations", "metrics"}

# What each part may import of fastws when it runs ...
ALLOWED: dict[str, set[str]] = {
    "spec": set(),
    "http": {"exceptions"},
    "hosts": set(),
    "peers": set(),
    "proxy_protocol": {"exceptions", "rules"},
    "uri": {"exceptions", "hosts"},
    "heads": {"http"},
    "extensions": {"http"},
    "closing": {"spec"},
    "exceptions": {"closing", "spec"},
    "errors": {"exceptions", "spec"},
    "events": {"errors", "spec"},
    "rules": {"closing", "errors", "exceptions", "events", "spec"},
    "_cython": set(),
    "_py": TWIN,
    "_c": TWIN,
    "_py.connection": PARTS | {"_py"},
    "_c.connection": PARTS | {"_c"},
    "capi": TWIN | {"_c"},
    "codec": {"_c", "_py", "events"},
    "deflate": CODEC,
    "tunnels": {"exceptions", "heads", "http", "uri"},
    "handshake": {"extensions", "heads", "http", "uri", "exceptions", "spec", "deflate"},
    "prepared": CODEC | {"deflate"},
    "text": CODEC,
    "stats": set(),
    "connection": CODEC | {"_c", "_py", "deflate", "prepared", "stats", "text"},
    "session": TWIN | OPENING | {"connection", "deflate", "stats"},
    "aio": SANS_IO - {"session"},
    "aio.sinks": TWIN | {"_cython", "aio"},
    "aio.wire": TWIN | {"_cython", "aio", "prepared"},
    "aio.twin": {"codec", "_c", "aio"},
    "bus": {"aio", "exceptions"},
    "metrics": {"codec", "http"},
    "integrations": SANS_IO | {"aio"},
    "demo": set(),
    "__pyinstaller": {"integrations"},
    "cli": ALL | {"_init_"},
    "__main__": ALL,
    "__init__": ALL,
}
# ... and, in addition, for the type checker.
FOR_TYPES: dict[str, set[str]] = {
    "closing": {"events", "exceptions"},
    "errors": {"closing"},
    "exceptions": {"events", "http"},
    "http": {"peers"},
    "handshake": {"peers"},
    "peers": {"proxy_protocol"},
    "deflate": {"extensions"},
    "aio": {"bus"},
    "metrics": {"aio"},
    "session": {"prepared"},
    "aio.sinks": {"connection"},
    "aio.wire": {"connection"},
}

# What the modules inside of a package import of each other when they run. For the type checker,
# they may import whatever they like.
INSIDE: dict[str, dict[str, set[str]]] = {
    "aio": {
        "__init__": set(),
        # What knows nothing of the rest.
        "blame": set(),
        "facts": set(),
        "outbox": set(),
        "relay": set(),
        "phases": set(),
        "pings": set(),
        "racing": set(),
        "redirects": set(),
        "retries": set(),
        "senders": set(),
        "settings": set(),
        "fragments": set(),
        "signals": set(),
        "transports": set(),
        "unsent": set(),
        # Parts of an endpoint.
        "creation": {"phases"},
        "keepalive": {"unsent"},
        "lingering": {"transports"},
        "fanout": {"outbox"},
        "opening": {"blame", "facts", "redirects"},
        "sinks": {"phases"},
        "wire": {"phases"},
        "twin": {"sinks", "wire"},
        "proxies": {"racing"},
        "places": {"proxies", "racing"},
        # An endpoint, in three steps.
        "view": {"blame", "twin"},
        "flow": {"phases", "pings", "senders", "settings", "twin", "unsent", "view"},
        "journal": {"transports", "view"},
        "endpoint": {
            *("creation", "flow", "journal", "keepalive", "lingering", "opening", "phases"),
            *("redirects", "transports", "twin", "view"),
        },
        # The two styles, and what creates endpoints.
        "protocol": {"endpoint", "twin", "view"},
        "websocket": {"endpoint", "fragments", "phases", "senders", "twin", "view"},
        "streaming": {"endpoint", "view", "websocket"},
        "client": {
            *("endpoint", "opening", "places", "redirects", "retries", "settings", "view"),
            *("streaming", "websocket"),
        },
        "server": {
            *("admission", "draining", "endpoint", "phases", "protocol", "signals", "streaming"),
            *("transports", "view", "websocket"),
        },
        "admission": {"opening", "view"},
        "draining": {"phases", "websocket"},
        "proxied": {"endpoint"},
        "serving": {"admission", "facts", "opening", "protocol", "proxied", "server", "settings"},
        # What sends to many endpoints.
        "receivers": {"endpoint", "outbox", "senders", "view"},
        "topics": {"fanout", "receivers", "relay"},
    },
    "bus": {
        "__init__": set(),
        "_envelope": set(),
        "_broker": {"__init__", "_envelope"},
        "redis": {"_broker"},
        "nats": {"_broker", "_envelope"},
    },
    "cli": {
        "__init__": {
            *("_shared", "bench", "completion", "connect", "echo", "info", "inspect", "probe"),
            *("run", "serve"),
        },
        # What commands share.
        "_terminal": set(),
        "_shared": {"_terminal"},
        # Parts of a command.
        "_captures": set(),
        "_checks": set(),
        "_client_checks": {"_checks"},
        "_client_probing": {"_client_checks", "_probing"},
        "_conversation": {"_shared", "_terminal"},
        "_echo_server": {"_inspection", "_metrics", "_pages", "_serving", "_status"},
        "_handlers": {"_metrics", "_serving", "_shared", "_status"},
        "_inspecting": set(),
        "_loading": set(),
        "_metrics": {"_serving", "_shared"},
        "_prompt": set(),
        "_inspection": set(),
        "_pages": set(),
        "_probing": {"_checks"},
        "_reports": {"_probing", "_terminal"},
        "_serving": {"_shared"},
        "_sources": set(),
        "_status": {"_shared"},
        "_systemd": set(),
        "_workers": {"_serving", "_shared"},
        # Commands.
        "bench": {"_loading", "_shared", "_terminal"},
        "completion": {"_shared"},
        "connect": {"_conversation", "_prompt", "_shared", "_terminal"},
        "echo": {"_echo_server", "_serving", "_shared", "_status", "_workers"},
        "info": {"_shared"},
        "inspect": {"_captures", "_inspecting", "_shared", "_terminal"},
        "probe": {"_client_probing", "_probing", "_reports", "_shared", "_terminal"},
        "run": {"_shared"},
        "serve": {
            *("_handlers", "_serving", "_shared", "_sources", "_status", "_systemd", "_workers"),
        },
    },
    "integrations": {
        "__init__": {"_install"},
        "_hosts": {"_install"},
        "_incremental": set(),
        "_install": set(),
        "_servers": {"_hosts"},
        "_startup": {"_hosts", "_install", "_startup.hook"},
        "_startup.hook": set(),
        "_startup.sitecustomize": set(),
        "_tls": set(),
        "_uvicorn_worker": {"uvicorn"},
        "aiohttp": {"_hosts", "_install"},
        "asgi": set(),
        "autobahn": {"_hosts", "_incremental", "_install"},
        "gunicorn": {"_hosts", "_install", "_uvicorn_worker"},
        "tornado": {"_hosts", "_install"},
        "uvicorn": {"_hosts", "_tls", "asgi"},
        "websocket_client": {"_hosts", "_install"},
        "websockets": {"_hosts", "_install"},
        "wsaccel": {"_incremental"},
        "wsproto": {"_hosts", "_install"},
    },
}
# The modules of aio that import asyncio when they run. The others are about rules and numbers.
WITH_ASYNCIO = {
    *("client", "endpoint", "facts", "fanout", "flow", "outbox", "pings", "protocol", "proxied"),
    *("proxies", "racing", "receivers", "senders", "server", "serving", "signals", "transports"),
    *("draining", "fragments", "journal", "places", "relay", "websocket"),
}

# Twins have no clock, no randomness, no logging and no I/O.
NOT_IN_A_TWIN = {"asyncio", "logging", "os", "random", "secrets", "socket", "ssl", "time"}

SOURCES = sorted(
    path
    for pattern in ("*.py", "*.pyx", "*.pxd")
    for path in ROOT.rglob(pattern)
    if "__pycache__" not in path.parts
)
SUBMODULES = {path.stem for path in ROOT.glob("*.py*")} | {
    path.name for path in ROOT.iterdir() if path.is_dir()
}


def part_of(path: Path) -> str:
    """The module or package directly under fastws that a file belongs to."""
    first = path.relative_to(ROOT).parts[0]
    if f"{first}.{path.stem}" in ALLOWED:
        return f"{first}.{path.stem}"
    return first.partition(".")[0]


def of_python(path: Path) -> set[tuple[str, bool]]:
    """The absolute names of all imports, and whether they are only for the type checker."""
    package = ["fastws", *path.relative_to(ROOT).parts[:-1]]
    found = set()

    def visit(node: ast.AST, typing: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, typing)
            return
        if isinstance(node, ast.Import):
            found.update((alias.name, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            found.update((f"{base}.{alias.name}", typing) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.add((ast.unparse(node.args[0]), typing))
        for child in ast.iter_child_nodes(node):
            visit(child, typing)

    visit(ast.parse(path.read_text("utf-8")), False)
    return found


IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\(.*?\)|[^\n#]*)|c?import[ \t]+([^\n#]*))",
    re.MULTILINE | re.DOTALL,
)


def of_cython(path: Path) -> set[tuple[str, bool]]:
    """The same for a Cython source, import and cimport alike."""
    found = set()
    for module, names, modules in IMPORT.findall(path.read_text("utf-8")):
        for name in re.findall(r"[\w.]+(?: as \w+)?", names or modules):
            name = name.split(" as ")[0]
            found.add((f"{module}.{name}" if module else name, False))
    return found


def imports(path: Path) -> set[tuple[str, bool]]:
    return of_python(path) if path.suffix == ".py" else of_cython(path)


def fastws_parts(path: Path, typing: bool) -> set[str]:
    """The parts of fastws that a file imports; "_init_" for a name of the package itself."""
    parts = set()
    for name, for_types in imports(path):
        if for_types is typing and (name == "fastws" or name.startswith("fastws.")):
            child = f"{name}.".split(".")[1]
            parts.add(child if child in SUBMODULES else "_init_")
    return parts


every_source = pytest.mark.parametrize(
    "path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES]
)


@every_source
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED, f"say in {Path(__file__).name} what {part} may import"
    allowed = ALLOWED[part] | ({part} if (ROOT / part).is_dir() else set())
    assert fastws_parts(path, typing=False) <= allowed
    assert fastws_parts(path, typing=True) <= allowed | FOR_TYPES.get(part, set())


def test_the_table_has_no_circle() -> None:
    order = TopologicalSorter({part: names - {part} for part, names in ALLOWED.items()})
    assert set(order.static_order()) >= set(ALLOWED)


@every_source
def test_package_itself_is_imported_by_nobody(path: Path) -> None:
    if part_of(path) not in ("__init__", "cli"):
        assert "_init_" not in fastws_parts(path, False) | fastws_parts(path, True)


@pytest.mark.parametrize("name", ["_py", "_c"])
def test_twins_know_no_clock_no_chance_no_log_and_no_io(name: str) -> None:
    sources = [path for path in SOURCES if path.parent.name == name]
    assert sources
    assert len(sources) == 1 or any(imports(path) for path in sources)
    for path in sources:
        assert not NOT_IN_A_TWIN & {imported.split(".")[0] for imported, _ in imports(path)}


def test_twins_are_told_apart_in_one_place() -> None:
    assert fastws_parts(ROOT / "codec.py", typing=False) >= {"_c", "_py"}
    # What is chosen there is taken from there. A connection, and what each message passes in aio,
    # are no codec: one module takes each of them, and it asks the codec which twin that is.
    taking = ("_c", "_py", "codec", "connection", "aio.twin")
    for path in SOURCES:
        if (
            path.suffix == ".py"
            and path.parent.name not in ("_c", "_py")
            and part_of(path) not in taking
        ):
            parts = fastws_parts(path, typing=False) | fastws_parts(path, typing=True)
            assert not parts & {"_c", "_py"}, path


# Inside of a package -------------------------------------------------------------------------


def modules_of(package: str) -> dict[str, Path]:
    """The Python modules of a package, by their names in it."""
    root = ROOT / package
    found = {}
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


def siblings(package: str, path: Path) -> set[str]:
    """The modules of a package that one of them imports when it runs."""
    names = modules_of(package)
    start = f"fastws.{package}."
    found = set()
    for imported, typing in imports(path):
        if typing or not imported.startswith(start):
            continue
        parts = imported.removeprefix(start).split(".")
        # (The last part, or all of them, may be names in a module.)
        candidates = [".".join(parts[:size]) for size in range(len(parts), 0, -1)]
        found.add(next((name for name in candidates if name in names), "__init__"))
    return found


every_module_inside = pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package in INSIDE for name in modules_of(package)],
    ids=lambda value: value,
)


@every_module_inside
def test_a_module_inside_imports_what_the_table_says(package: str, name: str) -> None:
    assert siblings(package, modules_of(package)[name]) == INSIDE[package].get(name)


@pytest.mark.parametrize("package", INSIDE)
def test_the_table_of_a_package_is_complete_and_has_no_circle(package: str) -> None:
    assert set(TopologicalSorter(INSIDE[package]).static_order()) == set(modules_of(package))


def test_a_circle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path, raising=True)
    (tmp_path / "aio" / "deep").mkdir(parents=True)
    for name, source in {
        "__init__": "",
        "deep/__init__": "from . import part\nfrom .part import value",
        "deep/part": "import fastws.aio.one",
        "one": "def late():\n    from .deep import part",
        "two": "from fastws.aio import one, name\nif TYPE_CHECKING:\n    from .deep import part",
    }.items():
        (tmp_path / "aio" / f"{name}.py").write_text(source)
    arrows = {name: siblings("aio", path) for name, path in modules_of("aio").items()}
    assert arrows == {
        "__init__": set(),
        "deep": {"deep.part"},
        "deep.part": {"one"},
        "one": {"deep.part"},
        "two": {"__init__", "one"},
    }
    with pytest.raises(CycleError):
        TopologicalSorter(arrows).prepare()


# Without asyncio -------------------------------------------------------------------------------

# (_c and _py contain the sources of a connection; the C types of wire and sinks are aio's.)
BELOW_AIO = [
    path
    for path in SOURCES
    if part_of(path).partition(".")[0] in SANS_IO | {"_c", "_cython", "_py", "capi"}
    and path.name not in ("wire.pxd", "sinks.pxd")
]
# What belongs to event loops, and the names that people give them.
OF_ASYNCIO = {
    *("add_done_callback", "aiter", "anext", "async", "asyncio", "await", "awaitable"),
    *("basetransport", "bufferedprotocol", "buffer_updated", "call_at", "call_later", "call_soon"),
    *("call_soon_threadsafe", "connection_lost", "connection_made", "coroutine", "create_future"),
    *("create_task", "current_task", "data_received", "ensure_future", "event_loop", "eventloop"),
    *("future", "get_buffer", "get_event_loop", "get_extra_info", "get_running_loop", "loop"),
    *("loops", "pause_reading", "pause_writing", "resume_reading", "resume_writing"),
    *("run_in_executor", "selector", "set_result", "sock", "socket", "task", "tasks"),
    *("timerhandle", "transport", "transports", "uvloop", "writelines"),
}
TOKEN = re.compile(
    r"""
    (?P<comment> \#[^\n]*)
    | (?:\b[bru]{1,2})? (?P<text>
        \"{3}.*?\"{3} | '{3}.*?'{3} | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
      )
    | (?P<name> [A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)  # fmt: skip


def words(source: str) -> Iterator[str]:
    """The names in Python or Cython code, and the texts that could be names: getattr takes them."""
    for match in TOKEN.finditer(source):
        if match["name"]:
            yield match["name"]
        elif match["text"] and (text := match["text"].strip("\"'")).isidentifier():
            yield text


def of_asyncio(source: str) -> set[str]:
    """What in a source belongs to asyncio."""
    names = set(words(source)) - {"__future__"}
    return {name for name in names if name.strip("_").lower() in OF_ASYNCIO}


@pytest.mark.parametrize("path", BELOW_AIO, ids=[str(path.relative_to(ROOT)) for path in BELOW_AIO])
def test_below_aio_nothing_is_of_asyncio(path: Path) -> None:
    assert of_asyncio(path.read_text("utf-8")) == set()


def test_what_is_below_aio_is_all_there() -> None:
    names = {str(path.relative_to(ROOT).with_suffix("")) for path in BELOW_AIO}
    twice = ("masking", "utf8", "frames", "messages", "connection")
    # (An installation has no sources of what is compiled.)
    twins = ["_py"] if names.isdisjoint({"_c/frames"}) else ["_c", "_py"]
    assert names >= {f"{twin}/{name}" for twin in twins for name in twice}
    assert names >= {"codec", "connection", "deflate", "handshake", "http", "prepared", "spec"}
    assert not [name for name in names if name.startswith(("aio", "cli", "integrations"))]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("async def f(): pass", {"async"}),
        ("x = await y", {"await"}),
        ("self._loop.time()", {"_loop"}),
        ("def f(transport): pass", {"transport"}),
        ("x.write(a, loop=b)", {"loop"}),
        ("call = getattr(x, 'call_soon')", {"call_soon"}),
        ('__slots__ = ("_transport",)', {"_transport"}),
        ("cdef object _loop", {"_loop"}),
        ("def f(x: Future[None]): pass", {"Future"}),
        ("import asyncio.events", {"asyncio"}),
        ("# the event loop and its transport", set()),
        ('"""the event loop"""\nx = "no transport"', set()),
        ('x = "a \\" loop" \'loop the loop\' # loop', set()),
        ("x = b'' + rb'\\' + b'buffer_updated'", {"buffer_updated"}),
    ],
)
def test_what_is_of_asyncio_is_found(source: str, found: set[str]) -> None:
    assert of_asyncio(source) == found


WITHOUT_IO = """
import sys
import threading
import types

# Of what is blocked, the standard library needs some itself.
import email.utils
import importlib.util

BLOCKED = (
    "_asyncio _overlapped _posixsubprocess _queue _socket _ssl aiofastnet asyncio "
    "concurrent concurrent.futures logging multiprocessing queue random sched secrets select "
    "selectors signal socket socketserver ssl subprocess trio uvloop"
).split()
assert not [name for name in sys.modules if name.startswith("fastws.")]
for name in BLOCKED:
    sys.modules[name] = None  # importing it fails
# The accelerated twin may lock, but nobody may start a thread.
sys.modules["threading"] = types.SimpleNamespace(RLock=threading.RLock)

import fastws
from fastws import codec, connection, deflate, handshake, http, prepared, session, spec, uri
from fastws.spec import Role, State

assert fastws.implementation == sys.argv[1]

# The codec
assert list(fastws.FrameDecoder(masked=False).feed(fastws.encode_frame(1, b"one")))
assert fastws.is_utf8("ä".encode())
assert fastws.apply_mask(fastws.apply_mask(b"two", b"abcd"), b"abcd") == b"two"

# The opening handshake
offer = deflate.PerMessageDeflate(backend="zlib")
asking = handshake.ClientHandshake(uri.parse_uri("ws://localhost/"), extensions=[offer])
answering = handshake.ServerHandshake(extensions=[offer])
request = answering.receive_data(asking.request())
response = asking.receive_data(answering.accept(request))
assert response.status == 101
assert asking.deflate is not None

# A conversation
client = fastws.Connection(Role.CLIENT, deflate=asking.deflate)
server = fastws.Connection(Role.SERVER, deflate=answering.deflate)
text = "many words " * 1000
client.send(text)
client.send(fastws.prepare(text))
client.ping(b"?")
octets = client.data_to_send()
assert len(octets) < len(text)
events = server.receive_data(octets)
while server.has_pending:
    events += server.receive_data(b"")
assert events == [text, text, fastws.Ping(b"?")], events
server.send(b"answer")
server.close(1000, "bye")
assert client.receive_data(server.data_to_send()) == [
    fastws.Pong(b"?"), b"answer", fastws.Close(1000, "bye")
]
assert server.receive_data(client.data_to_send()) == [fastws.Close(1000, "bye")]
assert client.state is server.state is State.CLOSED

# A whole life
client, server = session.Session.client("ws://localhost/"), session.Session.server()
found = []
for _ in range(10):
    for one, other in ((client, server), (server, client)):
        for event in one:
            if isinstance(event, session.Read):
                break
            elif isinstance(event, session.Write):
                other.receive_data(one.data_to_send())
            elif isinstance(event, session.Opened) and one is client:
                one.send("Hello")
                one.close()
            else:
                found.append(type(event).__name__)
        else:
            other.receive_eof()
assert found == ["Request", "Opened", "str", "Close", "HalfClose", "Close"], found

assert not [name for name in BLOCKED if sys.modules[name] is not None]
assert not [name for name in sys.modules if name.startswith("fastws.aio")]
sys.modules["threading"] = threading  # Python needs it to end
print("done")
"""


def test_below_aio_all_works_without_asyncio_sockets_and_threads(twin: SimpleNamespace) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_IO, twin.name],
        capture_output=True,
        text=True,
        env=os.environ | {"FASTWS_IMPL": twin.name},
        timeout=60,
        check=False,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("done\n", "", 0)


@pytest.mark.parametrize("name", INSIDE["aio"])
def test_asyncio_is_imported_where_it_is_needed(name: str) -> None:
    names = {
        imported.split(".")[0]
        for imported, typing in imports(modules_of("aio")[name])
        if not typing
    }
    assert ("asyncio" in names) is (name in WITH_ASYNCIO)


def called_on(path: Path, owner: str) -> set[str]:
    """The attributes that a source uses of what it keeps in one of its own."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == owner
    }


def test_what_each_message_passes_knows_little_of_loops_and_transports() -> None:
    wire, sinks = (modules_of("aio")[name] for name in ("wire", "sinks"))
    assert called_on(wire, "_loop") == {"call_soon", "create_future"}
    assert called_on(wire, "_transport") == {"write", "abort"}
    assert called_on(sinks, "_loop") == {"call_later", "call_soon"}
    assert called_on(sinks, "_transport") == set()


# Does this file see what it claims to see? -------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "source", "expected"),
    [
        (".py", "import fastws.aio.server", {("fastws.aio.server", False)}),
        (".py", "from fastws import rules", {("fastws.rules", False)}),
        (".py", "def f():\n    from .masking import xor", {("fastws._py.masking.xor", False)}),
        (".py", "from ..codec import Frame", {("fastws.codec.Frame", False)}),
        (".py", "from .. import rules", {("fastws.rules", False)}),
        (
            ".py",
            "if TYPE_CHECKING:\n    from fastws.http import Response\nelse:\n    import os",
            {("fastws.http.Response", True), ("os", False)},
        ),
        (".pyx", "from fastws import rules", {("fastws.rules", False)}),
        (".pyx", "cimport cython\nimport os as o", {("cython", False), ("os", False)}),
        (
            ".pyx",
            "from fastws._c.frames cimport (\n    A, b as c,\n)\nx = 1",
            {("fastws._c.frames.A", False), ("fastws._c.frames.b", False)},
        ),
    ],
)
def test_imports_are_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    source: str,
    expected: set[tuple[str, bool]],
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path, raising=True)
    path = tmp_path / "_py" / f"module{suffix}"
    path.parent.mkdir()
    path.write_text(source)
    assert imports(path) == expected
