"""Node's `URL`, which is that of browsers, against ours: what a host or an http:// URL is."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastws import InvalidURIError
from fastws.uri import parse_uri

from ..tools import optional, require, run

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = """
const read = (text) => {
  try {
    const url = new URL(text);
    const port = url.port || {"https:": "443", "wss:": "443"}[url.protocol] || "80";
    const credentials = [url.username, url.password];
    return [url.hostname, Number(port), url.pathname + url.search, ...credentials];
  } catch { return null; }
};
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(texts.map(read)));
"""


@pytest.fixture(scope="module")
def node() -> str:
    optional("idna")
    return require("node", "nodejs", install="install Node.js 18 or newer, from nodejs.org")


# (Node and idna may know different versions of Unicode; and of a name with letters that are written
# from right to left, Node checks each label alone.)
TEXTS = st.text(st.characters(max_codepoint=0x17F), max_size=3)
LABELS = st.one_of(
    st.sampled_from(
        ["0", "00", "0x", "0X1f", "1", "09", "010", "255", "256", "65536", "4294967295"]
    ),
    st.sampled_from(
        ["a", "A-", "_b", "xn--bcher-kva", "XN--zca", "xn--a", "xn--\u00fc", "", "%41"]
    ),
    st.sampled_from(["\u00df", "B\u00fccher", "\u03c2", "\u2603", "\uff11", "\u200d"]),
    st.sampled_from(["%C3%BC", "%ff", "%2e", "%00", "\u00ad", "\u0301", "a b", "\u212b"]),
    TEXTS,
)
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)
WORDS = st.integers(0, 0x1_FFFF).map("{:x}".format)
GROUPS = st.one_of(st.just("0"), st.just(""), WORDS, st.just("1.2.3.4"))
HOSTS = st.one_of(
    NAMES,
    st.lists(GROUPS, min_size=2, max_size=9).map(lambda groups: f"[{':'.join(groups)}]"),
)
SEGMENTS = st.one_of(
    st.sampled_from(
        [".", "..", "%2e", ".%2E", "...", "a", "", "%zz", "|[]", "\u00fc", "?", "\t", "'"]
    ),
    TEXTS,
)
PATHS = st.lists(st.tuples(st.sampled_from("//\\"), SEGMENTS), max_size=6).map(
    lambda parts: "".join(slash + segment for slash, segment in parts)
)
URLS = st.tuples(
    st.sampled_from(["http:", "https://", "HTTP:/", "http:\\\\", " https:///", "ht\ntp://"]),
    st.sampled_from(["", "", "u@", "u:p@", "a@b:c:d@", "@", "%40:\u00fc@", "u p:|@"]),
    HOSTS,
    st.sampled_from(["", "", ":", ":80", ":443", ":0080", ":65536", ":1", ":x"]),
    PATHS,
).map("".join)
WS_URIS = HOSTS.map("ws://{}/".format)


def browser(node: str, texts: list[str]) -> Iterator[list[str | int] | None]:
    """Yield what Node makes of each URL."""
    result = run(node, "-e", SCRIPT, input=json.dumps(texts))
    assert result.returncode == 0, result.stderr
    yield from json.loads(result.stdout)


def may_refuse(url: list[str | int]) -> bool:
    """Whether fastws refuses what a browser accepts: see docs/reference/uris.md."""
    host, port, _, *credentials = map(str, url)
    labels = host.removesuffix(".").split(".")
    is_host = host[0] == "[" or re.fullmatch(r"[a-z0-9._-]+", host)
    if port == "0" or not is_host or len(host) > 253 or "" in labels:
        return True
    if max(map(len, labels)) > 63 or any(re.fullmatch(r"xn--[a-z0-9-]+-", one) for one in labels):
        return True
    try:
        user, password = (unquote(text, errors="strict") for text in credentials)
    except UnicodeDecodeError:
        return True
    return ":" in user or re.search(r"[\x00-\x1f\x7f-\x9f]", user + password) is not None


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(st.one_of(URLS, WS_URIS), min_size=200, max_size=200))
def test_hosts_and_urls(node: str, texts: list[str]) -> None:
    for text, theirs in zip(texts, browser(node, texts), strict=True):
        is_url = not text.startswith("ws")
        try:
            uri = parse_uri(text)
        except InvalidURIError:
            if is_url and "#" not in text:
                assert theirs is None or may_refuse(theirs), text
            continue
        assert theirs is not None, text
        assert [uri.host, uri.port] == [str(theirs[0]).strip("[]"), theirs[1]], text
        if is_url:
            # (^ is encoded since 2024.)
            assert uri.target.replace("%5E", "^") == str(theirs[2]).replace("%5E", "^"), text
            credentials = [uri.username or "", uri.password or ""]
            assert credentials == [unquote(str(one)) for one in theirs[3:]], text
