"""The chat of examples/chat in several processes, and its members, for tests and `make scale`."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..tools import FASTWS, Program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat"


def _load_client() -> Any:
    spec = spec_from_file_location("chat_client", EXAMPLE / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["chat_client"] = module
    spec.loader.exec_module(module)
    return module.Member


Member = _load_client()


@contextmanager
def servers(
    store: str, bus: str, *options: str, workers: int, twin: str | None = None
) -> Iterator[Program]:
    """Run the chat with `fastws serve`."""
    env = {"CHAT_STORE": store, "CHAT_BUS": bus}
    if twin is not None:
        env["FASTWS_IMPL"] = twin
    command = ("serve", "chat:app", "--process-request", "chat:pages", "--workers", str(workers))
    with Program(*FASTWS, *command, *options, cwd=EXAMPLE, env=env) as program:
        program.line()
        yield program


def listeners(program: Program, port: int) -> set[int]:
    """The worker processes that listen on a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {
        f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")
    }
    path = f"/proc/{program.pid}/task/{program.pid}/children"
    found = set()
    for pid in Path(path).read_text().split():
        with suppress(OSError):
            if sockets & {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}:
                found.add(int(pid))
    return found


async def replaced(program: Program, port: int, count: int, gone: set[int]) -> list[int]:
    """Wait until as many workers listen again, none of them one that is gone."""
    await eventually(lambda: len(listeners(program, port) - gone) == count)
    return sorted(listeners(program, port) - gone)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.02)


class Room:
    """What the members of a room have said and seen.

    Attributes:
        acknowledged: what the chat has promised to deliver, as name and text.
    """

    def __init__(self, url: str, room: str, count: int) -> None:
        self.seen: list[list[tuple[str, str]]] = [[] for _ in range(count)]
        self.acknowledged: list[tuple[str, str]] = []
        self.members = [
            Member(url, room, f"{room}-{n}", lambda m, n=n: self._note(n, m)) for n in range(count)
        ]
        self._said = 0

    def _note(self, n: int, message: dict[str, Any]) -> None:
        self.seen[n].append((message["name"], message["text"]))

    async def say(self, count: int, pause: float = 0.0, talkers: int | None = None) -> None:
        """Have the first members, or all, say something this many times, one after the other."""
        for _ in range(count):
            self._said += 1
            await asyncio.gather(
                *(self._one(member, f"{self._said}") for member in self.members[:talkers])
            )
            if pause:
                await asyncio.sleep(pause)

    async def _one(self, member: Any, text: str) -> None:
        await member.say(text)
        self.acknowledged.append((member.name, text))

    def is_complete(self) -> bool:
        return all(len(seen) >= len(self.acknowledged) for seen in self.seen)

    def check(self) -> None:
        """Each member has seen each message once, in the same order, which is each sender's."""
        expected = sorted(self.acknowledged)
        for member, seen in zip(self.members, self.seen, strict=True):
            assert member.missed == 0, f"{member.name} has missed {member.missed} messages"
            assert sorted(seen) == expected, member.name
            assert seen == self.seen[0], member.name
        for member in self.members:
            texts = [int(text) for name, text in self.seen[0] if name == member.name]
            assert texts == sorted(texts), member.name


@asynccontextmanager
async def members(rooms: list[Room]) -> AsyncIterator[None]:
    """Have all members in their rooms."""
    tasks = [asyncio.create_task(member.run()) for room in rooms for member in room.members]
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(m.is_there.wait() for room in rooms for m in room.members))
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if not isinstance(result, asyncio.CancelledError):
                raise AssertionError("a member has ended") from result


async def complete(rooms: list[Room]) -> None:
    """Wait until all members have all that was acknowledged; then check it."""
    await eventually(lambda: all(room.is_complete() for room in rooms))
    for room in rooms:
        room.check()


def memory(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
