"""Servers in Python that send one message to all of their connections, by name.

    python -m bench.fanout.servers NAME --port P --size B [--tls CERT KEY]

This module knows how each library sends the same message to many connections, in the fastest way
that its documentation describes. fanout.c says what the messages are, and how to ask for them. It
does not know what is measured.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from bench.load import libraries
from bench.load.serving import MAX_SIZE, Options, main, names_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.load.serving import Factory, Serve

    Broadcast = Callable[[str], Awaitable[None] | None]

NUMBERS = 1000


class Station:
    """The next message to broadcast, and when.

    Attributes:
        members: the connections, as the library has them.
    """

    def __init__(self, size: int, broadcast: Broadcast) -> None:
        self.members: set[Any] = set()
        self._broadcast = broadcast
        self._texts = [f"{number:06d}".ljust(size, ".") for number in range(NUMBERS)]
        self._number = 0
        self._turns: asyncio.Task[None] | None = None

    def obey(self, command: str) -> Awaitable[None] | None:
        """Do what a client asked for. The caller awaits what this returns, if it can."""
        if command == "next":
            return self._broadcast(self._next())
        if self._turns is None:
            self._turns = asyncio.get_running_loop().create_task(self._every_turn())
        return None

    def _next(self) -> str:
        text = self._texts[self._number]
        self._number = (self._number + 1) % NUMBERS
        return text

    async def _every_turn(self) -> None:
        while True:
            waiting = self._broadcast(self._next())
            if waiting is not None:
                await waiting
            await asyncio.sleep(0)


# fastws ---------------------------------------------------------------------------------


def _fastws_callback(options: Options, prepared: bool) -> Serve:
    import fastws

    def send(text: str) -> None:
        message = fastws.prepare(text) if prepared else text
        for member in station.members:
            member.send(message)

    station = Station(options.size, send)

    class Member(fastws.WebSocketProtocol):
        def on_open(self) -> None:
            station.members.add(self)

        def on_message(self, message: str | bytes) -> None:
            station.obey(message)

        def on_close(self, code: int, reason: str) -> None:
            station.members.discard(self)

    return libraries.fastws(Member, options)


def fastws_send(options: Options) -> Serve:
    return _fastws_callback(options, prepared=False)


def fastws_prepare(options: Options) -> Serve:
    return _fastws_callback(options, prepared=True)


def fastws_publish(options: Options) -> Serve:
    import fastws

    topics = fastws.Topics(slow="wait")
    station = Station(options.size, lambda text: topics.publish("news", text))

    class Member(fastws.WebSocketProtocol):
        def on_open(self) -> None:
            topics.subscribe(self, "news")

        def on_message(self, message: str | bytes) -> None:
            station.obey(message)

    return libraries.fastws(Member, options)


def fastws_coroutine(options: Options) -> Serve:
    import fastws

    async def send(text: str) -> None:
        message = fastws.prepare(text)
        for member in station.members:
            await member.send(message)

    station = Station(options.size, send)

    async def handler(ws: Any) -> None:
        station.members.add(ws)
        try:
            async for message in ws:
                waiting = station.obey(message)
                if waiting is not None:
                    await waiting
        finally:
            station.members.discard(ws)

    return libraries.fastws(handler, options)


# Peers ----------------------------------------------------------------------------------


def websockets(options: Options) -> Serve:
    from websockets.asyncio.server import broadcast
    from websockets.exceptions import ConnectionClosed

    station = Station(options.size, lambda text: broadcast(station.members, text))

    async def handler(ws: Any) -> None:
        station.members.add(ws)
        try:
            async for message in ws:
                station.obey(message)
        except ConnectionClosed:
            pass
        finally:
            station.members.discard(ws)

    return libraries.websockets(handler, options)


def aiohttp(options: Options) -> Serve:
    from aiohttp import web

    async def send(text: str) -> None:
        for member in station.members:
            await member.send_str(text)

    station = Station(options.size, send)

    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=MAX_SIZE)
        await ws.prepare(request)
        station.members.add(ws)
        try:
            async for message in ws:
                waiting = station.obey(message.data)
                if waiting is not None:
                    await waiting
        finally:
            station.members.discard(ws)
        return ws

    return libraries.aiohttp(handler, options)


def picows(options: Options) -> Serve:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport

    def send(text: str) -> None:
        message = text.encode()
        for member in station.members:
            member.send(WSMsgType.TEXT, message)

    station = Station(options.size, send)

    class Member(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            station.members.add(transport)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                station.obey(frame.get_payload_as_utf8_text())

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            station.members.discard(transport)

    return libraries.picows(Member, options)


FACTORIES: dict[str, Factory] = {
    "fastws-send": fastws_send,
    "fastws-prepare": fastws_prepare,
    "fastws-publish": fastws_publish,
    "fastws-coroutine": fastws_coroutine,
    "picows": picows,
    "websockets": websockets,
    "aiohttp": aiohttp,
}
NAMES = names_of(FACTORIES, aiofastnet=["fastws-send", "fastws-prepare"])


if __name__ == "__main__":
    sys.exit(main("bench.fanout.servers", FACTORIES, NAMES))
