"""Helpers to compare a host with fastws to the same host without it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"\x17\x80\xfe\x01"


def outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """Call a function; return its result, or the error it raised."""
    try:
        return "returned", function(*args)
    except Exception as exc:
        return type(exc), str(exc)


def check_maskers(ours: Any, theirs: Any, pieces: list[bytes]) -> None:
    """Mask the same pieces with both, twice, and compare."""
    for _ in range(2):
        for piece in pieces:
            masked = ours.process(piece)
            assert type(masked) is bytes
            assert masked == theirs.process(piece)
            assert ours.pointer() == theirs.pointer()
        ours.reset()
        theirs.reset()
        assert ours.pointer() == 0


def wire(
    first: int, payload: bytes = b"", *, mask: bool = True, length: int | None = None, form: int = 0
) -> bytes:
    """Write any frame, valid or not; `form` is the size of the length, by default the smallest."""
    size = len(payload) if length is None else length
    form = form or (1 if size < 126 else 2 if size < 65536 else 8)
    bit = 0x80 if mask else 0
    if form == 1:
        head = bytes([first, bit | size])
    else:
        head = bytes([first, bit | (126 if form == 2 else 127)]) + size.to_bytes(form, "big")
    if not mask:
        return head + payload
    pad = (KEY * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return head + KEY + masked.to_bytes(len(payload), "big")


@st.composite
def streams(
    draw: st.DrawFn, firsts: st.SearchStrategy[int], payloads: st.SearchStrategy[bytes], mask: bool
) -> bytes:
    """Frames with these first bytes and payloads; a few are invalid in some other way."""
    parts = []
    for _ in range(draw(st.integers(0, 8))):
        odd = draw(st.integers(0, 19))
        payload = draw(payloads)
        options: dict[str, Any] = {"mask": mask}
        if odd == 0:
            options["mask"] = not mask
        elif odd == 1:
            options["form"] = 8 if len(payload) > 65535 else draw(st.sampled_from([2, 8]))
        elif odd == 2:
            options["length"] = draw(st.sampled_from([5, 127, 70_001, 1 << 40, (1 << 64) - 1]))
        elif odd == 3:
            parts.append(draw(st.binary(max_size=20)))
        parts.append(wire(draw(firsts), payload, **options))
    return b"".join(parts)


@st.composite
def chunked(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """A stream as it may arrive: byte by byte if it is short, or in a few pieces."""
    data = draw(streams)
    if len(data) < 60 and draw(st.booleans()):
        return [data[i : i + 1] for i in range(len(data))]
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=6))
    near = draw(st.lists(st.integers(0, min(len(data), 40)), max_size=6))
    places = sorted({0, len(data), *cuts, *near})
    return [data[start:end] for start, end in pairwise(places)]
