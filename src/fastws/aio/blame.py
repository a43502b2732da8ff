"""Whose mistake it is when the application's code raises.

This module knows which exceptions a peer can cause. It does not know what becomes of the
connection then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastws.exceptions import ConnectionClosed, FieldError

if TYPE_CHECKING:
    from fastws.http import Request, Response

__all__ = ["blames_peer"]


def blames_peer(exc: BaseException, head: Request | Response | None, *, may_close: bool) -> bool:
    """Return whether the application raised this only because of what the peer did.

    Args:
        exc: what the application let out.
        head: the peer's request or response: the exception may say that a header field is
            missing, or repeated.
        may_close: whether the peer can have closed the connection; if so, ConnectionClosed is
            its doing.
    """
    if isinstance(exc, ExceptionGroup):
        return all(blames_peer(each, head, may_close=may_close) for each in exc.exceptions)
    if isinstance(exc, ConnectionClosed):
        return may_close
    return (
        isinstance(exc, FieldError)
        and head is not None
        and len(head.headers.get_all(exc.name)) != 1
    )
