"""examples/deploy: the chat behind real proxies, with the very files that users get."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastws.cli import _parser
from fastws.cli._handlers import load

from ..docs.pages import ROOT
from ..test_cli_serve import activated, ask, url_of, wait_for
from ..tools import TIMEOUT
from .chat import EXAMPLE, Room, complete, members
from .deploying import DEPLOY, deployed

if TYPE_CHECKING:
    from .conftest import Broker

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
@pytest.mark.loops("asyncio")
async def test_the_chat_behind_a_proxy(name: str, redis: Broker, tmp_path: Path) -> None:
    with deployed(name, redis, tmp_path) as (url, (one, two)):
        room = Room(url, name, 12)
        async with members([room]):
            await room.say(2)
            await complete([room])
            # One server drains, and does not come back.
            talking = asyncio.create_task(room.say(3, 0.05))
            await asyncio.sleep(0.03)
            one._process.send_signal(signal.SIGTERM)
            await talking
            await complete([room])
            assert one.wait() == 0
        assert one.errors == two.errors == ""


@pytest.mark.usefixtures("hangups")
def test_the_unit_of_systemd(redis: Broker, tmp_path: Path) -> None:
    unit = (DEPLOY / "chat.service").read_text("utf-8")
    socket_unit = (DEPLOY / "chat.socket").read_text("utf-8")
    found = re.search(r"^ExecStart=\S+/fastws (.+)$", unit, re.MULTILINE)
    assert found is not None
    env = {"CHAT_STORE": redis.url, "NOTIFY_SOCKET": str(tmp_path / "notify")}
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(env["NOTIFY_SOCKET"])
        with activated(EXAMPLE, env, [sock.fileno()], *found[1].split()) as program:
            url = url_of(program.line())
            assert manager.recv(100) == b"READY=1"
            # As many clients can wait as the socket's unit says.
            backlog = re.search(r"^Backlog=(\d+)$", socket_unit, re.MULTILINE)
            assert backlog is not None
            most = int(Path("/proc/sys/net/core/somaxconn").read_text())
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            assert int.from_bytes(info[28:32], sys.byteorder) == min(int(backlog[1]), most)
            assert json.loads(ask(url, '{"join": "unit", "name": "a", "client": "b"}')) == {
                "from": 1
            }
            # A reload leaves some workers that take clients.
            reload = re.search(r"^ExecReload=(.+)$", unit, re.MULTILINE)
            assert reload is not None
            command = ["sh", "-c", reload[1].replace("$MAINPID", str(program.pid))]
            subprocess.run(command, check=True, timeout=TIMEOUT)
            program.wait_for_errors("the workers are replaced, one after the other")
            # (One of those that end may have taken this one already.)
            wait_for(url, '{"from": 1}', '{"join": "unit", "name": "a", "client": "c"}')
            assert program.stop() == 0
            assert manager.recv(100) == b"STOPPING=1"
    args = _parser().parse_args(found[1].split())
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > (args.drain or 0) + args.shutdown_timeout + 1


def test_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DEPLOY / "Containerfile").read_text("utf-8")
    found = re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert found is not None
    args = _parser().parse_args(json.loads(found[1])[1:])
    (copied,) = re.findall(r"^COPY (.*) /srv/chat/$", text, re.MULTILINE)
    # Everything that the wheel and the server need.
    sources = re.findall(r"^COPY ([\w./ -]*) /fastws/\w*$", text, re.MULTILINE)
    for name in [*" ".join(sources).split(), *copied.split()]:
        assert (ROOT / name).exists()
    monkeypatch.chdir(EXAMPLE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        assert load(args.handler)
        assert load(args.process_request)
    finally:
        loaded = {sys.modules.pop(name).__file__ for name in ("chat", "store")}
    assert {Path(str(path)) for path in loaded} <= {ROOT / name for name in copied.split()}
    # Kubernetes gives a pod enough time.
    kubernetes = (DEPLOY / "kubernetes.yaml").read_text("utf-8")
    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", kubernetes)
    sleep = re.search(r'\["sleep", "(\d+)"\]', kubernetes)
    assert grace is not None
    assert sleep is not None
    assert int(grace[1]) > int(sleep[1]) + args.drain + args.shutdown_timeout + 1
