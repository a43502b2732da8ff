"""Servers behind a real HAProxy, which tells them the clients' addresses (the PROXY protocol)."""

from __future__ import annotations

import asyncio
import signal

import pytest

from fastws import connect, serve

from .conftest import HOST


@pytest.fixture
def checked(haproxy):
    """The proxy, which goes on when the test has ended."""
    yield haproxy
    haproxy.program.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
async def test_the_address_of_a_client_behind_haproxy(checked, option, secure, tls, until):
    seen = []

    async def handler(ws):
        seen.append(ws.request.peer)
        async for message in ws:
            await ws.send(message)

    options = {"proxy_protocol": True, "process_request": lambda request: None}
    options |= {"ssl": tls.server} if secure else {}
    async with serve(handler, HOST, checked.backend, **options) as server:
        uri = f"ws{'s' * secure}://localhost:{checked.port[option]}"
        more = {"ssl": tls.client} if secure else {}
        async for ws in connect(uri, host=HOST, **more):  # until the proxy knows that it is there
            async with ws:
                await ws.send("Hello Server!")
                assert await ws.recv() == "Hello Server!"
                (peer,) = seen
                assert peer.address == ws.local_address
                assert peer.local_address == (HOST, checked.port[option])
                assert peer.proxy.version == (1 if option == "send-proxy" else 2)
                assert (peer.tls is not None) is secure
            break
        await until(lambda: not server._endpoints)
        # (asyncio fails if a server is closed while it accepts a connection, such as a check.)
        checked.program.freeze()
        for _ in range(10):
            await asyncio.sleep(0.01)
