"""Fuzzes MessageDecoder: for any input, the output is in order and within limits.

python fuzz/decoder.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

from common import TWINS, Input, fuzz, message_options, size_of, typed, verdict

from fastws.events import Close, Ping, Pong, Text


def check(data: bytes) -> None:
    source = Input(data)
    options, inflater = message_options(source)
    cut = source.cut()
    stream = source.rest()
    limit = options["max_message_size"]

    for twin in TWINS.values():
        decoder = twin.MessageDecoder(**options, inflater=inflater())
        events = []
        for piece in cut(stream):
            ended = decoder.error is not None or Close in map(type, events)
            new = decoder.feed(piece)
            assert not (ended and new), "events after the end"
            events += typed(new)
        # A close frame is the last event, and no error follows it.
        closes = [number for number, (kind, _) in enumerate(events, 1) if kind is Close]
        assert closes in ([], [len(events)]), events
        assert not (closes and decoder.error), decoder.error

        sizes = [size_of(event) for _, event in events]
        for (kind, _), size in zip(events, sizes, strict=True):
            if kind in (bytes, str if options["decode_text"] else Text):
                assert limit is None or size <= limit
            else:
                assert size <= 125
                assert kind in (Ping, Pong, Close)
        end = verdict(decoder)
        # A failed decoder stays failed, and releases its data.
        if end is not None:
            assert decoder.feed(b"\x81\x00" + stream) == []
            assert verdict(decoder) == end

        if inflater() is None:
            assert sum(sizes) <= len(stream)
            # However the stream is split, the outcome is the same.
            whole = twin.MessageDecoder(**options)
            assert typed(whole.feed(stream)) == events
            assert verdict(whole) == end


if __name__ == "__main__":
    fuzz(check)
