"""What a connection has counted so far.

This module knows the names of the figures. It does not know where they are counted: bytes, frames
and messages by the codec, the rest by what is above it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a connection has counted so far: a snapshot, which does not change any more.

    All counts begin when the connection is open. "Received" is what fastws has decoded, whether
    or not the application has taken it; "sent" is what the application has passed to fastws, with
    what fastws sends by itself. Nothing counts after the end: what arrives after a close frame or a
    violation is dropped.

    Attributes:
        messages_received: the number of complete messages received.
        messages_sent: the number of messages sent; one in fragments counts when its last fragment
            is sent.
        frames_received: the number of complete frames received, including control frames
            (RFC 6455 §5.5). If messages have no fragments, this is the number of messages and
            control frames.
        frames_sent: the number of frames sent, including control frames.
        bytes_received: the number of bytes received from the peer (§5.2: headers and payloads;
            without TLS, TCP and the opening handshake).
        bytes_sent: the number of bytes that were passed to the transport, or that `data_to_send`
            has returned; not what is queued.
        payload_received: the size of the messages received, in bytes, after decompression; text
            counts as its UTF-8. It includes the part of a message that has arrived so far.
        payload_sent: the size of the messages sent, in bytes, before compression.
        pings_received: the number of pings received (§5.5.2).
        pings_sent: the number of pings sent, including those of the keepalive.
        pongs_received: the number of pongs received (§5.5.3).
        pongs_sent: the number of pongs sent.
        unsent: how many bytes wait to be sent now, because the peer takes too little. What the
            operating system has buffered is not in it.
        latency: the time between the last ping that was answered, of the application or of the
            keepalive, and its pong, in seconds; None if there was none. A `Connection` and a
            `Session` do not measure it: None.
        read_pauses: how often so many messages waited to be received that reading was slowed down
            (see `max_queue` and `read_limit` of `serve` and `connect`); 0 without asyncio.
        write_pauses: how often more than `write_limit` bytes were unsent, so that those who send
            had to wait; 0 without asyncio.

    The other limits end the connection: `close_code` and `ConnectionClosed` say which one.
    """

    messages_received: int = 0
    messages_sent: int = 0
    frames_received: int = 0
    frames_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    payload_received: int = 0
    payload_sent: int = 0
    pings_received: int = 0
    pings_sent: int = 0
    pongs_received: int = 0
    pongs_sent: int = 0
    unsent: int = 0
    latency: float | None = None
    read_pauses: int = 0
    write_pauses: int = 0
