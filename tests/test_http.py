"""Headers, Request and Response as values."""

from __future__ import annotations

import pickle
import re
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws import ClientHandshake, ServerHandshake
from fastws.exceptions import FieldError, MissingFieldError
from fastws.http import Headers, Request, Response, is_token

SEVERAL = Headers([("Host", "a"), ("Set-Cookie", "x"), ("set-cookie", "y")])


@pytest.mark.parametrize("text", ["a", "GET", "permessage-deflate", "!#$%&'*+-.^_`|~09azAZ"])
def test_token(text: str) -> None:
    assert is_token(text)


@pytest.mark.parametrize("text", ["", " ", "a b", "a\n", "a,b", "a;b", "a=b", '"a"', "é", "a\0"])
def test_no_token(text: str) -> None:
    assert not is_token(text)


# Headers -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        [("Host", "a"), ("X-Y", "b")],
        (pair for pair in [("Host", "a"), ("X-Y", "b")]),
        {"Host": "a", "X-Y": "b"},
        Headers([("Host", "a"), ("X-Y", "b")]),
    ],
    ids=["list", "generator", "mapping", "headers"],
)
def test_headers_are_built_from(fields) -> None:
    headers = Headers(fields)
    assert headers.items() == (("Host", "a"), ("X-Y", "b"))
    assert headers["hOST"] == "a"
    assert headers["x-y"] == "b"


def test_headers_without_fields() -> None:
    headers = Headers()
    assert len(headers) == 0
    assert not headers
    assert list(headers) == []
    assert headers.tokens("A") == []


def test_headers_of_one_name() -> None:
    assert SEVERAL.get_all("SET-COOKIE") == ["x", "y"]
    assert SEVERAL.get_all("nothing") == []
    assert list(SEVERAL) == ["Host", "Set-Cookie", "set-cookie"]
    assert len(SEVERAL) == 3


@pytest.mark.parametrize("look_up", [Headers.__getitem__, Headers.get])
def test_one_of_several_is_not_guessed(look_up) -> None:
    with pytest.raises(FieldError, match="2 header fields named Set-Cookie") as caught:
        look_up(SEVERAL, "Set-Cookie")
    assert isinstance(caught.value, LookupError)
    assert not isinstance(caught.value, KeyError)
    assert (caught.value.name, caught.value.count) == ("Set-Cookie", 2)


def test_missing() -> None:
    with pytest.raises(KeyError, match=r"^no header field named Origin$") as caught:
        SEVERAL["Origin"]
    assert type(caught.value) is MissingFieldError
    assert SEVERAL.get("Origin") is None
    assert SEVERAL.get("Origin", "null") == "null"
    assert SEVERAL.get("host", "null") == "a"


def test_get_all_hands_out_a_copy() -> None:
    SEVERAL.get_all("Host").append("b")
    assert SEVERAL["Host"] == "a"


def test_contains() -> None:
    assert "HOST" in SEVERAL
    assert "Origin" not in SEVERAL
    assert 1 not in SEVERAL


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        (["a"], ["a"]),
        (["a, b"], ["a", "b"]),
        (["a,b", "c"], ["a", "b", "c"]),
        (["a ,\tb\t,"], ["a", "b"]),
        ([", ,,"], []),
        ([""], []),
        ([], []),
        (["keep-alive, Upgrade"], ["keep-alive", "Upgrade"]),
    ],
)
def test_tokens(values: list[str], tokens: list[str]) -> None:
    assert Headers([("List", value) for value in values]).tokens("list") == tokens


def test_whitespace_around_a_value_is_no_part_of_it() -> None:
    assert Headers({"A": " \tb c\t "})["A"] == "b c"


def test_values_may_hold_what_is_met_in_the_wild() -> None:
    value = "\x01 \t \x7f \x85\xa0 \xff"
    assert Headers({"Cookie": value})["Cookie"] == value


