"""docs/howto/metrics.md: its server shows the figures that it lists."""

from __future__ import annotations

import re
import sys
import urllib.request
from typing import TYPE_CHECKING

from websockets.sync.client import connect

from ..tools import TIMEOUT, Program, free_port
from .pages import code, text

if TYPE_CHECKING:
    from pathlib import Path


def test_the_server(tmp_path: Path) -> None:
    port = free_port()
    program = tmp_path / "server.py"
    source = code("howto/metrics.md", "server")
    program.write_text(source.replace("8080", str(port)), "utf-8")
    with Program(sys.executable, str(program)) as server:
        server.wait_for_port(port)
        with connect(f"ws://localhost:{port}") as ws:
            ws.send("hi")
            ws.recv(TIMEOUT)
            url = f"http://localhost:{port}/metrics"
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                shown = response.read().decode()
    assert "\nfastws_connections 1\n" in shown
    assert "\nfastws_messages_received_total 1\n" in shown
    # The table has all of them, with their types.
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", shown, re.MULTILINE))
    listed = {
        name: kind
        for names, kind in re.findall(r"^\| (`.*`) \| (\w+) \|", text("howto/metrics.md"), re.M)
        for name in re.findall(r"`(\w+)", names)
    }
    only_linux = {"process_start_time_seconds", "process_resident_memory_bytes", "process_open_fds"}
    assert listed.items() >= types.items()
    assert set(listed) - set(types) <= only_linux
