"""A server's connection that echoes without I/O, with and without compression; and the object for
its whole life, with one small message in a read and with 16."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .contenders import ECHOES, SESSIONS, Contender, compressed
from .payloads import stream

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = [16, 125, 1 << 10, 16 << 10, 1 << 20]


@pytest.mark.parametrize("who", ECHOES, ids=str)
@pytest.mark.parametrize("kind", ["binary", "ascii", "json"])
@pytest.mark.parametrize("size", SIZES)
def test_echo(made: Callable, measure: Callable, who: Contender, kind: str, size: int) -> None:
    messages = stream(kind, size)
    call = made(who, messages, False)
    length = measure("echo", who, call, messages=messages.count, size=size, kind=kind)
    assert length == len(messages.data) - 4 * messages.count


@pytest.mark.parametrize("who", ECHOES, ids=str)
@pytest.mark.parametrize("kind", ["json"])
@pytest.mark.parametrize("size", SIZES[2:])
def test_echo_deflate(
    made: Callable, measure: Callable, who: Contender, kind: str, size: int
) -> None:
    messages = compressed(kind, size)
    call = made(who, messages, True)
    length = measure("echo deflate", who, call, messages=messages.count, size=size, kind=kind)
    assert 0 < length < messages.count * size


@pytest.mark.parametrize("who", SESSIONS, ids=str)
@pytest.mark.parametrize("kind", ["binary", "ascii"])
@pytest.mark.parametrize("together", [1, 16])
def test_session(
    made: Callable, measure: Callable, who: Contender, kind: str, together: int
) -> None:
    messages = stream(kind, 32).cut(together)
    operation = "session" if together == 1 else f"session of {together}"
    call = made(who, messages)
    length = measure(operation, who, call, messages=messages.count, size=32, kind=kind)
    assert length == len(messages.data) - 4 * messages.count
