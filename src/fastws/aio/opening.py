"""The opening handshake, as a server or a client goes through it (RFC 6455 §4).

This module knows what to send first, what to make of the peer's answer, and how to ask the
application. It returns what it decided. It does not know transports, or who acts on that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from fastws.exceptions import FieldError, HandshakeError, RequestError, ResponseError
from fastws.handshake import Accept, ClientHandshake, ServerHandshake
from fastws.http import Request, Response
from fastws.spec import Role

from .blame import blames_peer
from .facts import peer_of
from .redirects import Redirection

if TYPE_CHECKING:
    import asyncio

    from fastws.deflate import Agreement

    from .facts import Connected
    from .redirects import Route

__all__ = [
    "ClientOpeningHandshake",
    "Decision",
    "Failed",
    "Opened",
    "OpeningHandshake",
    "ProcessRequest",
    "Refused",
    "ServerOpeningHandshake",
    "Undecided",
]

# What `serve` takes to see each request first: a function, or a coroutine function.
ProcessRequest: TypeAlias = Callable[
    [Request], Accept | Response | Awaitable[Accept | Response | None] | None
]


# What an opening handshake can come to ------------------------------------------------------


@dataclass(slots=True)
class Opened:
    """The connection is open.

    Args:
        octets: the response to send.
        trailing: the beginning of what the peer sent after its part of the handshake.
        subprotocol: the subprotocol agreed on.
        deflate: how messages are compressed.
        context: what the application found out about the client.
    """

    octets: bytes
    trailing: bytes
    subprotocol: str | None
    deflate: Agreement | None
    context: Any = None


@dataclass(slots=True)
class Refused:
    """The server answers with plain HTTP, and that is all.

    Args:
        octets: the response to send.
        error: what is wrong with the request; None if the application answers in its own way.
        mistake: what the application's own function raised, if it failed.
    """

    octets: bytes
    error: RequestError | None = None
    mistake: Exception | None = None

    @property
    def status(self) -> int:
        """The status of the response."""
        return int(self.octets[9:12])


@dataclass(slots=True)
class Failed:
    """There is no connection, and nothing to say to the peer.

    Args:
        error: why; a Redirection if the server names another place, which the application need
            not know.
    """

    error: Exception


@dataclass(slots=True)
class Undecided:
    """The application takes its time; `decide` takes what comes of this."""

    answer: Awaitable[Accept | Response | None]


Decision: TypeAlias = Opened | Refused | Failed | Undecided


class OpeningHandshake(Protocol):
    """An opening handshake; each method returns None while the peer has more to say.

    Attributes:
        role: which end we are.
        request: the client's request, once a server has read it.
        response: the server's response, once a client has read it.
        answer: the application's answer, while we wait for it; `decide` takes its result.
    """

    @property
    def role(self) -> Role: ...
    @property
    def request(self) -> Request | None: ...
    @property
    def response(self) -> Response | None: ...
    @property
    def answer(self) -> asyncio.Future[Any] | None: ...

    def begin(self, wire: Connected | None = None) -> bytes:
        """Return what to send first.

        Args:
            wire: knows the peer, as far as the transport does; None if nobody does.
        """

    def wants_data(self) -> bool:
        """Return whether to read what the peer sends."""

    def receive_data(self, data: bytes) -> Decision | None:
        """Take what the peer sent."""

    def receive_eof(self) -> Decision | None:
        """The peer will send nothing more."""

    def wait_for(self, answer: asyncio.Future[Any]) -> None:
        """Wait for the application's answer."""

    def decide(self) -> Decision:
        """Act on the application's answer, which is done."""

    def time_out(self) -> Decision | None:
        """The handshake took too long."""


