"""Tests of the addresses of proxies, and of which one the environment names."""

from __future__ import annotations

import os

import pytest

from fastws import InvalidURIError
from fastws.tunnels import proxy_from_environment
from fastws.uri import Proxy, parse_proxy


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example", Proxy("http", "proxy.example", 80)),
        ("HTTPS://Proxy.Example/", Proxy("https", "proxy.example", 443)),
        ("https://[::1]:8443", Proxy("https", "::1", 8443)),
        ("proxy.example:3128", Proxy("http", "proxy.example", 3128)),
        ("socks4a://me@10.0.0.1", Proxy("socks4a", "10.0.0.1", 1080, "me")),
        ("socks5://me:p%40ss@x:1", Proxy("socks5", "x", 1, "me", "p@ss")),
        ("socks://x", Proxy("socks5h", "x", 1080)),
        ("http://m%C3%BCller:@x", Proxy("http", "x", 80, "müller", "")),
    ],
)
def test_addresses(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy
    assert "p@ss" not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        *("", "http://", "ftp://x", "http://x/path", "http://x?query", "http://x#fragment"),
        *("http://x:0", "http://x:65536", "http://x:y", "http://[x]", "http://x y", "http://x\r\n"),
        *("http://us%3Aer:x@y", "http://a%0d:b@y", "http://\udc80:x@y", "http://\\x@y"),
        "socks4://user:password@x",
        # SOCKS cannot send these, or python-socks does not.
        *("socks5://me:geh%C3%BCim@x", "socks4://J%C3%BCrgen@x", f"socks5h://{'u' * 256}:p@x"),
        *("socks5://me@x", "socks5h://me:@x", "socks5://:p@x", f"socks5://me:{'p' * 256}@x"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidURIError) as caught:
        parse_proxy(text)
    assert "password" not in str(caught.value).replace("user:password@", "").replace(
        "has no passwords", ""
    ).replace("user name or password", "").replace("without a password", "")


def test_the_port_is_in_the_address() -> None:
    assert parse_proxy("http://[::1]:1").address == "[::1]:1"
    assert parse_proxy("socks5://x").address == "x:1080"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    # On macOS and Windows, the system's settings do not matter if there is a variable.
    monkeypatch.setenv("no_proxy", "none.example")
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "plain", "secure"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "h"}, "http://h:80", None),
        ({"https_proxy": "s"}, "http://s:80", "http://s:80"),
        ({"http_proxy": "h", "HTTPS_PROXY": "https://s"}, "https://s:443", "https://s:443"),
        ({"ALL_PROXY": "socks4://a", "http_proxy": "h"}, "http://h:80", "socks4://a:1080"),
        ({"SOCKS_PROXY": "http://x:1", "https_proxy": "s"}, "socks5h://x:1", "socks5h://x:1"),
        ({"socks_proxy": "x"}, "socks5h://x:1080", "socks5h://x:1080"),
        ({"ws_proxy": "p", "wss_proxy": "q", "socks_proxy": "x"}, "http://p:80", "http://q:80"),
        ({"ftp_proxy": "f"}, None, None),
    ],
)
def test_which_variable_counts(
    variables: dict[str, str],
    plain: str | None,
    secure: str | None,
    environment: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    for is_secure, expected in ((False, plain), (True, secure)):
        proxy = proxy_from_environment("server.example", 80, secure=is_secure)
        assert (proxy and f"{proxy.scheme}://{proxy.address}") == expected


def test_a_mistake_in_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "ftp://user:secret@proxy.example")
    with pytest.raises(InvalidURIError, match=r"^https_proxy: proxy scheme must be ") as caught:
        proxy_from_environment("server.example", 443, secure=True)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "exceptions", "direct"),
    [
        ("server.example", "", False),
        ("server.example", "*", True),
        ("server.example", "server.example", True),
        ("server.example", "other.example, .example", True),
        ("server.example", "server.example:80", True),
        ("server.example", "server.example:81", False),
        ("server.example.", "server.example", True),
        ("server.example.", "server.example:80", True),
        ("myserver.example", "server.example", False),
        ("2001:db8::1", "2001:db8::1", True),
        ("2001:db8::1", "[2001:db8::1]:80", True),
        ("2001:db8::1", "2001:db8::2", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "other.example, 10.1.0.1/255.255.0.0 ", True),
        ("11.1.2.3", "10.0.0.0/8,x/8,10.0.0.0/33", False),
        ("server.example", "0.0.0.0/0,::/0", False),
        ("2001:db8::1", "10.0.0.0/8,2001:db8::/32", True),
        ("2001:db9::1", "2001:db8::/32,0.0.0.0/0", False),
        # Loopback addresses never have one, as in browsers.
        ("localhost", "", True),
        ("localhost.", "", True),
        ("app.localhost", "", True),
        ("127.0.0.1", "", True),
        ("127.1.2.3", "", True),
        ("::1", "", True),
        ("::ffff:127.0.0.1", "", True),
        ("notlocalhost", "", False),
        ("localhost.example", "", False),
        ("128.0.0.1", "", False),
    ],
)
def test_which_hosts_have_no_proxy(
    host: str, exceptions: str, direct: bool, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("all_proxy", "http://proxy.example")
    environment.setenv("no_proxy", exceptions)
    assert (proxy_from_environment(host, 80, secure=False) is None) is direct
