"""fastws under autobahn, that is under daphne and Django Channels too.

    import fastws.integrations.autobahn

    fastws.integrations.autobahn.install()

Payloads are masked and text is validated by fastws, on Twisted and on asyncio, in servers and
clients. Without fastws autobahn has NVX for that, since 25.9 and where it was compiled, or wsaccel,
up to 24.4 and if that is installed, or else pure Python. Frames are parsed by autobahn as
before, and that is where it spends its time when messages are small.

fastws' pure-Python twin masks more slowly than compiled code. With that twin only text is
validated, unless autobahn is all Python as well.

This module knows where autobahn masks and validates. It does not know its protocols.
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
    """Let autobahn mask and validate by fastws.

    For connections that are open, that goes for masking only.

    Args:
        untested: whether to patch a version that was not tested.

    Returns:
        what undoes it.

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
