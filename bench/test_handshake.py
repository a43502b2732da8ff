"""A server's opening handshake, from a browser's request to the response."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .contenders import HANDSHAKES, Contender

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("who", HANDSHAKES, ids=str)
def test_handshake(made: Callable, measure: Callable, who: Contender) -> None:
    response = measure("handshake", who, made(who), messages=1, size=0)
    assert response.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in response
