"""What the transport of a server's connection tells about the client.

This module knows where transports and TLS contexts have these facts. It does not know what the
application makes of them.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from fastws.peers import Peer, TLSInfo

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Callable

    from fastws.proxy_protocol import ProxyHeader

__all__ = ["Connected", "note_server_names", "peer_of"]

# The host names that clients asked for. (Python's ssl has them only for `sni_callback`.)
_server_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


class Connected(Protocol):
    """An endpoint that has a transport."""

    @property
    def remote_address(self) -> Any: ...
    @property
    def local_address(self) -> Any: ...
    @property
    def _told(self) -> ProxyHeader | None: ...

    def get_extra_info(self, name: str) -> Any: ...


def peer_of(wire: Connected) -> Peer:
    """Return what is known about the client at the other end."""
    tls = None
    ssl_object = wire.get_extra_info("ssl_object")
    if ssl_object is not None:
        cipher = ssl_object.cipher()
        tls = TLSInfo(
            ssl_object.version(),
            None if cipher is None else cipher[0],
            _server_name(ssl_object),
            wire.get_extra_info("peercert") or None,
        )
    return Peer(wire.remote_address, wire.local_address, tls, wire._told)


def _server_name(ssl_object: Any) -> str | None:
    try:
        return _server_names.get(ssl_object)
    except TypeError:  # one of aiofastnet's, which cannot be referred to weakly
        return None


def note_server_names(
    loop: asyncio.AbstractEventLoop, context: ssl_module.SSLContext
) -> Callable[[], None]:
    """Have a server's TLS context note which host name each client asks for, if its connections in
    this event loop are those of Python's `ssl`. A `sni_callback` that the application has set is
    still called.

    Returns:
        a function that restores the context.
    """
    is_known = isinstance(loop, asyncio.BaseEventLoop) or type(loop).__module__ == "uvloop"
    if not is_known or "create_server" in getattr(loop, "__dict__", ()):
        # aiofastnet has its own TLS connections. With any `sni_callback`, they crash in Python's.
        return lambda: None
    before = _callback_of(context)
    noter = before if isinstance(before, _Noter) else _Noter(before)
    context.sni_callback = noter
    noter.users += 1
    return partial(_restore, context, noter)


def _callback_of(context: ssl_module.SSLContext) -> Any:
    """Return the `sni_callback` that was set."""
    # PyPy's contexts have it in an object of theirs, which cannot be called.
    callback: Any = context.sni_callback
    return callback if callback is None or callable(callback) else callback.callback


def _restore(context: ssl_module.SSLContext, noter: _Noter) -> None:
    noter.users -= 1
    before = noter.before
    if not noter.users and _callback_of(context) is noter:
        context.sni_callback = before


class _Noter:
    """A `sni_callback` of servers.

    Attributes:
        before: the one before.
        users: how many servers use it.
    """

    def __init__(self, before: Any) -> None:
        self.before = before
        self.users = 0

    def __call__(self, ssl_object: Any, name: str | None, context: Any) -> int | None:
        if name is not None:
            _server_names[ssl_object] = name
        if self.before is None:
            return None
        result: int | None = self.before(ssl_object, name, context)
        return result
