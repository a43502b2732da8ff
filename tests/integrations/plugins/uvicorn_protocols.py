"""uvicorn's tests name its classes: replace those based on websockets by the class of fastws.

The tests read some attributes, too; these are mapped to the timer of fastws.
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
    # Newer versions of uvicorn keep the first one only to deprecate it.
    warnings.simplefilter("ignore")
    for module, name in (
        ("websockets_impl", "WebSocketProtocol"),
        ("websockets_sansio_impl", "WebSocketsSansIOProtocol"),
    ):
        place = importlib.import_module(f"uvicorn.protocols.websockets.{module}")
        # Some tests are for the class of one name only.
        setattr(place, name, type(name, (Protocol,), {"__module__": place.__name__}))
