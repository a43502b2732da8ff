"""Messages in a batch, as a server and a client send them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .contenders import ENCODERS, Contender
from .payloads import SIZES, count

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("who", ENCODERS, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("role", ["server", "client"])
def test_encode(made: Callable, measure: Callable, who: Contender, role: str, size: int) -> None:
    messages = count(size)
    call = made(who, role, size)
    length = measure(f"encode {role}", who, call, messages=messages, size=size, kind="binary")
    if not who.reference:
        header = 2 if size <= 125 else 4 if size <= 0xFFFF else 10
        assert length == messages * (size + header + (4 if role == "client" else 0))
