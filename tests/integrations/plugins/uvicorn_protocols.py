"""uvicorn's tests name its classes: let those that stand on websockets be fastws'.

They look at some of their attributes, too; what those say is here said of fastws' timer.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from fastws.connection import State
from fastws.integrations.uvicorn import WebSocketProtocol


class Protocol(WebSocketProtocol):
    ping_sent_at = 0.0

    def _keep_alive(self) -> None:
        self.ping_sent_at = self._loop.time()
        super()._keep_alive()

    @property
    def ping_timer(self) -> Any:
        return self._timer

    @property
    def close_timer(self) -> Any:
        waits = self.state is State.CLOSING and not self._transport.is_closing()
        return self._timer if waits else None


with warnings.catch_warnings():
    # Newer versions of uvicorn have the first only to say that it is old.
    warnings.simplefilter("ignore")
    for module, name in (
        ("websockets_impl", "WebSocketProtocol"),
        ("websockets_sansio_impl", "WebSocketsSansIOProtocol"),
    ):
        place = importlib.import_module(f"uvicorn.protocols.websockets.{module}")
        # Some tests are for the class of one name only.
        setattr(place, name, type(name, (Protocol,), {"__module__": place.__name__}))
