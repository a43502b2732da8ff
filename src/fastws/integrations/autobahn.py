"""fastws in autobahn, and so in daphne and Django Channels.

    import fastws.integrations.autobahn

    fastws.integrations.autobahn.install()

fastws masks payloads and validates text, on Twisted and on asyncio, in servers and clients. Without
fastws, autobahn uses NVX for that (since 25.9, if it was compiled), wsaccel (up to 24.4, if it is
installed), or pure Python. autobahn still parses the frames, and spends most of its time on that if
messages are small.

fastws's pure-Python twin masks more slowly than compiled code. With that twin, fastws only
validates text, unless autobahn is pure Python as well.

This module knows where autobahn masks and validates. It does not know autobahn's protocols.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastws import codec
from fastws.spec import MASK_KEY_SIZE

from ._hosts import HOSTS
from ._incremental import Utf8Validator, XorMasker
from ._install import Installation

HOST = HOSTS["autobahn"]

try:
    import autobahn.websocket.protocol
except ImportError as exc:
    raise HOST.missing() from exc

protocol: Any = autobahn.websocket.protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["install"]


def install(*, untested: bool = False) -> Installation:
    """Let autobahn mask and validate with fastws.

    Open connections only mask with it.

    Args:
        untested: whether to patch a version that was not tested.

    Returns:
        an object that undoes it.

    Raises:
        IntegrationError: if it does not work.
    """
    return HOST.install(_patch, _check, untested=untested)


def _patch(to: Installation) -> None:
    theirs: Callable[..., Any] = protocol.create_xor_masker

    def create_xor_masker(mask: Any, length: int | None = None) -> Any:
        if type(mask) is bytes and len(mask) == MASK_KEY_SIZE:
            return XorMasker(mask)
        return theirs(mask, length)

    if codec.implementation == "c" or theirs.__module__ == "autobahn.websocket.xormasker":
        to.replace(protocol, "create_xor_masker", create_xor_masker)
    to.replace(protocol, "Utf8Validator", Utf8Validator)


def _check() -> None:
    key, text = b"\x12\x34\x56\x78", "fastws: ä€😀".encode()
    masker = protocol.create_xor_masker(key, len(text))
    masked = masker.process(text[:5]) + masker.process(text[5:])
    if masked != codec.apply_mask(text, key) or masker.pointer() != len(text):
        raise AssertionError("create_xor_masker")
    validator = protocol.Utf8Validator()
    total = len(text)
    if [validator.validate(text), validator.validate(b"a\xe2\xff")] != [
        (True, True, total, total),
        (False, False, 2, total + 2),
    ]:
        raise AssertionError("Utf8Validator")
