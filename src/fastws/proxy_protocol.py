"""The header that a proxy sends before everything else: the PROXY protocol, versions 1 and 2.

Proxies such as HAProxy and AWS's load balancers send it so that the server learns the address of
the client: see doc/proxy-protocol.txt of HAProxy. This module knows its syntax. It does not know
sockets, or which proxies may be trusted: any program that can connect can send any address.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final

from . import rules
from .exceptions import HandshakeError, StateError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DEFAULT_MAX_SIZE", "ProxyHeader", "ProxyHeaderReader"]

DEFAULT_MAX_SIZE: Final = 4096
"""The maximum size of a header of version 2, in bytes."""

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED = 16  # the signature, version and command, family and transport, the length of the rest
_V1 = b"PROXY "
_V1_MIN, _V1_MAX = len(b"PROXY UNKNOWN\r\n"), 107
_V1_FIELDS = 6
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")

# The families of version 2, and how much an address of each takes: two of them, and two ports.
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_SIZES = {_INET: 4, _INET6: 16, _UNIX: 108}
_LOCAL, _PROXY = 0, 1
_STREAM = 1


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a proxy tells about a connection that it forwards.

    Attributes:
        version: 1 or 2.
        source: the client's address: (host, port) for IPv4, (host, port, 0, 0) for IPv6, a path
            for a Unix socket (as `bytes` if it is in the abstract namespace of Linux). None if the
            proxy does not know it, or speaks for itself, as in a health check.
        destination: the address that the client connected to, like `source`.
        tlvs: what else version 2 tells, as pairs of a type and a value, in order: for example
            0x02, the host name that the client asked for, or 0x20, TLS. The values are not
            checked.
    """

    version: int
    source: Any = None
    destination: Any = None
    tlvs: tuple[tuple[int, bytes], ...] = ()


class ProxyHeaderReader:
    """Reads the header from the beginning of a stream.

    Args:
        max_size: the maximum size of a header, in bytes; None for no limit but that of the format,
            64 KiB. (Version 1 has at most 107.)

    Attributes:
        rest: the bytes after the header, once it is complete.

    Raises:
        TypeError: if `max_size` is not an int.
        ValueError: if `max_size` is too small for the addresses of Unix sockets: 232.
    """

    def __init__(self, *, max_size: int | None = DEFAULT_MAX_SIZE) -> None:
        rules.check_limit("max_size", max_size, _FIXED + 2 * _SIZES[_UNIX])
        self.rest = b""
        self._max_size = _FIXED + 0xFFFF if max_size is None else max_size
        self._received = bytearray()
        self._done = False

    @property
    def missing(self) -> int:
        """The least number of bytes before the header can be complete. If you never read more than
        that at a time, you read nothing after the header. 0 if it is complete."""
        if self._done:
            return 0
        received = self._received
        size = len(received)
        if received.startswith(_SIGNATURE):
            return (_FIXED if size < _FIXED else self._size()) - size
        if size < _V1_MIN:
            return _V1_MIN - size
        if received.endswith(b"\r"):
            return 1
        fields = received.split(b" ")
        if fields[1] == b"UNKNOWN":
            return 2
        # A blank and a character for each field that has not begun, and the end of the line.
        return 2 + 2 * max(_V1_FIELDS - len(fields), 0)

    def receive_data(self, data: Buffer) -> ProxyHeader | None:
        """Take what was read from the stream: any number of bytes.

        Returns:
            the header once it is complete, None until then.

        Raises:
            HandshakeError: if the stream does not begin with a header, or the header is invalid
                or too large. Close the connection: neither version has an answer.
            TypeError: if `data` is not bytes-like.
            StateError: if a header was returned, or an error raised, before.
        """
        if self._done:
            raise StateError("the PROXY protocol header has already been read")
        self._received += rules.as_bytes(data)
        try:
            header = self._read()
        except HandshakeError:
            self._done = True
            raise
        self._done = header is not None
        return header

    def _read(self) -> ProxyHeader | None:
        received = self._received
        if received.startswith(_SIGNATURE):
            return self._read_v2()
        if received.startswith(_V1):
            return self._read_v1()
        if not (_SIGNATURE.startswith(received) or _V1.startswith(received)):
            raise HandshakeError("the connection does not begin with a PROXY protocol header")
        return None

    # Version 1: a line of text ----------------------------------------------------------

    def _read_v1(self) -> ProxyHeader | None:
        end = self._received.find(b"\r\n", 0, _V1_MAX)
        if end < 0:
            if len(self._received) >= _V1_MAX:
                raise _malformed("the line is too long")
            return None
        line = bytes(self._received[:end])
        self.rest = bytes(self._received[end + 2 :])
        if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
            return ProxyHeader(1)  # what follows must be ignored
        try:
            _, family, *addresses, source_port, destination_port = line.decode("ascii").split(" ")
            source, destination = addresses
        except ValueError:
            raise _malformed("the line does not have six fields") from None
        if family not in ("TCP4", "TCP6"):
            raise _malformed(f"unknown family {family!r}")
        make = _ipv4 if family == "TCP4" else _ipv6
        return ProxyHeader(
            1, make(source, _port(source_port)), make(destination, _port(destination_port))
        )

    # Version 2: binary --------------------------------------------------------------------

    def _size(self) -> int:
        return _FIXED + int.from_bytes(self._received[14:16], "big")

    def _read_v2(self) -> ProxyHeader | None:
        received = self._received
        if len(received) < _FIXED:
            return None
        version, command = divmod(received[12], 16)
        family, kind = divmod(received[13], 16)
        if version != 2 or command not in (_LOCAL, _PROXY):
            raise _malformed(f"unknown version {version} or command {command}")
        size = self._size()
        if size > self._max_size:
            raise _malformed(f"{size} bytes are more than {self._max_size}")
        # LOCAL: the proxy speaks for itself. UNSPEC: it does not know. What follows is ignored.
        is_told = command == _PROXY and family != _UNSPEC
        if is_told and (family not in _SIZES or kind != _STREAM):
            raise _malformed(f"family {family} with transport {kind}")
        if is_told and size < _FIXED + _addresses_size(family):
            raise _malformed("the addresses are cut off")
        if len(received) < size:
            return None
        self.rest = bytes(received[size:])
        if not is_told:
            return ProxyHeader(2)
        block = bytes(received[_FIXED:size])
        return ProxyHeader(2, *_addresses(family, block), _tlvs(block[_addresses_size(family) :]))


