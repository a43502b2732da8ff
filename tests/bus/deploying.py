"""The chat behind a real proxy, configured by the files of examples/deploy."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..tools import Program, free_port
from .chat import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Broker

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"


def configured(
    name: str, folder: Path, ports: dict[str, int], more: str = "", connections: int = 1000
) -> str:
    """Write a configuration with other ports; return its path."""
    text = (DEPLOY / name).read_text("utf-8")
    for port, other in ports.items():
        assert port in text
        text = re.sub(rf"(?<=[: ]){port}\b", str(other), text)
    # HAProxy does not start if it may not have as many descriptors as that takes.
    text = text.replace("maxconn 32768", f"maxconn {connections}")
    (folder / name).write_text(text.replace("access_log off;", f"access_log off; {more}"))
    return str(folder / name)


@contextmanager
def proxy(
    name: str, folder: Path, ports: dict[str, int], connections: int = 1000
) -> Iterator[Program]:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
    if path is None:
        pytest.fail(f"no {name} here: apt-get install --no-install-recommends {name}")
    if name == "nginx":
        # (Who is not root may not write where Debian's nginx does.)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        more = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        conf = configured("nginx.conf", folder, ports, more)
        command = [path, "-c", conf, "-p", str(folder), "-e", "stderr"]
        command += ["-g", f"daemon off; pid {folder}/pid;"]
    else:
        command = [path, "-f", configured("haproxy.cfg", folder, ports, "", connections)]
    with Program(*command) as program:
        program.wait_for_port(ports["8080"])
        yield program


@contextmanager
def deployed(name: str, redis: Broker, folder: Path) -> Iterator[tuple[str, list[Program]]]:
    """The chat on two servers behind a proxy: its URL, and the servers."""
    ports = {port: free_port() for port in ("8080", "8081", "8082")}
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                servers(redis.url, redis.url, "--port", str(ports[port]), workers=1)
            )
            for port in ("8081", "8082")
        ]
        stack.enter_context(proxy(name, folder, ports))
        yield f"ws://127.0.0.1:{ports['8080']}/", running
