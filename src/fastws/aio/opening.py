"""The opening handshake on a transport, as a server or a client goes through it.

This module knows which bytes to send first and what to make of the peer's answer until the
connection is open. It does not know what happens on the connection then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from fastws.exceptions import FieldError, HandshakeError, RequestError
from fastws.handshake import ClientHandshake, ServerHandshake
from fastws.http import Request, Response
from fastws.spec import Role

if TYPE_CHECKING:
    from .protocol import Endpoint

__all__ = ["ClientOpening", "Opening", "ProcessRequest", "ServerOpening"]

# What `serve` takes to see each request first: a function, or a coroutine function.
ProcessRequest: TypeAlias = Callable[[Request], Response | Awaitable[Response | None] | None]


class Opening(Protocol):
    """One opening handshake; the endpoint lets go of it when it is over."""

    role: Role

    def begin(self, endpoint: Endpoint) -> None:
        """The transport is there."""

    def receive_data(self, endpoint: Endpoint, data: bytes) -> None:
        """The peer sent something."""

    def receive_eof(self, endpoint: Endpoint) -> None:
        """The peer sent all it will send."""

    def time_out(self, endpoint: Endpoint) -> None:
        """The handshake took too long."""

    def cancel(self) -> None:
        """The transport is gone."""


@dataclass(slots=True)
class ServerOpening:
    """The server's side: wait for a request, answer it (RFC 6455 §4.2).

    Args:
        handshake: the rules to judge the request by.
        process_request: a function, or coroutine function, that sees each request first.
            A response that it returns is sent in place of the handshake's; so is what a
            RequestError that it raises says.
    """

    handshake: ServerHandshake = field(default_factory=ServerHandshake)
    process_request: ProcessRequest | None = None
    role: Role = Role.SERVER
    _decision: asyncio.Future[Response | None] | None = None

    def begin(self, endpoint: Endpoint) -> None:
        pass

    def receive_data(self, endpoint: Endpoint, data: bytes) -> None:
        try:
            request = self.handshake.receive_data(data)
        except RequestError as exc:
            self._reject(endpoint, exc)
            return
        if request is None:
            return
        endpoint.request = request
        if self.process_request is None:
            self._answer(endpoint, request, None)
            return
        try:
            answer = self.process_request(request)
        except Exception as exc:
            self._give_up(endpoint, exc)
            return
        if isawaitable(answer):
            # What the client sends meanwhile stays where it is.
            endpoint._hold_reading(True)
            self._decision = asyncio.ensure_future(answer)
            self._decision.add_done_callback(partial(self._decided, endpoint, request))
        else:
            self._answer(endpoint, request, answer)

    def receive_eof(self, endpoint: Endpoint) -> None:
        pass

    def time_out(self, endpoint: Endpoint) -> None:
        self.cancel()
        self._reject(endpoint, RequestError("the opening handshake took too long", 408))

    def cancel(self) -> None:
        if self._decision is not None:
            self._decision.cancel()

    def _decided(
        self, endpoint: Endpoint, request: Request, decision: asyncio.Future[Response | None]
    ) -> None:
        try:
            response = decision.result()
        except asyncio.CancelledError:
            if endpoint._opening is self:
                self._reject(endpoint, RequestError("internal server error", 500))
        except Exception as exc:
            self._give_up(endpoint, exc)
        else:
            if endpoint._opening is self:
                endpoint._hold_reading(False)
                self._answer(endpoint, request, response)

    def _answer(self, endpoint: Endpoint, request: Request, response: Response | None) -> None:
        if response is not None:
            try:
                octets = self.handshake.respond(response)
            except Exception as exc:
                self._give_up(endpoint, exc)
            else:
                endpoint._refuse(octets, None)
            return
        try:
            octets = self.handshake.accept(request)
        except RequestError as exc:
            self._reject(endpoint, exc)
            return
        endpoint.subprotocol = self.handshake.subprotocol
        endpoint._open(octets, self.handshake.trailing_data, self.handshake.deflate)

    def _reject(self, endpoint: Endpoint, error: RequestError) -> None:
        try:
            octets = self.handshake.reject(error)
        except (
            Exception
        ) as exc:  # one of the application's own, with a status or a field that is bad
            self._give_up(endpoint, exc)
        else:
            endpoint._refuse(octets, error)

    def _give_up(self, endpoint: Endpoint, exc: Exception) -> None:
        """The application's own function failed. Unless it refuses the request, or the request
        is why, the client learns no more than that."""
        error = RequestError("internal server error", 500)
        if isinstance(exc, RequestError):
            error = exc
        elif endpoint._blames_peer(exc):
            error = RequestError(str(exc) if isinstance(exc, FieldError) else "bad header fields")
        else:
            endpoint._log_error("process_request failed", exc)
        if endpoint._opening is self:
            self._reject(endpoint, error)


@dataclass(slots=True)
class ClientOpening:
    """The client's side: send a request, judge the answer (RFC 6455 §4.1)."""

    handshake: ClientHandshake
    role: Role = Role.CLIENT

    def begin(self, endpoint: Endpoint) -> None:
        endpoint._transport.write(self.handshake.request())

    def receive_data(self, endpoint: Endpoint, data: bytes) -> None:
        try:
            response = self.handshake.receive_data(data)
        except HandshakeError as exc:
            endpoint._abandon(exc)
            return
        if response is None:
            return
        endpoint.response = response
        endpoint.subprotocol = self.handshake.subprotocol
        endpoint._open(b"", self.handshake.trailing_data, self.handshake.deflate)

    def receive_eof(self, endpoint: Endpoint) -> None:
        try:
            self.handshake.receive_eof()
        except HandshakeError as exc:
            endpoint._abandon(exc)

    def time_out(self, endpoint: Endpoint) -> None:
        endpoint._abandon(TimeoutError("the opening handshake took too long"))

    def cancel(self) -> None:
        pass
