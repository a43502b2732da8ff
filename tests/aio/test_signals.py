"""Tests of how signals stop servers: all servers, in any order, without losing a handler."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, contextmanager
from itertools import permutations

import pytest

from fastws import ConnectionClosed, connect, serve
from fastws.aio import signals

from ..tools import TIMEOUT, needs_uvloop

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signals")

NUMBERS = (signal.SIGINT, signal.SIGTERM)
KINDS = ["asyncio", pytest.param("uvloop", marks=needs_uvloop)]


async def idle(ws):
    await ws.wait_closed()


async def idle_forever(ws):
    await asyncio.Event().wait()


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def handlers():
    return [signal.getsignal(number) for number in NUMBERS]


def send(number):
    os.kill(os.getpid(), number)


@contextmanager
def handled(number, handler):
    """Set a handler like a program that has no event loop."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def handled_by_loop(number, callback):
    loop = asyncio.get_running_loop()
    before = signal.getsignal(number)
    loop.add_signal_handler(number, callback)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)
        signal.signal(number, before)


def run(program, *args):
    """Run a program in a new process; return its status and its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *args],
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(autouse=True)
def _as_before():
    """No test leaves anything behind."""
    before = handlers(), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before[1])
    yield
    gc.collect()
    after = handlers(), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(after[1])
    assert after == before
    assert not any(signals._heeders.values())
    assert not signals._sockets


@contextmanager
def nothing_changes():
    before = handlers()
    yield
    assert handlers() == before


@pytest.fixture
def serving():
    """Start servers, some with a client; return them and their `serve_forever` tasks."""

    async def start(stack, count=3, *, handler=idle, numbers=None, **options):
        servers, tasks = [], []
        for index in range(count):
            server = await stack.enter_async_context(serve(handler, "127.0.0.1", 0, **options))
            which = {} if numbers is None else {"signals": numbers[index]}
            servers.append(server)
            tasks.append(asyncio.create_task(server.serve_forever(**which)))
        await turns()
        return servers, tasks

    return start


# Several servers ------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
async def test_a_signal_stops_all_servers_of_a_loop(number, serving, url, tls):
    with nothing_changes():
        async with AsyncExitStack() as stack:
            servers, tasks = await serving(stack)
            secure, more = await serving(stack, 1, ssl=tls.server)
            clients = [await connect(url(server)) for server in servers]
            uri = url(secure[0], secure=True).replace("127.0.0.1", "localhost")
            clients.append(await connect(uri, ssl=tls.client, host="127.0.0.1"))
            send(number)
            for ws in clients:
                with pytest.raises(ConnectionClosed, match="1001"):
                    await ws.recv()
                await ws.close()
            await asyncio.wait_for(asyncio.gather(*tasks, *more), 5)


async def test_a_second_signal_hurries_all_servers(serving, url):
    with nothing_changes():
        async with AsyncExitStack() as stack:
            servers, tasks = await serving(stack, handler=idle_forever, shutdown_timeout=None)
            clients = [await connect(url(server)) for server in servers]
            send(signal.SIGTERM)
            for ws in clients:
                with pytest.raises(ConnectionClosed, match="1001"):
                    await ws.recv()
            await turns()
            assert not any(task.done() for task in tasks)
            send(signal.SIGINT)  # it need not be the same object
            await asyncio.wait_for(asyncio.gather(*tasks), 5)
            for ws in clients:
                await ws.close()


async def test_two_signals_at_once_are_two(serving, url):
    with nothing_changes():
        async with AsyncExitStack() as stack:
            options = {"handler": idle_forever, "shutdown_timeout": None}
            (server,), (task,) = await serving(stack, 1, **options)
            async with connect(url(server)):
                send(signal.SIGTERM)
                send(signal.SIGINT)
                await asyncio.wait_for(task, 5)


async def test_one_server_that_two_tasks_serve_is_told_once(serving, url, until):
    async with AsyncExitStack() as stack:
        options = {"handler": idle_forever, "shutdown_timeout": None}
        (server,), (first,) = await serving(stack, 1, **options)
        second = asyncio.create_task(server.serve_forever())
        async with connect(url(server)) as ws:
            await turns()
            send(signal.SIGTERM)
            await until(lambda: ws.close_code)
            await turns(20)
            assert not first.done()
            send(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(first, second), 5)


@pytest.mark.parametrize("order", [*permutations(range(3))], ids=str)
@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_they_end_in_any_order(order, how, serving):
    with nothing_changes():
        async with AsyncExitStack() as stack:
            servers, tasks = await serving(stack)
            for index in order[:2]:
                if how == "close":
                    await servers[index].close()
                else:
                    tasks[index].cancel()
                await asyncio.wait([tasks[index]], timeout=5)
                assert tasks[index].done()
            # The remaining server still reacts, and so does one that starts later.
            (_,), (later,) = await serving(stack, 1)
            assert not tasks[order[2]].done()
            send(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(tasks[order[2]], later), 5)


async def test_different_signals(serving):
    numbers = [[signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM], [signal.SIGUSR1], []]
    with nothing_changes():
        async with AsyncExitStack() as stack:
            servers, tasks = await serving(stack, 4, numbers=numbers)
            assert signal.getsignal(signal.SIGINT) is handlers()[0]
            send(signal.SIGUSR1)
            await asyncio.wait_for(asyncio.gather(*tasks[1:3]), 5)
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
            await turns()
            assert not tasks[0].done()
            send(signal.SIGTERM)
            await asyncio.wait_for(tasks[0], 5)
            await turns()
            assert not tasks[3].done()
            await servers[3].close()
            await tasks[3]


async def test_a_signal_that_cannot_be_caught():
    with nothing_changes():
        async with serve(idle, "127.0.0.1", 0) as server:
            with pytest.raises(OSError, match="Invalid"):
                await server.serve_forever(signals=[signal.SIGTERM, signal.SIGKILL])


# Other handlers ----------------------------------------------------------------------------


async def test_a_handler_that_was_set_before_is_back_afterwards(serving):
    seen = []
    with handled(signal.SIGTERM, lambda number, frame: seen.append(number)):
        async with AsyncExitStack() as stack:
            _, tasks = await serving(stack)
            send(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*tasks), 5)
            assert seen == []
        send(signal.SIGTERM)
        assert seen == [signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
async def test_a_handler_of_the_loop_is_called_before_and_while_and_afterwards(
    number, serving, until
):
    seen = []
    with handled_by_loop(number, lambda: seen.append(number)):
        send(number)
        await until(lambda: len(seen) == 1)
        async with AsyncExitStack() as stack:
            _, tasks = await serving(stack)
            send(number)
            await asyncio.wait_for(asyncio.gather(*tasks), 5)
            await until(lambda: len(seen) == 2)
        send(number)
        await until(lambda: len(seen) == 3)


async def test_a_handler_that_is_set_while_we_serve_stays(serving, until):
    seen = []
    async with AsyncExitStack() as stack:
        stack.enter_context(handled(signal.SIGTERM, signal.SIG_DFL))
        servers, tasks = await serving(stack, 2)
        with handled_by_loop(signal.SIGTERM, lambda: seen.append("loop")):
            send(signal.SIGTERM)
            await until(lambda: seen == ["loop"])
            await turns()
            assert not any(task.done() for task in tasks)
            await servers[0].close()
            await tasks[0]
            # A server that starts now finds it and puts it back; the signal is for both again.
            (_,), (later,) = await serving(stack, 1)
            send(signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(tasks[1], later), 5)
            await until(lambda: seen == ["loop"] * 2)
            send(signal.SIGTERM)
            await until(lambda: seen == ["loop"] * 3)


async def test_who_replaces_our_handler_and_puts_it_back_too_late(serving):
    """Signals are passed on to the handler that was installed before."""
    seen = []
    with handled(signal.SIGTERM, lambda number, frame: seen.append("first")):
        async with AsyncExitStack() as stack:
            servers, tasks = await serving(stack, 1)
            with handled(signal.SIGTERM, lambda number, frame: seen.append("second")):
                send(signal.SIGTERM)
                assert seen == ["second"]
                await servers[0].close()
                await tasks[0]
                send(signal.SIGTERM)
                assert seen == ["second"] * 2
        send(signal.SIGTERM)
        assert seen == ["second", "second", "first"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_is_closed_while_we_serve(kind):
    """Nobody has to end `serve_forever`; signal handlers are restored."""
    status, output, problems = run(ABANDONED, kind)
    assert (output, problems, status) == ("first\nend\n", "", -signal.SIGTERM)


ABANDONED = """
import asyncio, os, signal, sys
import fastws