def _malformed(why: str) -> HandshakeError:
    return HandshakeError(f"malformed PROXY protocol header: {why}")


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 0xFFFF:
        raise _malformed("not a port")
    return int(text)


def _ipv4(text: str, port: int) -> tuple[str, int]:
    try:
        return str(IPv4Address(text)), port
    except ValueError:
        raise _malformed("not an IPv4 address") from None


def _ipv6(text: str, port: int) -> tuple[str, int, int, int]:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise _malformed("not an IPv6 address") from None
    if address.scope_id is not None:
        raise _malformed("not an IPv6 address")
    return str(address), port, 0, 0


def _addresses_size(family: int) -> int:
    return 2 * _SIZES[family] + (0 if family == _UNIX else 4)


def _addresses(family: int, block: bytes) -> tuple[Any, Any]:
    size = _SIZES[family]
    source, destination = block[:size], block[size : 2 * size]
    if family == _UNIX:
        return _path(source), _path(destination)
    ports = block[2 * size :]
    source_port = int.from_bytes(ports[:2], "big")
    destination_port = int.from_bytes(ports[2:4], "big")
    if family == _INET:
        return (str(IPv4Address(source)), source_port), (
            str(IPv4Address(destination)),
            destination_port,
        )
    return (str(IPv6Address(source)), source_port, 0, 0), (
        str(IPv6Address(destination)),
        destination_port,
        0,
        0,
    )


def _path(octets: bytes) -> str | bytes | None:
    if octets[0] == 0:
        return octets.rstrip(b"\0") or None  # of the abstract namespace, or of no name
    return os.fsdecode(octets.partition(b"\0")[0])


def _tlvs(block: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    while block:
        end = 3 + int.from_bytes(block[1:3], "big")
        if len(block) < end:
            raise _malformed("a TLV is cut off")
        found.append((block[0], block[3:end]))
        block = block[end:]
    return tuple(found)
