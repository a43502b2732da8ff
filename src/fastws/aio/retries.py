"""When `async for ws in connect(…)` tries again.

This module knows which failures may pass, and how long to wait before the next attempt. It does
not know how to connect, or that anybody waits.
"""

from __future__ import annotations

import random
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from fastws.exceptions import IncompleteResponseError, ProxyError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["RetryPolicy", "may_pass"]

# RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4.
_PASSING_CLIENT_ERRORS: Final = frozenset({408, 425, 429})
# The server errors that waiting does not change: not implemented, version not supported, the
# mistakes of RFC 2295 and RFC 5842, not extended, log in to the network first. All others pass,
# including those that only proxies use (520 to 530).
_LASTING_SERVER_ERRORS: Final = frozenset({501, 505, 506, 508, 510, 511})
# General failure; network or host unreachable; refused; expired (RFC 1928 §6). And SOCKS4's.
_PASSING_REPLIES: Final = frozenset({1, 3, 4, 5, 6, 91})
# What OpenSSL calls the failures of TLS that are the same next time: the peer does not speak TLS;
# the two ends have no version, cipher or key size in common; one of them does not accept the
# other's certificate or name. All others may pass, such as a connection that ends too soon.
_LASTING_TLS_ERRORS: Final = frozenset(
    {
        *("HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"),
        *("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW"),
        *("WRONG_SSL_VERSION", "WRONG_VERSION_NUMBER", "NO_PROTOCOLS_AVAILABLE"),
        *("NO_CIPHERS_AVAILABLE", "NO_SHARED_CIPHER", "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        *("TLSV1_ALERT_INSUFFICIENT_SECURITY", "DH_KEY_TOO_SMALL", "EE_KEY_TOO_SMALL"),
        *("UNSAFE_LEGACY_RENEGOTIATION_DISABLED", "TLSV1_UNRECOGNIZED_NAME"),
        *("SSLV3_ALERT_BAD_CERTIFICATE", "TLSV1_ALERT_UNKNOWN_CA"),
        *("SSLV3_ALERT_CERTIFICATE_EXPIRED", "SSLV3_ALERT_CERTIFICATE_REVOKED"),
        *("SSLV3_ALERT_CERTIFICATE_UNKNOWN", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
        *("TLSV13_ALERT_CERTIFICATE_REQUIRED", "TLSV1_ALERT_ACCESS_DENIED"),
    }
)


def may_pass(exc: Exception) -> bool:
    """Return whether a later attempt to connect may succeed, as far as an exception tells.

    These may pass: network errors and timeouts, a connection that ends before the server's
    response is whole, the statuses 408, 425, 429 and 5xx (but not 501, 505, 506, 508, 510 and
    511), and a proxy that cannot be reached or cannot reach the server. These do not: other
    statuses, such as 401, 403 and 404, certificates that are not trusted, and servers that do not
    speak TLS, HTTP or WebSocket. An `ExceptionGroup` may pass if all its members may.

    Args:
        exc: the exception that `connect` raised.
    """
    if isinstance(exc, ExceptionGroup):
        return all(map(may_pass, exc.exceptions))
    if isinstance(exc, ProxyError):
        if isinstance(exc.__cause__, OSError):
            return may_pass(exc.__cause__)
        if exc.response is None:
            return exc.status in _PASSING_REPLIES
        return _may_status_pass(exc.response.status)
    if isinstance(exc, IncompleteResponseError):
        return True
    if isinstance(exc, ResponseError):
        return exc.status is not None and _may_status_pass(exc.status)
    if isinstance(exc, ssl.SSLError):
        is_trusted = not isinstance(exc, ssl.SSLCertVerificationError)
        return is_trusted and getattr(exc, "reason", None) not in _LASTING_TLS_ERRORS
    return isinstance(exc, OSError)


def _may_status_pass(status: int) -> bool:
    if 500 <= status < 600:
        return status not in _LASTING_SERVER_ERRORS
    return status in _PASSING_CLIENT_ERRORS


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which failed attempts to connect are followed by another one, and when.

    The delay is random, between 0 and a bound that grows with each failure, so that the clients
    of a server that was down do not all return at once. If the response says Retry-After, it is
    added to the delay.

    Args:
        may_pass: a function that gets the exception of a failed attempt. If it returns False,
            the loop ends, and raises the exception.
        initial_delay: the bound of the first delay, in seconds.
        factor: by how much the bound grows.
        max_delay: how far it grows, in seconds.
        max_retry_after: the longest Retry-After to wait for, in seconds; a longer one counts as
            this long.

    Raises:
        TypeError: if `may_pass` cannot be called.
        ValueError: if a delay is negative, or the factor is less than 1.
    """

    may_pass: Callable[[Exception], bool] = may_pass
    initial_delay: float = 1.0
    factor: float = 1.6
    max_delay: float = 60.0
    max_retry_after: float = 600.0

    def __post_init__(self) -> None:
        if not callable(self.may_pass):
            kind = type(self.may_pass).__name__
            raise TypeError(f"may_pass must be a function, not {kind!r}")
        for name in ("initial_delay", "max_delay", "max_retry_after"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, not {value}")
        if not self.factor >= 1:
            raise ValueError(f"factor must be at least 1, not {self.factor}")

    def delays(self) -> Iterator[float]:
        """Yield how long to wait before each further attempt, in seconds."""
        bound = self.initial_delay
        while True:
            bound = min(bound, self.max_delay)
            yield random.uniform(0.0, bound)
            bound *= self.factor

    def retry_after(self, exc: Exception) -> float:
        """Return how long the server asks to wait, in seconds (RFC 9110 §10.2.3); 0 if it does
        not.

        Args:
            exc: the exception that `connect` raised.
        """
        response = exc.response if isinstance(exc, (ProxyError, ResponseError)) else None
        value = "" if response is None else ", ".join(response.headers.get_all("Retry-After"))
        if value.isascii() and value.isdigit():
            # (A number of 5,000 digits is no int, but a float.)
            return min(float(value), self.max_retry_after)
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return 0.0
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
        return min(max(seconds, 0.0), self.max_retry_after)
