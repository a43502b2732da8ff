"""The opening handshake of a server and of a client: what each decides, without a transport."""

from __future__ import annotations

import re
from concurrent.futures import Future

import pytest

from fastws import (
    URI,
    Accept,
    ClientHandshake,
    ConnectionClosed,
    FieldError,
    HandshakeError,
    PerMessageDeflate,
    RequestError,
    Response,
    ResponseError,
    Role,
    ServerHandshake,
    heads,
)
from fastws.aio.opening import (
    ClientOpeningHandshake,
    Failed,
    Opened,
    Refused,
    ServerOpeningHandshake,
    Undecided,
)

from ..wire import OFFER, upgrade_request

REQUEST = upgrade_request()
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
NO = Response.text("no", 403)


@pytest.fixture(params=["usual", "h11"], scope="module", autouse=True)
def parser(request):
    """Read usual heads as they usually are, and leave all to h11: there is no difference."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "h11":
            for reader in (heads.RequestReader, heads.ResponseReader):
                patch.setattr(reader, "_USUAL", re.compile(rb"(?!)"))
        yield


def server(process_request=None, **options):
    return ServerOpeningHandshake(ServerHandshake(**options), process_request)


def asking(*, answer=None, error=None):
    """A server's opening that has read its request, and the application's answer to it."""
    opening = server(lambda _: pending())
    decision = opening.receive_data(REQUEST)
    assert isinstance(decision, Undecided)
    decision.answer.close()
    future = Future()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)
    opening.wait_for(future)
    return opening


async def pending():
    """What a coroutine function that is called returns."""


def status(decision):
    return int(decision.octets.split()[1])


def body(decision):
    return decision.octets.partition(b"\r\n\r\n")[2]


def is_clean(decision):
    """Whether a refusal is not the application's mistake."""
    return isinstance(decision, Refused) and decision.mistake is None


# Servers: opened ------------------------------------------------------------------------------


def test_a_server_waits_for_the_whole_request():
    opening = server()
    assert opening.role is Role.SERVER
    assert opening.begin() == b""
    for at in range(len(REQUEST) - 1):
        assert opening.wants_data()
        assert opening.receive_data(REQUEST[at : at + 1]) is None
        assert opening.request is None
    decision = opening.receive_data(REQUEST[-1:])
    assert isinstance(decision, Opened)
    assert opening.request.target == "/"
    assert opening.response is opening.answer is None


def test_a_good_request_is_accepted():
    decision = server(subprotocols=["chat"]).receive_data(
        upgrade_request("Sec-WebSocket-Protocol: other, chat")
    )
    assert isinstance(decision, Opened)
    assert decision.octets.startswith(b"HTTP/1.1 101 ")
    assert (decision.trailing, decision.subprotocol, decision.deflate) == (b"", "chat", None)


def test_what_comes_after_the_request_is_handed_on():
    decision = server().receive_data(REQUEST + b"\x81\x80abcd")
    assert isinstance(decision, Opened)
    assert decision.trailing == b"\x81\x80abcd"


def test_compression_is_agreed_on_if_both_can():
    offer = PerMessageDeflate()
    assert server(extensions=[offer]).receive_data(OFFER).deflate is not None
    assert server(extensions=[offer]).receive_data(REQUEST).deflate is None
    assert server().receive_data(OFFER).deflate is None


# Servers: refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"nonsense\r\n\r\n", 400),
        (GET, 426),
        (REQUEST.replace(b"GET", b"POST"), 405),
        (REQUEST.replace(b"Version: 13", b"Version: 8"), 426),
        (upgrade_request("X: " + "x" * 20_000), 431),
        (upgrade_request("Origin: https://elsewhere.example"), 403),
    ],
)
def test_a_bad_request_is_refused(request_, code):
    decision = server(origins=["https://here.example"]).receive_data(request_)
    assert is_clean(decision)
    assert status(decision) == decision.error.status == code
    assert isinstance(decision.error, RequestError)


def test_a_response_of_the_application_is_sent_in_place_of_the_handshakes():
    seen = []

    def process_request(request):
        seen.append(request)
        return NO

    opening = server(process_request)
    decision = opening.receive_data(REQUEST)
    assert (status(decision), body(decision)) == (403, b"no")
    assert decision.error is decision.mistake is None  # nothing is wrong
    assert seen == [opening.request]


def test_the_application_sees_requests_that_are_no_handshakes():
    decision = server(lambda request: NO if request.target == "/" else None).receive_data(GET)
    assert status(decision) == 403


