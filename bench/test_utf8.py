"""UTF-8: validated, and unmasked and decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fastws._py.masking import apply_mask

from .contenders import TEXT_DECODERS, VALIDATORS, Contender, repeats
from .payloads import KEY, SIZES, TEXTS, payload

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("who", VALIDATORS, ids=str)
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("size", SIZES[:-1])
def test_validate(made: Callable, measure: Callable, who: Contender, kind: str, size: int) -> None:
    call = made(who, payload(kind, size))
    result = measure("validate", who, call, messages=repeats(size), size=size, kind=kind)
    # websocket-client's does not report whether the text may end here.
    assert result is True
    assert not made(who, b"\xff")() if who.name != "bytes.decode" else True


@pytest.mark.parametrize("who", TEXT_DECODERS, ids=str)
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("size", SIZES[:-1])
def test_decode_text(
    made: Callable, measure: Callable, who: Contender, kind: str, size: int
) -> None:
    data = payload(kind, size)
    call = made(who, apply_mask(data, KEY))
    result = measure("decode text", who, call, messages=repeats(size), size=size, kind=kind)
    assert result == data.decode()
