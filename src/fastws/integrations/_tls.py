"""What an ASGI application learns about TLS: the extension "tls" of a scope.

This module knows ASGI's names for these facts, and how a certificate's subject is written (RFC
4514). It does not know servers.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["tls_extension"]

# RFC 4514 §3; other types of attributes keep the names that OpenSSL gives them.
_TYPES: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


def tls_extension(ssl_object: Any) -> dict[str, Any]:
    """Return the value of the extension for a connection of a server.

    Args:
        ssl_object: an `ssl.SSLObject`, or what is like one.
    """
    # It is empty if there is no certificate, or if nobody has verified it.
    certificate = ssl_object.getpeercert() or None
    chain, name = [], None
    if certificate is not None:
        chain = [ssl.DER_cert_to_PEM_cert(ssl_object.getpeercert(True))]
        name = _distinguished_name(certificate.get("subject", ()))
    version, cipher = ssl_object.version(), ssl_object.cipher()
    return {
        "server_cert": None,  # Python does not tell which one it was
        "client_cert_chain": chain,
        "client_cert_name": name,
        "client_cert_error": None,  # such a handshake fails
        "tls_version": _version(version),
        "cipher_suite": None if cipher is None else _suite(cipher[0]),
    }


def _version(name: str | None) -> int | None:
    """Return the number of a version such as "TLSv1.3" (RFC 8446 §4.2.1)."""
    if name is None:
        return None
    found = getattr(ssl.TLSVersion, name.replace(".", "_"), None)
    return None if found is None else int(found)


def _list_suites() -> dict[str, int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    # OpenSSL's numbers have 32 bits; the lower half is that of TLS.
    return {each["name"]: each["id"] & 0xFFFF for each in context.get_ciphers()}


_suites = cache(_list_suites)


def _suite(name: str) -> int | None:
    """Return the number of a cipher suite (RFC 8446 §B.4) by OpenSSL's name."""
    return _suites().get(name)


def _distinguished_name(subject: Iterable[Iterable[tuple[str, str]]]) -> str:
    """Return a subject, as `getpeercert` has it, as a string (RFC 4514 §2)."""
    # The last one comes first.
    names = [
        "+".join(f"{_TYPES.get(kind, kind)}={_escaped(value)}" for kind, value in parts)
        for parts in subject
    ]
    return ",".join(reversed(names))


def _escaped(value: str) -> str:
    """Return the value of an attribute as it is written in a name (RFC 4514 §2.4)."""
    last = len(value) - 1
    return "".join(
        "\\00"
        if char == "\0"
        else f"\\{char}"
        if char in '\\"+,;<>' or (char == " " and at in (0, last)) or (char == "#" and at == 0)
        else char
        for at, char in enumerate(value)
    )