async def idle(ws):
    await ws.wait_closed()

async def main():
    server = await fastws.serve(idle, "127.0.0.1", 0)
    kept.append(asyncio.create_task(server.serve_forever()))
    await asyncio.sleep(0)
    await server._stop_listening()

kept = []
if sys.argv[1] == "uvloop":
    import uvloop
    loop = uvloop.new_event_loop()
else:
    loop = asyncio.new_event_loop()
signal.signal(signal.SIGINT, lambda *_: print("first", flush=True))
loop.run_until_complete(main())
loop.close()
os.kill(os.getpid(), signal.SIGINT)
print("end", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("still there", flush=True)
"""

BACKGROUND = """
import asyncio, os, signal, sys
import fastws

async def idle(ws):
    await ws.wait_closed()

async def main():
    server = await fastws.serve(idle, "127.0.0.1", 0)
    asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)

if sys.argv[1] == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
else:
    factory = None
for _ in range(2):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "SIGINT"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "SIGTERM"
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("kind", KINDS)
def test_what_outlasts_a_run_of_asyncio(kind):
    """asyncio.Runner replaces the handler of SIGINT too, and checks that it is still its own."""
    status, output, problems = run(BACKGROUND, kind)
    assert (output, problems, status) == ("interrupted\n", "", 0)


