"""Subinterpreters: which twin they get, and that it works there (see `codec`).

Each test runs in a process of its own, because what one interpreter loads affects the others.
From Python 3.12 on, an isolated interpreter has its own GIL; a legacy one shares the GIL of the
main interpreter, as under mod_wsgi.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastws import codec

COMPILED = codec.implementation == "c"

# concurrent.interpreters (3.14) is based on `_interpreters`, which can also create legacy ones.
TOOLS = """
import sys
try:
    import _interpreters as low
except ImportError:
    import _xxsubinterpreters as low

def create(kind):
    if sys.version_info >= (3, 13):
        return low.create(kind)
    return low.create(isolated=kind == "isolated")

def run(interpreter, code):
    failure = low.run_string(interpreter, code)  # from Python 3.13 on; before, it raises
    assert failure is None, failure.errdisplay

def in_new(kind, code):
    interpreter = create(kind)
    try:
        run(interpreter, code)
    finally:
        low.destroy(interpreter)
"""
# The dependency is among its imports.
ROUND_TRIP = """
import h11, fastws
from fastws import Connection, Role, MessageDecoder

text, data = "h\\u00e9llo \\U0001f600 " * 30, bytes(range(256)) * 300
client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
client.send(text)
client.send(data)
client.send("frag", fin=False)
client.continuation("mented")
client.ping(b"there?")
wire = client.data_to_send()
received = []
for start in range(0, len(wire), 1000):
    received += server.receive_data(wire[start : start + 1000])
assert received == [text, data, "fragmented", fastws.Ping(b"there?")]
for message in received[:3]:
    server.send(message)
server.close(1000, "bye")
events = client.receive_data(server.data_to_send())
assert events == [fastws.Pong(b"there?"), text, data, "fragmented", fastws.Close(1000, "bye")]

decoder = MessageDecoder(masked=True)
assert decoder.feed(b"\\x81\\x85" + bytes(4) + b"abc\\xff\\xff") == []
assert decoder.error.close_code == 1007
there, here = fastws.ClientHandshake("ws://localhost/"), fastws.ServerHandshake()
request = here.receive_data(there.request())
assert there.receive_data(here.accept(request)).status == 101
assert fastws.implementation == "{twin}", fastws.implementation
"""

both_kinds = pytest.mark.parametrize("kind", ["isolated", "legacy"])


def python(code: str, impl: str | None) -> None:
    """Run it as a program of its own, which must not print anything."""
    environ = {name: value for name, value in os.environ.items() if name != "FASTWS_IMPL"}
    if impl is not None:
        environ["FASTWS_IMPL"] = impl
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", TOOLS + code],
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def round_trip(twin: str) -> str:
    return ROUND_TRIP.replace("{twin}", twin)


MAIN = round_trip("c" if COMPILED else "py")
IMPL = None if COMPILED else "py"


@both_kinds
def test_subinterpreter_gets_the_pure_twin_and_the_main_one_keeps_its_own(kind: str) -> None:
    python(f"{MAIN}\nin_new({kind!r}, {round_trip('py')!r})\n{MAIN}", IMPL)


# Python 3.12.1 aborts after an isolated interpreter has imported asyncio, and nothing else.
@pytest.mark.parametrize(
    "kind", ["legacy"] if sys.version_info[:2] == (3, 12) else ["isolated", "legacy"]
)
def test_what_stands_on_asyncio_works_too(kind: str) -> None:
    # (Not in several at once, which asyncio does not support in Python 3.11 and 3.12.)
    code = """
import asyncio, fastws

async def main():
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with fastws.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with fastws.connect(f"ws://127.0.0.1:{port}") as ws:
            await ws.send("Hello")
            assert await ws.recv() == "Hello"

asyncio.run(main())
assert fastws.implementation == "py"
"""
    python(f"{MAIN}\nin_new({kind!r}, {code!r})\n{MAIN}", IMPL)


@both_kinds
def test_interpreters_come_and_go(kind: str) -> None:
    code = f"{MAIN}\nfor _ in range(12): in_new({kind!r}, {round_trip('py')!r})\n{MAIN}"
    python(code, IMPL)


@both_kinds
def test_several_work_at_once(kind: str) -> None:
    code = f"""
from concurrent.futures import ThreadPoolExecutor
code = {round_trip("py")!r}
interpreters = [create({kind!r}) for _ in range(3)]
with ThreadPoolExecutor(3) as pool:
    for _ in range(4):
        list(pool.map(run, interpreters, [code] * 3))
for interpreter in interpreters:
    low.destroy(interpreter)
"""
    python(MAIN + code + MAIN, IMPL)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
def test_pool_of_interpreters_works() -> None:
    code = f"""
from concurrent.futures import InterpreterPoolExecutor
with InterpreterPoolExecutor(3) as pool:
    for future in [pool.submit(exec, {round_trip("py")!r}, {{}}) for _ in range(9)]:
        future.result()
"""
    python(MAIN + code + MAIN, IMPL)


@pytest.mark.skipif(not COMPILED, reason="about the accelerated twin")
def test_the_first_interpreter_may_be_a_legacy_one() -> None:
    # An application's interpreter under mod_wsgi; later ones have to do without.
    first, later = round_trip("c"), round_trip("py")
    python(f"in_new('legacy', {first!r})\nin_new('legacy', {later!r})\n{later}", None)


@pytest.mark.skipif(not COMPILED, reason="about the accelerated twin")
@both_kinds
def test_extension_that_is_asked_for_is_an_error_that_says_why(kind: str) -> None:
    code = """
try:
    import fastws
except ImportError as exc:
    assert str(exc).startswith("FASTWS_IMPL=c, but fastws._c cannot be imported: "), exc
    assert "interpreter" in str(exc), exc
else:
    raise AssertionError
"""
    python(f"{MAIN}\nin_new({kind!r}, {code!r})\n{MAIN}", "c")
