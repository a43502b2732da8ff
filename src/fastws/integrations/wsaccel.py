"""A replacement for wsaccel, for users of ws4py and for code that imports wsaccel.

    from fastws.integrations.wsaccel import Utf8Validator, XorMaskerSimple

wsaccel need not be installed, and nothing is patched. The names and results are those of wsaccel,
including the index of an invalid byte. The single steps of wsaccel's automaton are missing:
`Utf8Validator.decode`, `.state`, `.codepoint` and `.i`.

ws4py (0.6) uses its own names for the two:

    ws4py.streaming.Utf8Validator = Utf8Validator
    ws4py.framing.Frame.mask = ws4py.framing.Frame.unmask = lambda self, data: (
        XorMaskerSimple(self.masking_key).process(data) if self.masking_key else data
    )

fastws has other integrations for autobahn and websocket-client.

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
    """Return an `XorMaskerSimple`. The length of the payload is ignored."""
    return XorMaskerSimple(mask)
