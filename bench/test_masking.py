"""Masking, to new bytes and in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fastws._py.masking import apply_mask

from .contenders import MASKERS, MASKERS_IN_PLACE, Contender, repeats
from .payloads import KEY, SIZES, payload

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("who", MASKERS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_mask(made: Callable, measure: Callable, who: Contender, size: int) -> None:
    data = payload("binary", size)
    result = measure("mask", who, made(who, size), messages=repeats(size), size=size)
    assert bytes(result) == (data if who.reference else apply_mask(data, KEY))


@pytest.mark.parametrize("who", MASKERS_IN_PLACE, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_mask_in_place(made: Callable, measure: Callable, who: Contender, size: int) -> None:
    data = payload("binary", size)
    buffer = bytearray(data)
    call = made(who, buffer)
    seen: list[Any] = []

    def masked_first() -> None:
        call()
        if not seen:
            seen.append(bytes(buffer))

    measure("mask in place", who, masked_first, messages=repeats(size) | 1, size=size)
    if who.name != "memcpy":
        assert seen[0] == apply_mask(data, KEY)
