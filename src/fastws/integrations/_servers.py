"""What to advise for servers and frameworks that are not hosts themselves.

This module knows which host handles the WebSockets of each of them. It imports none of them.
"""

from __future__ import annotations

from typing import NamedTuple

from ._hosts import HOSTS

__all__ = ["KnownServer", "find"]


class KnownServer(NamedTuple):
    """A program that builds on a host.

    Attributes:
        hosts: the integrations that it can use.
        advice: what to do, as part of a sentence.
    """

    hosts: tuple[str, ...]
    advice: str


_UVICORN = "uvicorn app:app --ws fastws.integrations.uvicorn:WebSocketProtocol"


def _stands_on(integration: str, program: str, why: str = "") -> KnownServer:
    why = why or f"its WebSockets are {HOSTS[integration].name}'s"
    return KnownServer((integration,), f"{why}: fastws run --with {integration} -- {program}")


_RUNS_ON_UVICORN = KnownServer(
    (), f"if it runs on uvicorn, that takes a class of fastws: {_UVICORN}"
)

_SERVERS = {
    "hypercorn": _stands_on("wsproto", "hypercorn app:app"),
    "quart": _stands_on("wsproto", "-m quart run", "hypercorn serves it, on wsproto"),
    "trio_websocket": _stands_on("wsproto", "-m app"),
    "simple_websocket": _stands_on("wsproto", "-m app"),
    "flask_sock": _stands_on("wsproto", "-m app"),
    "httpx_ws": _stands_on("wsproto", "-m app"),
    "sanic": _stands_on("websockets", "sanic app.app"),
    "daphne": _stands_on("autobahn", "daphne app:app"),
    "channels": _stands_on("autobahn", "daphne app:app", "daphne serves it, on autobahn"),
    "crossbar": _stands_on("autobahn", "crossbar start"),
    "twisted": _stands_on("autobahn", "twist ..."),
    "twist": _stands_on("autobahn", "twist ..."),
    "twistd": _stands_on("autobahn", "twistd ..."),
    "jupyter": _stands_on("tornado", "jupyter lab"),
    "jupyterlab": _stands_on("tornado", "jupyter lab"),
    "jupyter_lab": _stands_on("tornado", "jupyter lab"),
    "jupyter_notebook": _stands_on("tornado", "jupyter notebook"),
    "jupyter_server": _stands_on("tornado", "jupyter server"),
    "jupyterhub": _stands_on("tornado", "jupyterhub"),
    "notebook": _stands_on("tornado", "jupyter notebook"),
    "bokeh": _stands_on("tornado", "bokeh serve"),
    "panel": _stands_on("tornado", "panel serve"),
    "websocket": _stands_on("websocket_client", "-m app", "the module is websocket-client's"),
    "uvicorn": KnownServer((), f"it takes a class of fastws, and needs no fastws run: {_UVICORN}"),
    "fastapi": _RUNS_ON_UVICORN,
    "starlette": _RUNS_ON_UVICORN,
    "litestar": _RUNS_ON_UVICORN,
    "nicegui": _stands_on("wsproto", "-m app", "it runs uvicorn with wsproto"),
    "django": KnownServer(
        ("autobahn",),
        "it depends on what serves it: fastws run --with autobahn -- daphne app:app, "
        f"or {_UVICORN}",
    ),
    "gunicorn": KnownServer(
        ("gunicorn",),
        "it depends on the worker: "
        "gunicorn -c python:fastws.integrations.gunicorn -k asgi app:app, or "
        "gunicorn -k fastws.integrations.gunicorn.UvicornWorker app:app",
    ),
    "granian": KnownServer((), "it handles WebSockets in Rust, so fastws cannot replace anything"),
}


def find(name: str) -> KnownServer | None:
    """Return what is known about a program, module or distribution; None if it is unknown."""
    return _SERVERS.get(name.lower().replace("-", "_").removesuffix(".exe"))
