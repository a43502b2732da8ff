"""fastws under websocket-client, the module `websocket`.

    import fastws.integrations.websocket_client

    fastws.integrations.websocket_client.install()

What is sent is masked and framed by fastws, and text received is validated by it; that is
where websocket-client, a client in pure Python, spends most of its time. Frames are read as
before, by one `recv` for each part of a header and not a byte more than the frame has:
whoever waits for the socket, `WebSocketApp` above all, relies on that.

It takes the place of wsaccel too, which websocket-client uses if it is installed. fastws'
pure-Python twin masks more slowly than that; with that twin and wsaccel only text is validated.

This module knows where websocket-client masks, frames and validates. It does not know
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
    """Let websocket-client mask, frame and validate by fastws.

    Connections that are open go on with it.

    Args:
        untested: whether to patch a version that was not tested.

    Returns:
        what undoes it.

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
            and self.get_mask_key is os.urandom  # a key of another make may be a str
            and type(self) is ABNF
        ):
            return codec.encode_frame(self.opcode, data, key=os.urandom(MASK_KEY_SIZE))
        return their_format(self)

    their_validate: Callable[[Any], bool] = vars(_utils)["_validate_utf8"]

    def validate(utfbytes: Any) -> bool:
        # Like theirs, this is content with the beginning of a code point.
        if type(utfbytes) is bytes:
            return codec.Utf8Validator().feed(utfbytes)
        return their_validate(utfbytes)

    if codec.implementation == "c" or not hasattr(_abnf, "XorMaskerSimple"):
        to.replace(ABNF, "mask", staticmethod(mask))
        to.replace(ABNF, "format", format)
    # What `validate_utf8` calls, which other modules import by name.
    to.replace(_utils, "_validate_utf8", validate)


# An empty frame of another opcode is not worth the check, and one that breaks a rule is
# sent by websocket-client all the same.
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
