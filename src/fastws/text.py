"""Text messages that the application gives in UTF-8.

This module knows how they are checked, in one piece or in fragments. It does not know how they are
sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import errors
from .codec import Utf8Validator, is_utf8, valid_text
from .events import Text
from .rules import as_bytes

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["as_text", "check_fragment"]


def as_text(data: str | Text | Buffer) -> Text:
    """Return a text message that is given as a str or in UTF-8.

    Raises:
        TypeError: if `data` is neither a str nor bytes-like.
        ValueError: if `data` is not UTF-8, or has lone surrogates.
    """
    if type(data) is not bytes:
        if isinstance(data, Text):
            return data
        if isinstance(data, str):
            return valid_text(str.encode(data))
        data = as_bytes(data)
    if not is_utf8(data):
        raise errors.utf8_required()
    return valid_text(data)


def check_fragment(begun: bytes, fragment: bytes, *, last: bool) -> bytes:
    """Check that a fragment of a text message goes on in UTF-8.

    Args:
        begun: the incomplete character at the end of the fragment before.
        fragment: the next fragment.
        last: whether the message ends with it.

    Returns:
        the incomplete character at its end, at most 3 bytes.

    Raises:
        ValueError: if it is not UTF-8.
    """
    utf8 = Utf8Validator()
    if not (utf8.feed(begun) and utf8.feed(fragment)) or (last and not utf8.complete):
        raise errors.utf8_required()
    if utf8.complete:
        return b""
    end = begun + fragment if len(fragment) < 3 else fragment[-3:]
    # Its first byte is the last one that is no continuation byte (RFC 3629 §3).
    start = max(i for i, byte in enumerate(end) if byte >= 0xC0)
    return end[start:]
