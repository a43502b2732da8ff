"""Fuzzes messages in parts: joined, they are the messages, and the twins agree on each part.

python fuzz/streams.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common import TWINS, Input, fuzz, message_options, verdict

from fastws.deflate import Inflater, PartInflater
from fastws.events import MessagePart
from fastws.rules import join

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = (None, 1, 100, 1 << 16)


def feeds(decoder: Any, pieces: list[bytes]) -> Iterator[list[Any]]:
    """Yield the events of each call, until nothing is pending."""
    for piece in pieces:
        yield decoder.feed(piece)
        while decoder.has_pending:
            yield decoder.feed(b"")


def kind_of(event: Any) -> tuple[type, Any]:
    """An event with the type of its content, because a bytearray would equal bytes."""
    return type(event.data) if isinstance(event, MessagePart) else type(event), event


def joined(events: list[Any]) -> list[Any]:
    """Return the events with whole messages; the parts of the last one may be incomplete."""
    result, parts = [], []
    for event in events:
        if not isinstance(event, MessagePart):
            assert type(event) not in (str, bytes), event
            result.append(event)
            continue
        assert event.data or event.last, "an empty part that is not the last"
        parts.append(event.data)
        if event.last:
            result.append(join(parts))
            parts = []
    return result


def check(data: bytes) -> None:
    source = Input(data)
    options, inflater = message_options(source)
    del options["max_fragments"]  # parts need no memory
    limit = options.pop("max_message_size")
    options["step"] = source.choice(STEPS)
    pieces = source.cut()(source.rest())

    outcomes = []
    for twin in TWINS.values():
        parts = twin.MessageDecoder(
            **options, inflater=inflater(PartInflater), stream=True, max_stream_size=limit
        )
        whole = twin.MessageDecoder(
            **options, inflater=inflater(Inflater), max_message_size=limit, max_fragments=None
        )
        fed = [list(map(kind_of, events)) for events in feeds(parts, pieces)]
        expected = [event for events in feeds(whole, pieces) for event in events]
        found = joined([event for events in fed for _, event in events])
        assert list(map(kind_of, found)) == list(map(kind_of, expected)), (found, expected)
        assert verdict(parts) == verdict(whole), (verdict(parts), verdict(whole))
        outcomes.append((fed, verdict(parts)))
    for outcome in outcomes:
        assert outcome == outcomes[0]


if __name__ == "__main__":
    fuzz(check)