def test_an_application_without_an_answer_goes_on():
    assert isinstance(server(lambda _: None).receive_data(REQUEST), Opened)
    decision = server(lambda _: None).receive_data(GET)
    assert is_clean(decision)
    assert decision.error.status == 426


def raising(error):
    def process_request(request):
        raise error

    return process_request


def missing_field(request):
    request.headers["Cookie"]


def missing_field_in_a_group(request):
    try:
        request.headers["Cookie"]
    except FieldError as exc:
        raise ExceptionGroup("all", [exc]) from None


def at_once(process_request):
    return server(process_request).receive_data(REQUEST)


def later(process_request):
    """The same if the application takes its time."""
    opening = asking()
    future = Future()
    try:
        future.set_result(process_request(opening.request))
    except Exception as exc:
        future.set_exception(exc)
    opening.wait_for(future)
    return opening.decide()


either_way = pytest.mark.parametrize("ask", [at_once, later])


@either_way
def test_a_request_error_of_the_application_refuses(ask):
    error = RequestError("go away", 401, (("WWW-Authenticate", "Basic"),))
    decision = ask(raising(error))
    assert is_clean(decision)
    assert decision.error is error
    assert status(decision) == 401
    assert b"WWW-Authenticate: Basic\r\n" in decision.octets
    assert b"go away" in body(decision)


@either_way
@pytest.mark.parametrize(
    "error",
    [
        *(ValueError("secret"), KeyError("secret"), OSError("secret")),
        ConnectionClosed(1008, "secret"),  # of another connection
    ],
)
def test_an_application_that_fails_is_a_mistake_and_the_client_learns_no_more(ask, error):
    decision = ask(raising(error))
    assert isinstance(decision, Refused)
    assert decision.mistake is error
    assert status(decision) == decision.error.status == 500
    assert b"secret" not in decision.octets


@either_way
@pytest.mark.parametrize(
    ("process_request", "text"),
    [
        (missing_field, b"no header field named Cookie"),
        (missing_field_in_a_group, b"bad header fields"),
    ],
)
def test_an_application_that_misses_a_field_is_not_to_blame(ask, process_request, text):
    decision = ask(process_request)
    assert is_clean(decision)
    assert status(decision) == 400
    assert text in body(decision)


@either_way
def test_an_application_that_misses_a_field_of_something_else_is(ask):
    decision = ask(raising(FieldError("Host", 0)))  # the request has one
    assert isinstance(decision.mistake, FieldError)
    assert status(decision) == 500


@either_way
@pytest.mark.parametrize(
    "response",
    [
        Response.text("wait", 100),
        Response(200, [("Transfer-Encoding", "chunked")], b""),
    ],
)
def test_a_response_that_cannot_be_sent_is_a_mistake(ask, response):
    decision = ask(lambda _: response)
    assert isinstance(decision, Refused)
    assert isinstance(decision.mistake, ValueError)
    assert status(decision) == 500


@either_way
@pytest.mark.parametrize("answer", ["no response", {}, False, Accept])
def test_an_answer_of_another_type_is_a_mistake(ask, answer):
    decision = ask(lambda _: answer)
    assert isinstance(decision.mistake, TypeError)
    kind = type(answer).__name__
    assert str(decision.mistake).endswith(f"None, an Accept or a Response, not {kind!r}")
    assert status(decision) == 500


@either_way
@pytest.mark.parametrize("arguments", [(99,), (403, (("X", "a\r\nb"),)), (403, (("", "a"),))])
def test_a_request_error_that_cannot_be_sent_is_a_mistake(ask, arguments):
    decision = ask(raising(RequestError("no", *arguments)))
    assert isinstance(decision.mistake, Exception)
    assert not isinstance(decision.mistake, RequestError)
    assert status(decision) == decision.error.status == 500


def test_only_exceptions_are_the_applications_mistake():
    with pytest.raises(KeyboardInterrupt):
        at_once(raising(KeyboardInterrupt()))


# Servers: undecided ---------------------------------------------------------------------------


def test_an_application_may_take_its_time():
    answer = pending()
    opening = server(lambda _: answer)
    assert opening.receive_data(REQUEST + b"more") == Undecided(answer)
    answer.close()
    assert opening.wants_data()  # nobody waits yet
    future = Future()
    opening.wait_for(future)
    assert opening.answer is future
    assert not opening.wants_data()
    future.set_result(None)
    decision = opening.decide()
    assert isinstance(decision, Opened)
    assert decision.trailing == b"more"
    assert opening.answer is None