FORKED = """
import asyncio, os, signal, sys
import fastws

async def idle(ws):
    await ws.wait_closed()

async def main():
    server = await fastws.serve(idle, "127.0.0.1", 0)
    task = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    child = os.fork()
    if not child:
        signal.raise_signal(signal.SIGTERM)
        os._exit(1)
    print(os.waitpid(child, 0)[1], flush=True)
    await asyncio.sleep(0.1)
    assert not task.done()
    await server.close()

asyncio.run(main())
"""


def test_a_child_process_that_was_forked():
    """A signal to the child is not one to us, and ends the child as it would without us."""
    status, output, problems = run(FORKED)
    assert (output, problems, status) == ("15\n", "", 0)


BY_C_CODE = """
import asyncio, ctypes, os, signal, sys
import fastws

# A program that embeds Python may have handlers; signal.getsignal returns None for them.
libc = ctypes.CDLL(None)
libc.signal.restype = ctypes.c_void_p
libc.signal(signal.SIGTERM, ctypes.cast(libc._exit, ctypes.c_void_p))
real = signal.getsignal
signal.getsignal = lambda number: None if number == signal.SIGTERM else real(number)

async def idle(ws):
    await ws.wait_closed()

async def main():
    async with fastws.serve(idle, "127.0.0.1", 0) as server:
        serving = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        if "while" not in sys.argv:
            os.kill(os.getpid(), signal.SIGINT)
            await serving
            print("served", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["while", "afterwards"])
def test_a_handler_that_c_code_installed_is_left_alone(when):
    status, output, problems = run(BY_C_CODE, when)
    expected = "" if when == "while" else "served\n"
    # _exit(SIGTERM): nothing else exits with this status.
    assert (output, problems, status) == (expected, "", signal.SIGTERM)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_waits_for_nothing_is_woken(kind):
    """Not only because the signal interrupts a system call."""
    status, output, problems = run(WOKEN, kind)
    assert (output, problems, status) == ("served\n", "", 0)


WOKEN = """
import asyncio, os, signal, sys, threading
import fastws

async def idle(ws):
    await ws.wait_closed()

async def main():
    async with fastws.serve(idle, "127.0.0.1", 0) as server:
        # A signal that another thread takes does not interrupt what the main thread does.
        def interrupt():
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

        asyncio.get_running_loop().call_soon(threading.Timer(0.2, interrupt).start)
        await server.serve_forever()
    print("served")

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""
