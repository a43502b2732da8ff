"""The limits and timeouts that all connections of a server, or of one `connect`, share.

This module knows the numbers and which of them are valid, and passes to `Connection` those that
it takes. It does not know what they limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastws import rules
from fastws.connection import Connection
from fastws.spec import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_MAX_FRAGMENTS,
    DEFAULT_MAX_MESSAGE_SIZE,
    DEFAULT_MAX_QUEUE,
    DEFAULT_MAX_UNSENT_SIZE,
    DEFAULT_OPEN_TIMEOUT,
    DEFAULT_PING_INTERVAL,
    DEFAULT_PING_TIMEOUT,
    DEFAULT_READ_LIMIT,
    DEFAULT_WRITE_LIMIT,
    Role,
)

if TYPE_CHECKING:
    from fastws.deflate import Agreement

__all__ = ["DEFAULT_SETTINGS", "Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Limits and timeouts; `serve` and `connect` document them."""

    max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE
    max_fragments: int | None = DEFAULT_MAX_FRAGMENTS
    stream: bool = False
    max_stream_size: int | None = None
    open_timeout: float | None = DEFAULT_OPEN_TIMEOUT
    close_timeout: float | None = DEFAULT_CLOSE_TIMEOUT
    ping_interval: float | None = DEFAULT_PING_INTERVAL
    ping_timeout: float | None = DEFAULT_PING_TIMEOUT
    max_queue: int | None = DEFAULT_MAX_QUEUE
    read_limit: int | None = DEFAULT_READ_LIMIT
    write_limit: int = DEFAULT_WRITE_LIMIT
    max_unsent_size: int | None = DEFAULT_MAX_UNSENT_SIZE
    decode_text: bool = True

    def __post_init__(self) -> None:
        rules.check_limit("max_queue", self.max_queue, 1)
        rules.check_limit("read_limit", self.read_limit, 1)
        rules.check_limit("write_limit", self.write_limit, 0)
        # (If write_limit is larger than the default of max_unsent_size, it raises that limit, too.)
        least = min(self.write_limit, DEFAULT_MAX_UNSENT_SIZE)
        rules.check_limit("max_unsent_size", self.max_unsent_size, least)
        for name in ("open_timeout", "close_timeout", "ping_interval", "ping_timeout"):
            rules.check_timeout(name, getattr(self, name))
        # Connection checks the other limits. Create one here, so that serve() raises.
        self.make_connection(Role.SERVER, None)

    def make_connection(self, role: Role, deflate: Agreement | None) -> Connection:
        """Return a new connection with these settings."""
        return Connection(
            role,
            max_message_size=self.max_message_size,
            max_fragments=self.max_fragments,
            deflate=deflate,
            decode_text=self.decode_text,
            stream=self.stream,
            max_stream_size=self.max_stream_size,
        )

    @property
    def unsent_limit(self) -> int | None:
        """The maximum number of unsent bytes; None for no limit."""
        return None if self.max_unsent_size is None else max(self.max_unsent_size, self.write_limit)


DEFAULT_SETTINGS = Settings()
