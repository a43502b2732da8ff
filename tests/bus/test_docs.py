"""docs/howto: the code that needs a broker runs, and configuration is that of examples/deploy."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

from fastws import Topics

from ..docs.pages import DOCS, ROOT, blocks, code
from ..tools import TIMEOUT, Program, free_port
from .deploying import DEPLOY

if TYPE_CHECKING:
    from pathlib import Path

    from fastws.bus import Bus

    from .conftest import Broker


def test_all_files_are_shown() -> None:
    shown = {
        ROOT / name: text
        for page in sorted((DOCS / "howto").glob("*.md"))
        for kind, name, _, text in blocks(f"howto/{page.name}")
        if kind == "file"
    }
    for path in DEPLOY.iterdir():
        assert shown[path] == path.read_text("utf-8")


def test_the_code_runs(redis: Broker) -> None:
    bus = code("howto/brokers.md", "bus").replace("redis://localhost:6379", redis.url)
    ports = [free_port(), free_port()]
    argv = [[sys.executable, "-c", bus.replace("8080", str(port))] for port in ports]
    with Program(*argv[0]) as one, Program(*argv[1]) as two:
        for program, port in ((one, ports[0]), (two, ports[1])):
            program.wait_for_port(port)
        talk(*(f"ws://localhost:{port}" for port in ports))
        assert (one.stop(), two.stop()) == (0, 0)
        assert one.errors == two.errors == ""


def test_an_application_of_fastapi(redis: Broker, tmp_path: Path) -> None:
    bus = code("howto/uvicorn.md", "bus").replace("redis://localhost:6379", redis.url)
    (tmp_path / "app.py").write_text(bus)
    ports = [free_port(), free_port()]
    argv = [sys.executable, "-m", "uvicorn", "app:app"]
    argv += ["--ws", "fastws.integrations.uvicorn:WebSocketProtocol", "--log-level", "warning"]
    options: dict[str, Any] = {"cwd": tmp_path, "env": {"PYTHONPATH": str(tmp_path)}}
    with (
        Program(*argv, "--port", str(ports[0]), **options) as one,
        Program(*argv, "--port", str(ports[1]), **options) as two,
    ):
        for program, port in zip((one, two), ports, strict=True):
            program.wait_for_port(port)
        talk(*(f"ws://127.0.0.1:{port}/rooms/tea" for port in ports))
        one.stop()
        two.stop()
        assert one.errors == two.errors == ""


def talk(here: str, there: str) -> None:
    """Send something from a server to a client of the other one."""
    options = {"proxy": None, "open_timeout": TIMEOUT}
    with connect(here, **options) as ann, connect(there, **options) as bob:
        # A client that has heard its own message is subscribed.
        bob.send("hello")
        while bob.recv(TIMEOUT) != "hello":
            pass
        ann.send("news")
        while bob.recv(TIMEOUT) != "news":
            pass


def test_the_bus_in_memory() -> None:
    """It does what the real ones do, and its class needs no other."""
    namespace: dict[str, Any] = {}
    exec(code("howto/brokers.md", "memory"), namespace)
    hub: set[Any] = set()

    class Receiver:
        def __init__(self) -> None:
            self.got: list[Any] = []

        def send(self, message: Any) -> None:
            self.got.append(message)

    async def main() -> None:
        buses: list[Bus] = [namespace["MemoryBus"](hub) for _ in range(2)]
        async with Topics(bus=buses[0]) as one, Topics(bus=buses[1]) as two:
            here, there = Receiver(), Receiver()
            one.subscribe(here, "room")
            two.subscribe(there, "room")
            await two.wait_subscribed("room")
            one.publish("room", "text", exclude=here)
            two.unsubscribe(there, "room")
            two.subscribe(there, "room")
            await two.wait_subscribed("room")
            one.publish("room", b"bytes")
            await asyncio.sleep(0.01)
            assert there.got == ["text", b"bytes"]
            assert here.got == [b"bytes"]
        assert not hub

    asyncio.run(main())


def test_the_line_for_nats() -> None:
    exec(code("howto/brokers.md", "nats"), {})