@pytest.mark.parametrize("name", ["", " ", "A ", "A:", "A\r\nB", "A\n", "A\0", "é", "A B", "(A)"])
def test_bad_name(name: str) -> None:
    with pytest.raises(ValueError, match="invalid header field name"):
        Headers([(name, "x")])


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nb", "a\rb", "\0", "a\x0bb", "a\x0cb", "\u0100"])
def test_bad_value(value: str) -> None:
    with pytest.raises(ValueError, match="invalid value of header field"):
        Headers([("A", value)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"X": 5}, "header field value must be a str, not 'int'"),
        ({"X": None}, "header field value must be a str, not 'NoneType'"),
        ([("X", b"y")], "header field value must be a str, not 'bytes'"),
        ([("X", ["y", "z"])], "header field value must be a str, not 'list'"),
        ({5: "x"}, "header field name must be a str, not 'int'"),
        ([(b"X", b"y")], "header field name must be a str, not 'bytes'"),
        (5, "header fields must be a mapping or pairs, not 'int'"),
        (None, "header fields must be a mapping or pairs, not 'NoneType'"),
        ("X: y", "header fields must be a mapping or pairs, not 'str'"),
        (b"X: y", "header fields must be a mapping or pairs, not 'bytes'"),
        (["XY"], "header field must be a pair of name and value, not 'str'"),
        (["X: y"], "header field must be a pair of name and value, not 'str'"),
    ],
)
def test_fields_of_another_type(fields, message: str) -> None:
    for make in (
        Headers,
        lambda fields: SEVERAL | fields,
        lambda fields: Response(200, fields),
        lambda fields: Response.text("x", headers=fields),
        lambda fields: Response.html("x", headers=fields),
        lambda fields: ServerHandshake(headers=fields),
        lambda fields: ClientHandshake("ws://h", headers=fields),
    ):
        with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
            make(fields)


@pytest.mark.parametrize("fields", [[("X",)], [("X", "y", "z")], [()]])
def test_fields_that_are_no_pairs(fields) -> None:
    with pytest.raises(ValueError, match="unpack"):
        Headers(fields)


def test_merging_replaces_names_and_keeps_the_rest() -> None:
    merged = SEVERAL | {"SET-COOKIE": "z", "New": "n"}
    assert merged.items() == (("Host", "a"), ("SET-COOKIE", "z"), ("New", "n"))
    assert SEVERAL["Host"] == "a"
    assert SEVERAL | () == SEVERAL
    assert (Headers({"A": "1"}) | [("a", "2"), ("a", "3")]).get_all("A") == ["2", "3"]


def test_equality() -> None:
    same = Headers([("set-cookie", "x"), ("HOST", "a"), ("Set-Cookie", "y")])
    assert same == SEVERAL
    assert hash(same) == hash(SEVERAL)
    assert Headers([("Set-Cookie", "y"), ("Host", "a"), ("Set-Cookie", "x")]) != SEVERAL
    assert Headers({"A": "b"}) != {"A": "b"}


def test_repr_makes_it_again() -> None:
    assert eval(repr(SEVERAL)) == SEVERAL


@given(
    st.lists(
        st.tuples(st.from_regex(r"[a-zA-Z-]{1,3}", fullmatch=True), st.text("a ,\t", max_size=4))
    )
)
def test_headers_hold_together(pairs: list[tuple[str, str]]) -> None:
    headers = Headers(pairs)
    assert len(headers) == len(pairs) == len(list(headers))
    assert Headers(headers.items()) == headers
    for name in headers:
        assert name in headers
        assert headers.get_all(name.swapcase()) == headers.get_all(name) != []


# Request -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a%2Fb/../c", "/a%2Fb/../c", ""),
        ("/a?b=c&d", "/a", "b=c&d"),
        ("/a?b?c", "/a", "b?c"),
        ("/?", "/", ""),
        ("http://a", "/", ""),
        ("http://a/b?c", "/b", "c"),
        ("ws://a?c/d", "/", "c/d"),
        ("a:80", "a:80", ""),
        ("*", "*", ""),
    ],
)
def test_target(target: str, path: str, query: str) -> None:
    request = Request("GET", target, Headers())
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    ("fields", "is_websocket"),
    [
        ([("Upgrade", "websocket")], True),
        ([("upgrade", "WebSocket")], True),
        ([("Upgrade", "h2c, WEBSOCKET")], True),
        ([("Upgrade", "h2c"), ("Upgrade", "websocket")], True),
        ([("Upgrade", "websockets")], False),
        ([("Upgrade", "web socket")], False),
        ([("Connection", "websocket")], False),
        ([], False),
    ],
)
def test_is_websocket(fields: list[tuple[str, str]], is_websocket: bool) -> None:
    assert Request("GET", "/", Headers(fields)).is_websocket is is_websocket


