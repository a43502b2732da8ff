"""Fuzzes the twins of MessageDecoder against each other, compressed messages included.

python fuzz/differential.py [libFuzzer's options] [corpus]
"""

from __future__ import annotations

import sys

from common import TWINS, Input, fuzz, message_options, typed, verdict


def check(data: bytes) -> None:
    source = Input(data)
    options, inflater = message_options(source)
    cut = source.cut()
    decoders = {
        name: twin.MessageDecoder(**options, inflater=inflater()) for name, twin in TWINS.items()
    }
    for number, piece in enumerate(cut(source.rest())):
        results = {
            name: (typed(decoder.feed(piece)), verdict(decoder))
            for name, decoder in decoders.items()
        }
        assert all(result == results["py"] for result in results.values()), (number, results)


if __name__ == "__main__":
    if "c" not in TWINS:
        sys.exit("fastws._c is not compiled: there are no twins to compare")
    fuzz(check)
