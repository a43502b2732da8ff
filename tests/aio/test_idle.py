"""What a connection holds while nothing happens: there may be very many of them."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="only CPython tells sizes")
async def test_an_idle_connection_is_small(pair):
    async with pair() as (_, ws):
        await ws.send("so that everything is there")
        connection = ws._connection
        codecs = connection._decoder, connection._encoder
        held = ws, ws._sink, ws._keepalive, connection, *codecs
        assert sum(map(sys.getsizeof, held)) <= 1_088


@pytest.mark.parametrize("stream", [False, True])
async def test_all_connections_read_into_the_same_memory(pair, stream):
    async with pair({"stream": stream}, {"stream": stream}) as (ws, theirs):
        assert ws.get_buffer(-1) is theirs.get_buffer(-1)
