"""What a server can know about a client before it answers the request.

This module knows which facts there are. It does not know where they come from: an event loop's
transports, a caller's own sockets, or a PROXY protocol header.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .proxy_protocol import ProxyHeader

__all__ = ["Peer", "TLSInfo"]


@dataclass(frozen=True, slots=True)
class TLSInfo:
    """What was agreed on in a TLS handshake.

    Attributes:
        version: the protocol, as in "TLSv1.3"; None if it is not known.
        cipher: the cipher suite by OpenSSL's name, as in "TLS_AES_256_GCM_SHA384"; None if it is
            not known.
        server_name: the host name that the client asked for (RFC 6066 §3), in its xn-- form; None
            if it named none, or the event loop does not tell (aiofastnet's transports).
        certificate: the client's certificate, as `ssl.SSLSocket.getpeercert()` returns it; None
            if there is none, or nobody has verified it.
    """

    version: str | None = None
    cipher: str | None = None
    server_name: str | None = None
    certificate: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known about a client.

    Attributes:
        address: its address, as its socket family has it: (host, port, …) or a path. None if
            there is none.
        local_address: the address that it connected to.
        tls: what was agreed on in the TLS handshake; None if there is no TLS with us.
        proxy: the PROXY protocol header that a proxy sent; None if there is none. `address` and
            `local_address` are those in it, if it has any.
    """

    address: Any = None
    local_address: Any = None
    tls: TLSInfo | None = None
    proxy: ProxyHeader | None = None
