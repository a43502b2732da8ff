"""What the tests hold a host with fastws against the host without by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"\x17\x80\xfe\x01"


def outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """Call it; return what it returned, or what it raised."""
    try:
        return "returned", function(*args)
    except Exception as exc:
        return type(exc), str(exc)


def wire(
    first: int, payload: bytes = b"", *, mask: bool = True, length: int | None = None, form: int = 0
) -> bytes:
    """Write any frame, right or wrong; `form` is the size of the length, if not the least."""
    size = len(payload) if length is None else length
    form = form or (1 if size < 126 else 2 if size < 65536 else 8)
    bit = 0x80 if mask else 0
    if form == 1:
        head = bytes([first, bit | size])
    else:
        head = bytes([first, bit | (126 if form == 2 else 127)]) + size.to_bytes(form, "big")
    if not mask:
        return head + payload
    return head + KEY + bytes(byte ^ KEY[i % 4] for i, byte in enumerate(payload))
