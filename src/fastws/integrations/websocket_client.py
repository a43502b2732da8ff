"""fastws in websocket-client, the module `websocket`.

    import fastws.integrations.websocket_client

    fastws.integrations.websocket_client.install()

fastws masks and writes frames, and validates received text. websocket-client does that in pure
Python, and spends most of its time on it. It still reads frames as before: with one `recv` for each
part of a header, and never more bytes than the frame has. Code that waits for the socket, such as
`WebSocketApp`, relies on that.

fastws also replaces wsaccel, which websocket-client uses if it is installed. fastws's pure-Python
twin masks more slowly than wsaccel. With that twin and wsaccel, fastws only validates text.

This module knows where websocket-client masks, writes frames and validates. It does not know
sockets.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fastws import codec
from fastws.spec import MASK_KEY_SIZE, Opcode

from ._hosts import HOSTS
from ._install import Installation

HOST = HOSTS["websocket_client"]

try:
    from websocket import _abnf, _utils
except ImportError as exc:
    raise HOST.missing() from exc

if TYPE_CHECKING:
    from collections.abc import Callable

ABNF = _abnf.ABNF

__all__ = ["install"]


def install(*, untested: bool = False) -> Installation:
    """Let websocket-client mask, write frames and validate with fastws.

    Open connections use it too.

    Args:
        untested: whether to patch a version that was not tested.

    Returns:
        an object that undoes it.

    Raises:
        IntegrationError: if it does not work.
    """
    return HOST.install(_patch, _check, untested=untested)


def _patch(to: Installation) -> None:
    their_mask: Callable[..., bytes] = ABNF.mask

    def mask(mask_key: Any, data: Any) -> bytes:
        if (
            type(mask_key) is bytes
            and len(mask_key) == MASK_KEY_SIZE
            and isinstance(data, (bytes, bytearray))
        ):
            return codec.apply_mask(data, mask_key)
        return their_mask(mask_key, data)

    their_format: Callable[[Any], bytes] = ABNF.format
    fields = (1, 0, 0, 0, 1)

    def format(self: Any) -> bytes:  # noqa: A001
        data = self.data
        if (
            type(data) is bytes
            and self.opcode in _DATA
            and (self.fin, self.rsv1, self.rsv2, self.rsv3, self.mask_value) == fields
            and self.get_mask_key is os.urandom  # another function may return a str
            and type(self) is ABNF
        ):
            return codec.encode_frame(self.opcode, data, key=os.urandom(MASK_KEY_SIZE))
        return their_format(self)

    their_validate: Callable[[Any], bool] = vars(_utils)["_validate_utf8"]

    def validate(utfbytes: Any) -> bool:
        # Like the original, this accepts an incomplete code point at the end.
        if type(utfbytes) is bytes:
            return codec.Utf8Validator().feed(utfbytes)
        return their_validate(utfbytes)

    if codec.implementation == "c" or not hasattr(_abnf, "XorMaskerSimple"):
        to.replace(ABNF, "mask", staticmethod(mask))
        to.replace(ABNF, "format", format)
    # Other modules import `validate_utf8` by name; it calls this function.
    to.replace(_utils, "_validate_utf8", validate)


# fastws writes only these frames. websocket-client sends control frames even if they break a rule,
# and it is not worth checking them.
_DATA = (Opcode.TEXT.value, Opcode.BINARY.value)


def _check() -> None:
    text = "fastws: ä€😀".encode()
    key = b"\x12\x34\x56\x78"
    if ABNF.mask(key, ABNF.mask(key, text)) != text or ABNF.mask("\0" * 4, "ab") != b"ab":
        raise AssertionError("ABNF.mask")
    frame = ABNF.create_frame(text, ABNF.OPCODE_TEXT).format()
    decoder = codec.FrameDecoder(masked=True)
    if decoder.feed(frame) != [codec.Frame(Opcode.TEXT, text)]:
        raise AssertionError("ABNF.format")
    if not _utils.validate_utf8(text) or _utils.validate_utf8(text + b"\xff"):
        raise AssertionError("validate_utf8")
