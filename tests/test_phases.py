"""The table of phases: architecture.md shows it, and uvicorn's connections go by it.

tests/aio/test_phases.py has each path through it, with the servers and clients of fastws.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

import fastws
from fastws import ResponseError
from fastws.aio.endpoint import Endpoint
from fastws.aio.phases import NEXT, Phase
from fastws.integrations.uvicorn import WebSocketProtocol

from .wire import upgrade_request

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = Path(__file__).parents[1] / "docs" / "explanation" / "architecture.md"

# The document ---------------------------------------------------------------------------------


def rows(text: str) -> list[tuple[str, ...]]:
    """Read the table of phases of a document: its cells, without the two lines of its head."""
    found = re.search(r"^<!-- phases -->$(.*?)^<!-- /phases -->$", text, re.MULTILINE | re.DOTALL)
    assert found, "no table between <!-- phases --> and <!-- /phases -->"
    lines = [line.strip() for line in found[1].strip().splitlines()]
    assert all(line.startswith("|") and line.endswith("|") for line in lines), lines
    table = [tuple(cell.strip() for cell in line[1:-1].split("|")) for line in lines]
    assert table[0] == ("phase", "then", "why")
    assert set("".join(table[1])) <= set("-:"), table[1]
    return table[2:]


def phase(cell: str) -> Phase:
    return Phase[cell.strip("`*").removeprefix("Phase.")]


def test_the_document_shows_the_table() -> None:
    table = rows(DOCUMENT.read_text("utf-8"))
    steps = [(phase(before), phase(after)) for before, after, _ in table]
    assert len(steps) == len(set(steps))
    assert set(steps) == {(before, after) for before in NEXT for after in NEXT[before]}
    assert all(why for _, _, why in table)


GOOD = """\
<!-- phases -->
| phase | then | why |
|---|:--|---|
| OPEN | `CLOSING` | §7.1.2: we close |
| `OPEN` | `LOST` | |
<!-- /phases -->
"""


def test_a_table_is_read() -> None:
    assert rows(GOOD) == [("OPEN", "`CLOSING`", "§7.1.2: we close"), ("`OPEN`", "`LOST`", "")]
    assert [phase(cell) for cell in rows(GOOD)[1][:2]] == [Phase.OPEN, Phase.LOST]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<!-- /phases -->", ""),
        ("<!-- phases -->", "<!-- phrases -->"),
        ("| phase | then |", "| then | phase |"),
        ("|---|:--|---|\n", ""),
        ("| |\n<", "|\nAnd so on.\n<"),
    ],
)
def test_a_table_of_another_form_is_refused(old: str, new: str) -> None:
    assert old in GOOD
    with pytest.raises(AssertionError):
        rows(GOOD.replace(old, new))


# uvicorn's class ------------------------------------------------------------------------------

OPENING, OPEN, CLOSING, LINGERING, LOST, CLOSED = Phase

# What happens, and the phases that follow OPENING.
PATHS = {
    "the client closes": (OPEN, LINGERING, CLOSED),
    "the client resets": (OPEN, LOST, CLOSED),
    "the application closes": (OPEN, CLOSING, LINGERING, CLOSED),
    "the client resets while the application closes": (OPEN, CLOSING, LOST, CLOSED),
    "the application refuses": (LINGERING, CLOSED),
    "the application responds": (LINGERING, CLOSED),
    "the application fails": (LINGERING, CLOSED),
    "the client resets while the application thinks": (CLOSED,),
    "the server stops": (OPEN, LINGERING, CLOSED),
    "the server stops while the application thinks": (LINGERING, CLOSED),
}


async def play(name: str, receive: Any, send: Any) -> None:
    """Be the application."""
    assert (await receive())["type"] == "websocket.connect"
    if "thinks" in name:
        await receive()
        return
    if "fails" in name:
        raise RuntimeError("as it should")
    if "refuses" in name:
        await send({"type": "websocket.close"})
        return
    if "responds" in name:
        await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    await send({"type": "websocket.accept"})
    if "application closes" in name:
        await send({"type": "websocket.close"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.002)


def reset(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("name", PATHS)
def test_uvicorns_connections_take_this_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[Phase] = []
    protocols: list[WebSocketProtocol] = []
    enter = Endpoint._enter

    def record(endpoint: Endpoint, phase: Phase) -> None:
        if isinstance(endpoint, WebSocketProtocol):
            if not entered:
                entered.append(endpoint._phase)
            entered.append(phase)
        enter(endpoint, phase)

    monkeypatch.setattr(Endpoint, "_enter", record)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        protocols.extend(state.connections)
        await play(name, receive, send)

    config = Config(app, ws=WebSocketProtocol, http="h11", lifespan="off", log_config=None)
    config.load()
    state = ServerState()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=state, app_state={}
            ),
            "127.0.0.1",
            0,
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}"
            if "thinks" in name:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(upgrade_request())
                await until(lambda: protocols)
                if "stops" in name:
                    protocols[0].shutdown()
                    assert b" 500 " in await reader.read()
                else:
                    reset(writer.get_extra_info("socket"))
                    writer.transport.abort()
                writer.close()
            elif PATHS[name][0] is LINGERING:
                with pytest.raises(ResponseError):
                    await fastws.connect(url)
            elif "while" in name:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(upgrade_request())
                await reader.readuntil(b"\x88\x02\x03\xe8")
                reset(writer.get_extra_info("socket"))
                writer.transport.abort()
            else:
                ws = await fastws.connect(url)
                if "resets" in name:
                    reset(ws.get_extra_info("socket"))
                    ws._transport.abort()
                elif "stops" in name:
                    await until(lambda: protocols)
                    protocols[0].shutdown()
                elif "client closes" in name:
                    await ws.close()
                await ws.wait_closed()
            await until(lambda: entered and entered[-1] is CLOSED and not state.tasks)

    asyncio.run(main())
    assert tuple(entered) == (OPENING, *PATHS[name])


def test_uvicorns_paths_cover_the_table() -> None:
    taken = {step for path in PATHS.values() for step in pairwise((OPENING, *path))}
    assert taken == {(before, after) for before in NEXT for after in NEXT[before]}
