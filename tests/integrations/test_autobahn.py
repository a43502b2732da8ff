"""autobahn and daphne with fastws: they do the same as without, to the last byte."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from autobahn.websocket import protocol
from hypothesis import given
from hypothesis import strategies as st

from fastws import codec, integrations
from fastws.integrations import autobahn

from .comparing import check_maskers, outcome
from .serving import BODY, CLOSE, FIN, TALKS, TEXT, Talk, converse, frame, serving

KEY = b"\x12\x34\x56\x78"


@pytest.fixture
def installed():
    with autobahn.install() as installation:
        yield installation


def test_installs_and_uninstalls() -> None:
    stock = protocol.create_xor_masker, protocol.Utf8Validator
    with autobahn.install() as installation:
        assert integrations.installed() == ["autobahn"]
        assert autobahn.install() is installation
        assert protocol.Utf8Validator is not stock[1]
        if codec.implementation == "c":
            assert protocol.create_xor_masker is not stock[0]
    assert (protocol.create_xor_masker, protocol.Utf8Validator) == stock


def test_leaves_the_compiled_masker_to_those_without_ours(installed) -> None:
    ours = protocol.create_xor_masker.__module__ == autobahn.__name__
    assert ours is (codec.implementation == "c" or not protocol_is_compiled())


def protocol_is_compiled() -> bool:
    from autobahn.websocket import xormasker

    return xormasker.create_xor_masker.__module__ != xormasker.__name__


@given(
    st.binary(min_size=4, max_size=4),
    st.lists(st.binary(max_size=200), max_size=5),
    st.sampled_from([None, 1, 127, 128, 100_000]),
)
def test_masks_alike(key: bytes, pieces: list[bytes], length: int | None) -> None:
    theirs = protocol.create_xor_masker(key, length)
    with autobahn.install():
        ours = protocol.create_xor_masker(key, length)
    check_maskers(ours, theirs, pieces)


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde", bytearray(KEY), "abcd", None])
def test_takes_odd_keys_alike(key: object) -> None:
    def mask():
        return protocol.create_xor_masker(key, 5).process(b"abcde")

    theirs = outcome(mask)
    with autobahn.install():
        assert outcome(mask) == theirs


@given(st.lists(st.one_of(st.binary(max_size=9), st.text(max_size=9).map(str.encode)), max_size=5))
def test_validates_alike(pieces: list[bytes]) -> None:
    theirs = protocol.Utf8Validator()
    with autobahn.install():
        ours = protocol.Utf8Validator()
    for _ in range(2):
        for piece in pieces:
            valid, *rest = theirs.validate(piece)
            assert ours.validate(piece) == (valid, *rest)
            if not valid:  # then autobahn asks no more
                break
        ours.reset()
        theirs.reset()


# Servers, as processes ------------------------------------------------------------------


@pytest.fixture(scope="module", params=["autobahn_asyncio", "autobahn_twisted", "daphne"])
def servers(request):
    """The ports of an unmodified server, and of one with fastws."""
    with serving(request.param) as stock, serving(request.param, "autobahn") as ours:
        yield stock, ours


@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.name)
def test_talks_alike(servers, talk: Talk) -> None:
    stock, ours = servers
    assert converse(ours, talk) == converse(stock, talk)


def test_echoes(servers) -> None:
    _, ours = servers
    _, received = converse(ours, Talk("echo", [frame(FIN | TEXT, BODY)], 1))
    assert received == [(FIN | TEXT, BODY), (FIN | CLOSE, b"\x03\xe8")]


def test_tells_where_text_is_invalid() -> None:
    with serving("autobahn_twisted", "autobahn") as port:
        pieces = [frame(TEXT, b"\xe2\x82"), frame(FIN | 0, b"\xac" + b"a" * 70_000 + b"\xff")]
        _, received = converse(port, Talk("invalid", pieces))
    ((first, payload),) = received
    assert first == FIN | CLOSE
    assert payload[:2] == (1007).to_bytes(2, "big")
    assert b"at payload octet index 70003" in payload


@pytest.mark.parametrize("nvx", ["0", "1"])
def test_client(nvx: str) -> None:
    """A client of autobahn, with and without NVX, sends and receives with fastws."""
    with serving("autobahn_asyncio", "autobahn") as port:
        script = os.path.join(os.path.dirname(__file__), "servers", "autobahn_client.py")
        subprocess.run(
            [sys.executable, script, str(port), "autobahn"],
            check=True,
            timeout=20,
            env=os.environ | {"AUTOBAHN_USE_NVX": nvx},
        )