# Response ----------------------------------------------------------------------


def test_response_in_one_line() -> None:
    assert Response.text("ü\n") == Response(
        200, [("Content-Type", "text/plain; charset=utf-8")], "ü\n".encode()
    )
    assert Response.html("<p>", status=404, headers={"X": "y"}) == Response(
        404, {"content-type": "text/html; charset=utf-8", "x": "y"}, b"<p>"
    )
    assert Response.text("{}", headers={"content-type": "application/json"}).headers.items() == (
        ("content-type", "application/json"),
    )


def test_response_defaults() -> None:
    response = Response(204)
    assert (response.headers, response.body, response.reason) == (Headers(), b"", "")


def test_response_holds_plain_values() -> None:
    response = Response(HTTPStatus.NOT_FOUND, body=bytearray(b"x"))
    assert type(response.status) is int
    assert type(response.body) is bytes


@pytest.mark.parametrize("status", [-1, 0, 99, 1000])
def test_bad_status(status: int) -> None:
    with pytest.raises(ValueError, match="status must be 100 to 999"):
        Response(status)


@pytest.mark.parametrize(
    "options",
    [
        {"status": "200"},
        {"status": 200.0},
        {"status": None},
        {"body": "text"},
        {"body": 5},
        {"body": None},
        {"reason": b"OK"},
        {"reason": None},
    ],
)
def test_parts_of_a_response_of_another_type(options) -> None:
    with pytest.raises(TypeError):
        Response(**{"status": 200} | options)


@pytest.mark.parametrize("reason", ["OK\r\nSet-Cookie: x", "\n", "\0", "\u0100"])
def test_bad_reason(reason: str) -> None:
    with pytest.raises(ValueError, match="invalid reason phrase"):
        Response(200, reason=reason)


@pytest.mark.parametrize("value", [SEVERAL, Request("GET", "/", SEVERAL), Response(200, SEVERAL)])
def test_values_are_values(value: object) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    assert hash(value) == hash(pickle.loads(pickle.dumps(value)))


@pytest.mark.parametrize("value", [Request("GET", "/", SEVERAL), Response(200, SEVERAL)])
def test_values_are_frozen(value: object) -> None:
    with pytest.raises(AttributeError):
        value.headers = Headers()


def test_values_match_patterns() -> None:
    match Response(404, body=b"x"):
        case Response(status, _, body):
            assert (status, body) == (404, b"x")
    match Request("GET", "/x", SEVERAL):
        case Request(method, target):
            assert (method, target) == ("GET", "/x")


@pytest.mark.parametrize(
    "fields",
    [[], [("A", "")], [("A", "b:c"), ("a", "\xe9 \t:"), ("Cookie", "x=1; y"), ("A", "\x01")]],
)
def test_packed_headers_are_the_same(fields):
    headers, packed = Headers(fields), Headers(fields)
    for _ in range(2):  # any access unpacks them
        packed._pack()
        packed._pack()
        assert packed == headers
        assert hash(packed) == hash(headers)
        packed._pack()
        assert packed.items() == headers.items()
        packed._pack()
        assert [packed.get_all(name) for name in headers] == [headers.get_all(n) for n in headers]
        packed._pack()
        assert (list(packed), len(packed), repr(packed)) == (
            list(headers),
            len(headers),
            repr(headers),
        )
        packed._pack()
        assert Headers(packed) == headers
        packed._pack()
        assert packed | {"B": "c"} == headers | {"B": "c"}


class PackedMeanwhile(Headers):
    """Headers that another thread packs as soon as anybody has looked at the fields."""

    @property
    def _pairs(self):
        pairs = Headers._pairs.__get__(self)
        if pairs is not None:
            self._lines = "\r\n".join([f"{name}:{value}" for name, value in pairs])
            self._by_name = self._pairs = None
        return pairs

    @_pairs.setter
    def _pairs(self, pairs):
        Headers._pairs.__set__(self, pairs)


@pytest.mark.parametrize("look", [lambda headers: headers["a"], lambda headers: headers.items()])
def test_headers_are_read_while_another_thread_packs_them(look):
    fields = [("A", "b"), ("C", "d")]
    assert look(PackedMeanwhile(fields)) == look(Headers(fields))
