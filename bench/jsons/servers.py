"""Servers in Python that parse JSON with orjson and send it back, by name.

    python -m bench.jsons.servers NAME --port P

This module knows how each library receives and sends text as `str`, and as bytes. It does not know
what is measured. Of those with bytes, only fastws checks that they are UTF-8; but orjson refuses
other text, too.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bench.load import libraries
from bench.load.serving import MAX_SIZE, Options, main, names_of

if TYPE_CHECKING:
    from bench.load.serving import Factory, Serve


# fastws ---------------------------------------------------------------------------------


def fastws_callback_str(options: Options) -> Serve:
    from orjson import dumps, loads

    from fastws import WebSocketProtocol

    class Answer(WebSocketProtocol):
        def on_message(self, message: str | bytes) -> None:
            self.send(dumps(loads(message)).decode())

    return libraries.fastws(Answer, options)


def fastws_callback_bytes(options: Options) -> Serve:
    from orjson import dumps, loads

    from fastws import Text, WebSocketProtocol

    class Answer(WebSocketProtocol[Text]):
        def on_message(self, message: Any) -> None:
            self.send_text(dumps(loads(message.data)))

    return libraries.fastws(Answer, options, decode_text=False)


def fastws_coroutine_str(options: Options) -> Serve:
    from orjson import dumps, loads

    async def answer(ws: Any) -> None:
        async for message in ws:
            await ws.send(dumps(loads(message)).decode())

    return libraries.fastws(answer, options)


def fastws_coroutine_bytes(options: Options) -> Serve:
    from orjson import dumps, loads

    async def answer(ws: Any) -> None:
        async for message in ws:
            await ws.send_text(dumps(loads(message.data)))

    return libraries.fastws(answer, options, decode_text=False)


# Peers ----------------------------------------------------------------------------------


def websockets_str(options: Options) -> Serve:
    from orjson import dumps, loads
    from websockets.exceptions import ConnectionClosed

    async def answer(ws: Any) -> None:
        try:
            async for message in ws:
                await ws.send(dumps(loads(message)).decode())
        except ConnectionClosed:
            pass

    return libraries.websockets(answer, options)


def websockets_bytes(options: Options) -> Serve:
    from orjson import dumps, loads
    from websockets.exceptions import ConnectionClosed

    async def answer(ws: Any) -> None:
        try:
            while True:
                await ws.send(dumps(loads(await ws.recv(decode=False))), text=True)
        except ConnectionClosed:
            pass

    return libraries.websockets(answer, options)


def _aiohttp(options: Options, *, decode_text: bool) -> Serve:
    from aiohttp import WSMsgType, web
    from orjson import dumps, loads

    async def answer(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=MAX_SIZE, decode_text=decode_text)
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                data = dumps(loads(message.data))
                if decode_text:
                    await ws.send_str(data.decode())
                else:
                    await ws.send_frame(data, WSMsgType.TEXT)
        return ws

    return libraries.aiohttp(answer, options)


def aiohttp_str(options: Options) -> Serve:
    return _aiohttp(options, decode_text=True)


def aiohttp_bytes(options: Options) -> Serve:
    return _aiohttp(options, decode_text=False)


def picows_bytes(options: Options) -> Serve:
    from orjson import dumps, loads
    from picows import WSFrame, WSListener, WSMsgType, WSTransport

    class Answer(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, dumps(loads(frame.get_payload_as_memoryview())))

    return libraries.picows(Answer, options)


# Names ------------------------------------------------------------------------------------

FACTORIES: dict[str, Factory] = {
    "fastws-callback-str": fastws_callback_str,
    "fastws-callback-bytes": fastws_callback_bytes,
    "fastws-coroutine-str": fastws_coroutine_str,
    "fastws-coroutine-bytes": fastws_coroutine_bytes,
    "websockets-str": websockets_str,
    "websockets-bytes": websockets_bytes,
    "aiohttp-str": aiohttp_str,
    "aiohttp-bytes": aiohttp_bytes,
    "picows-bytes": picows_bytes,
}
NAMES = names_of(FACTORIES, pure=["fastws-callback-str", "fastws-callback-bytes"])


if __name__ == "__main__":
    sys.exit(main("bench.jsons.servers", FACTORIES, NAMES))