@dataclass(slots=True)
class ServerOpeningHandshake:
    """The server's side: wait for a request, answer it (RFC 6455 §4.2).

    Args:
        handshake: the rules to judge the request by.
        process_request: a function, or coroutine function, that sees each request first.
            If it returns a response, that is sent in place of the handshake's; if it raises a
            RequestError, so is what that says. An Accept adds to the handshake's response.
    """

    handshake: ServerHandshake = field(default_factory=ServerHandshake)
    process_request: ProcessRequest | None = None
    role: Role = Role.SERVER
    request: Request | None = None
    response: None = None
    answer: asyncio.Future[Any] | None = None
    _wire: Connected | None = None

    def begin(self, wire: Connected | None = None) -> bytes:
        self._wire = wire
        return b""

    def wants_data(self) -> bool:
        return self.answer is None  # what the client sends meanwhile stays where it is

    def receive_data(self, data: bytes) -> Decision | None:
        try:
            self.request = request = self.handshake.receive_data(data)
        except RequestError as exc:
            return self._reject(exc)
        if request is None:
            return None
        if self.process_request is None:
            return self._accept(request)
        if self._wire is not None:
            self.request = request = replace(request, peer=peer_of(self._wire))
        try:
            answer = self.process_request(request)
        except Exception as exc:
            return self._give_up(exc)
        if isawaitable(answer):
            return Undecided(answer)
        return self._answer(request, answer)

    def receive_eof(self) -> Decision | None:
        return None

    def wait_for(self, answer: asyncio.Future[Any]) -> None:
        self.answer = answer

    def decide(self) -> Decision:
        answer, self.answer = self.answer, None
        assert answer is not None
        if answer.cancelled():
            return self._reject(RequestError("internal server error", 500))
        try:
            result = answer.result()
        except Exception as exc:
            return self._give_up(exc)
        assert self.request is not None
        return self._answer(self.request, result)

    def time_out(self) -> Decision:
        return self._reject(RequestError("the opening handshake took too long", 408))

    def _answer(self, request: Request, answer: Accept | Response | None) -> Decision:
        if answer is None or isinstance(answer, Accept):
            return self._accept(request, answer)
        try:
            if not isinstance(answer, Response):
                kind = type(answer).__name__
                wanted = "None, an Accept or a Response"
                raise TypeError(f"process_request must return {wanted}, not {kind!r}")
            return Refused(self.handshake.respond(answer))
        except Exception as exc:
            return self._give_up(exc)

    def _accept(self, request: Request, how: Accept | None = None) -> Decision:
        handshake = self.handshake
        try:
            if how is None:
                octets = handshake.accept(request)
            else:
                octets = handshake.accept(request, headers=how.headers, subprotocol=how.subprotocol)
        except RequestError as exc:
            return self._reject(exc)
        context = None if how is None else how.context
        subprotocol, deflate = handshake.subprotocol, handshake.deflate
        return Opened(octets, handshake.trailing_data, subprotocol, deflate, context)

    def _reject(self, error: RequestError, mistake: Exception | None = None) -> Refused:
        try:
            return Refused(self.handshake.reject(error), error, mistake)
        except Exception as exc:
            # It was raised by the application, with a bad status or field.
            return self._give_up(exc)

    def _give_up(self, exc: Exception) -> Refused:
        """The application's own function failed. The client learns no more than that, unless
        the function refuses the request, or the request is to blame."""
        if isinstance(exc, RequestError):
            return self._reject(exc)
        # (A ConnectionClosed is that of another connection: ours has yet to open.)
        if blames_peer(exc, self.request, may_close=False):
            text = str(exc) if isinstance(exc, FieldError) else "bad header fields"
            return self._reject(RequestError(text))
        return self._reject(RequestError("internal server error", 500), exc)


@dataclass(slots=True)
class ClientOpeningHandshake:
    """The client's side: send a request, judge the answer (RFC 6455 §4.1).

    Args:
        handshake: the request, and the rules to judge the response by.
        route: where the request goes; None to follow no redirects.
    """

    handshake: ClientHandshake
    route: Route | None = None
    role: Role = Role.CLIENT
    request: None = None
    response: Response | None = None
    answer: None = None

    def begin(self, wire: Connected | None = None) -> bytes:
        return self.handshake.request()

    def wants_data(self) -> bool:
        return True

    def receive_data(self, data: bytes) -> Decision | None:
        handshake = self.handshake
        try:
            self.response = handshake.receive_data(data)
        except HandshakeError as exc:
            return self._give_up(exc)
        if self.response is None:
            return None
        return Opened(b"", handshake.trailing_data, handshake.subprotocol, handshake.deflate)

    def receive_eof(self) -> Decision | None:
        try:
            self.handshake.receive_eof()
        except HandshakeError as exc:
            return self._give_up(exc)
        return None

    def wait_for(self, answer: asyncio.Future[Any]) -> None:
        raise NotImplementedError  # there is nobody to ask

    def decide(self) -> Decision:
        raise NotImplementedError

    def time_out(self) -> Decision:
        return Failed(TimeoutError("the opening handshake took too long"))

    def _give_up(self, error: HandshakeError) -> Decision:
        if self.route is not None and isinstance(error, ResponseError):
            try:
                route = self.route.follow(error)
            except ResponseError as exc:
                return Failed(exc)
            if route is not None:
                return Failed(Redirection(route))
        return Failed(error)
