"""Tests of international host names, with the library idna and without it."""

from __future__ import annotations

import sys

import pytest

from fastws import InvalidURIError
from fastws.uri import parse_uri


@pytest.mark.parametrize(
    ("name", "host"),
    [
        # What the URL class of browsers and Node makes of them.
        ("B\u00fccher.example", "xn--bcher-kva.example"),
        ("fa\u00df.example", "xn--fa-hia.example"),
        ("\u03b2\u03cc\u03bb\u03bf\u03c2.example", "xn--nxasmm1c.example"),
        ("\u2603.example", "xn--n3h.example"),
        ("\U0001f4a9.example", "xn--ls8h.example"),
        ("\u65e5\u672c\u8a9e\u3002\uff2a\uff30", "xn--wgv71a119e.jp"),
        ("\u05d0\u05d1.example", "xn--4dbc.example"),
        ("a\u00adb.example", "ab.example"),
        ("a.\u05d0\u05d1.XN--4DBC", "a.xn--4dbc.xn--4dbc"),
        ("XN--zca.example", "xn--zca.example"),
        ("\ufb01.example", "fi.example"),
        ("u\u0308.xn--bcher-kva.", "xn--tda.xn--bcher-kva."),
        ("\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.example", "xn--mgba3gch31f060k.example"),
    ],
)
def test_international_hosts(name: str, host: str) -> None:
    assert parse_uri(f"ws://{name}:80/").host == host


@pytest.mark.parametrize(
    "name",
    [
        "a\uff0fb.example",  # a slash
        "\u0301a.example",  # begins with a combining mark
        "a\u200db.example",  # a joiner that joins nothing
        "\u0628a.\u00fc",  # right to left and left to right
        "\u00ad",  # nothing
        "\u00fc..example",
        "\ud800.example",
        "\ue000.example",  # for private use
        "0.\u05d0",  # a digit first, beside right to left
        "_.xn--4dbc",
        "xn--a",  # not Punycode
        "xn--a.\u00fc",
        "xn--abc-",  # it need not be encoded
        "xn--bcher-2pa",  # an upper-case letter
        "xn--bcher-KvA\u00fc.example" + "\u00fc" * 64,
    ],
)
def test_international_hosts_that_are_none(name: str) -> None:
    with pytest.raises(InvalidURIError):
        parse_uri(f"ws://{name}/")


def test_international_hosts_without_idna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)
    assert parse_uri("ws://B\u00fccher.example").host == "xn--bcher-kva.example"
    assert parse_uri("ws://fa\u00df.example").host == "fass.example"  # IDNA 2003
