"""The two classes of wsaccel and ours, compared to each other."""

from __future__ import annotations

import subprocess
import sys
from array import array

import pytest
import wsaccel.utf8validator
import wsaccel.xormask
from hypothesis import given
from hypothesis import strategies as st

from fastws.integrations import wsaccel as ours

from .comparing import check_maskers

KEY = b"\x12\x34\x56\x78"

# Bytes at the boundaries of UTF-8's ranges, so that most of the data is nearly valid.
EDGES = b"\x00a\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xef\xf0\xf1\xf4\xf5\xff"
octets = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from(EDGES), max_size=12).map(bytes),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
pieces = st.lists(octets, max_size=8)


@given(pieces)
def test_validates_alike(chunks: list[bytes]) -> None:
    their, our = wsaccel.utf8validator.Utf8Validator(), ours.Utf8Validator()
    for chunk in chunks:
        assert our.validate(chunk) == their.validate(chunk)


@given(st.text(max_size=30), octets, st.data())
def test_validates_alike_however_it_is_cut(text: str, noise: bytes, data: st.DataObject) -> None:
    whole = text.encode("utf-8", "replace") + noise + text.encode("utf-8", "replace")
    their, our = wsaccel.utf8validator.Utf8Validator(), ours.Utf8Validator()
    at = 0
    while at < len(whole):
        size = data.draw(st.integers(1, 4))
        assert our.validate(whole[at : at + size]) == their.validate(whole[at : at + size])
        at += size
    our.reset()
    their.reset()
    assert our.validate(whole) == their.validate(whole)


def test_validates_every_two_and_three_bytes_at_the_edges() -> None:
    for first in EDGES:
        for second in EDGES:
            for third in EDGES:
                both = [wsaccel.utf8validator.Utf8Validator(), ours.Utf8Validator()]
                at_once = bytes((first, second, third))
                assert both[0].validate(at_once) == both[1].validate(at_once)
                for one in both:
                    one.reset()
                for byte in at_once:
                    assert both[0].validate(bytes((byte,))) == both[1].validate(bytes((byte,)))


@pytest.mark.parametrize("size", [10, 100_000])
def test_tells_the_index_in_a_large_piece(size: int) -> None:
    their, our = wsaccel.utf8validator.Utf8Validator(), ours.Utf8Validator()
    for chunk in ("ä€😀".encode() * size + b"\xf0\x9f", b"\x98x" + b"a" * size, b"a"):
        assert our.validate(chunk) == their.validate(chunk)


def test_goes_on_after_an_error_as_wsaccel_does() -> None:
    their, our = wsaccel.utf8validator.Utf8Validator(), ours.Utf8Validator()
    for chunk in (b"abc", b"x\xff", b"", b"abc", b"\xff", b""):
        assert our.validate(chunk) == their.validate(chunk)


@pytest.mark.parametrize(
    "wrap",
    [bytearray, memoryview, lambda data: array("B", data), lambda data: memoryview(data * 2)[::2]],
    ids=["bytearray", "memoryview", "array", "strided"],
)
def test_takes_what_wsaccel_takes(wrap: object) -> None:
    data = wrap("aäbö\xff€".encode() + b"\xe2\x82")
    for their, our in (
        (wsaccel.utf8validator.Utf8Validator().validate, ours.Utf8Validator().validate),
        (wsaccel.xormask.XorMaskerSimple(KEY).process, ours.XorMaskerSimple(KEY).process),
    ):
        assert our(data) == their(data)
        assert our(data) == their(data)
    masked = [module.XorMaskerSimple(wrap(KEY)[:4]) for module in (wsaccel.xormask, ours)]
    assert masked[0].process(b"abcde") == masked[1].process(b"abcde")


def test_counts_bytes_and_not_items() -> None:
    words = array("I", [0x41414141, 0x41414141])
    assert ours.Utf8Validator().validate(words) == (True, True, 8, 8)


@given(st.binary(min_size=4, max_size=4), st.lists(st.binary(max_size=70), max_size=6))
def test_masks_alike(key: bytes, chunks: list[bytes]) -> None:
    check_maskers(ours.XorMaskerSimple(key), wsaccel.xormask.XorMaskerSimple(key), chunks)


def test_null_masker() -> None:
    for module in (wsaccel.xormask, ours):
        masker = module.XorMaskerNull(KEY)
        data = bytearray(b"abc")
        assert masker.process(data) is data
        assert masker.process("de") == "de"
        assert masker.pointer() == 5
        masker.reset()
        assert masker.pointer() == 0
        with pytest.raises(TypeError):
            masker.process(5)


def test_creates_a_masker() -> None:
    for module in (wsaccel.xormask, ours):
        for masker in (module.createXorMasker(KEY), module.createXorMasker(KEY, len=5)):
            assert type(masker) is module.XorMaskerSimple
            assert masker.process(b"\0" * 5) == KEY + KEY[:1]


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde", bytearray(b"abcde")])
def test_refuses_a_key_of_another_length(key: bytes) -> None:
    for module in (wsaccel.xormask, ours):
        with pytest.raises(ValueError, match=r"^mask should be 4byte\.$"):
            module.XorMaskerSimple(key)


def test_refuses_what_is_not_bytes_like() -> None:
    for module in (wsaccel.xormask, ours):
        with pytest.raises(TypeError, match="bytes-like"):
            module.XorMaskerSimple("abcd")
        with pytest.raises(TypeError, match="bytes-like"):
            module.XorMaskerSimple(KEY).process("abcd")
    for module in (wsaccel.utf8validator, ours):
        with pytest.raises(TypeError, match="bytes-like"):
            module.Utf8Validator().validate("abcd")


def test_has_every_name_of_wsaccel() -> None:
    def public(thing: object) -> set[str]:
        return {name for name in dir(thing) if not name.startswith("_")}

    assert public(wsaccel.xormask) <= public(ours)
    missing = public(wsaccel.utf8validator.Utf8Validator) - public(ours.Utf8Validator)
    # The docstring says so.
    assert missing == {"UTF8_ACCEPT", "UTF8_REJECT", "codepoint", "decode", "i", "state"}


def test_does_not_import_wsaccel() -> None:
    script = (
        "import sys; sys.modules['wsaccel'] = None\n"
        "from fastws.integrations.wsaccel import XorMaskerSimple, Utf8Validator"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