def test_an_answer_that_comes_later_is_sent():
    decision = asking(answer=NO).decide()
    assert is_clean(decision)
    assert decision.error is None
    assert status(decision) == 403


def test_an_answer_that_is_cancelled_is_no_mistake_of_the_client():
    opening = asking()
    future = Future()
    assert future.cancel()
    opening.wait_for(future)
    decision = opening.decide()
    assert is_clean(decision)
    assert status(decision) == decision.error.status == 500
    assert opening.answer is None


# Servers: time and the end --------------------------------------------------------------------


def test_a_request_that_does_not_come_in_time_is_refused():
    for opening in (server(), asking()):
        decision = opening.time_out()
        assert is_clean(decision)
        assert status(decision) == decision.error.status == 408


def test_a_request_that_is_half_there_is_refused_in_time():
    opening = server()
    opening.receive_data(REQUEST[:20])
    assert status(opening.time_out()) == 408


def test_a_client_that_ends_its_side_may_still_be_answered():
    assert server().receive_eof() is None
    opening = asking(answer=NO)
    assert opening.receive_eof() is None
    assert status(opening.decide()) == 403


# Clients --------------------------------------------------------------------------------------

KEY = bytes(16)
ACCEPTS = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n"
)


def client(**options):
    uri = URI(secure=False, host="localhost", port=80, target="/")
    return ClientOpeningHandshake(ClientHandshake(uri, key=KEY, **options))


def test_a_client_speaks_first():
    opening = client()
    assert opening.role is Role.CLIENT
    assert opening.begin().startswith(b"GET / HTTP/1.1\r\n")
    assert opening.request is opening.answer is None


def test_a_response_that_accepts_opens():
    opening = client()
    opening.begin()
    response = ACCEPTS + b"\r\n"
    for at in range(len(response) - 1):
        assert opening.wants_data()
        assert opening.receive_data(response[at : at + 1]) is None
        assert opening.response is None
    assert opening.receive_data(response[-1:]) == Opened(b"", b"", None, None)
    assert opening.response.status == 101


def test_what_the_server_chose_and_sent_after_it_is_handed_on():
    opening = client(subprotocols=["chat"], extensions=[PerMessageDeflate()])
    opening.begin()
    decision = opening.receive_data(
        ACCEPTS + b"Sec-WebSocket-Protocol: chat\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n\x81\x01a"
    )
    assert isinstance(decision, Opened)
    assert (decision.octets, decision.trailing) == (b"", b"\x81\x01a")
    assert decision.subprotocol == "chat"
    assert decision.deflate.role is Role.CLIENT


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        (b"HTTP/1.1 301 Elsewhere\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", 301),
        (ACCEPTS.replace(b"ICX", b"AAA") + b"\r\n", 101),
        (ACCEPTS + b"Sec-WebSocket-Protocol: unasked\r\n\r\n", 101),
    ],
)
def test_any_other_response_fails(response, code):
    opening = client()
    opening.begin()
    decision = opening.receive_data(response)
    assert isinstance(decision, Failed)
    assert isinstance(decision.error, ResponseError)
    assert (decision.error.response and decision.error.response.status) == code


def test_a_refusal_whose_body_has_not_arrived_is_waited_for():
    opening = client()
    opening.begin()
    assert opening.receive_data(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nn") is None
    decision = opening.receive_data(b"o")
    assert isinstance(decision, Failed)
    assert decision.error.response.body == b"no"


@pytest.mark.parametrize(
    ("received", "code"),
    [(b"", None), (b"HTTP/1.1 101", None), (b"HTTP/1.1 502 Bad\r\n\r\nsorry", 502)],
)
def test_a_server_that_ends_its_side_fails_it(received, code):
    opening = client()
    opening.begin()
    if received:
        assert opening.receive_data(received) is None
    decision = opening.receive_eof()
    assert isinstance(decision, Failed)
    assert isinstance(decision.error, HandshakeError)
    assert (decision.error.response and decision.error.response.status) == code


def test_a_response_that_does_not_come_in_time_fails_it():
    decision = client().time_out()
    assert isinstance(decision, Failed)
    assert isinstance(decision.error, TimeoutError)
    assert "too long" in str(decision.error)


def test_there_is_nobody_to_ask_on_a_client():
    for call in (lambda: client().wait_for(Future()), client().decide):
        with pytest.raises(NotImplementedError):
            call()
