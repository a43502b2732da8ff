"""What wsaccel offers, for those who use that: ws4py's users, and code of their own.

    from fastws.integrations.wsaccel import Utf8Validator, XorMaskerSimple

wsaccel need not be installed, and nothing is patched. The names, results and indices are
wsaccel's, those of an invalid byte included. Not there are the single steps of wsaccel's
automaton: `Utf8Validator.decode`, `.state`, `.codepoint` and `.i`.

ws4py (0.6) has the two names in places of its own:

    ws4py.streaming.Utf8Validator = Utf8Validator
    ws4py.framing.Frame.mask = ws4py.framing.Frame.unmask = lambda self, data: (
        XorMaskerSimple(self.masking_key).process(data) if self.masking_key else data
    )

autobahn and websocket-client have integrations of their own.

This module knows wsaccel's names. It does not know how bytes are masked or validated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ._incremental import Utf8Validator, XorMasker

if TYPE_CHECKING:
    from collections.abc import Sized

    from typing_extensions import Buffer

__all__ = ["Utf8Validator", "XorMaskerNull", "XorMaskerSimple", "createXorMasker"]

_SizedT = TypeVar("_SizedT", bound="Sized")


class XorMaskerSimple(XorMasker):
    __doc__ = XorMasker.__doc__
    __slots__ = ()


class XorMaskerNull:
    """Counts the bytes of a payload that is not masked."""

    __slots__ = ("_position",)

    def __init__(self, mask: object = None) -> None:
        self._position = 0

    def pointer(self) -> int:
        """Return how many bytes were processed."""
        return self._position

    def reset(self) -> None:
        """Begin with a new payload."""
        self._position = 0

    def process(self, data: _SizedT) -> _SizedT:
        """Return `data` itself."""
        self._position += len(data)
        return data


def createXorMasker(mask: Buffer, len: int | None = None) -> XorMaskerSimple:  # noqa: A002, N802
    """Return an `XorMaskerSimple`; how long the payload is does not matter."""
    return XorMaskerSimple(mask)
