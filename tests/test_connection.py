"""Tests of `Connection`: two exchange bytes, or one is fed what a peer would send."""

from __future__ import annotations

import os
import pydoc
import re
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastws import (
    Close,
    CloseCode,
    Connection,
    ConnectionClosed,
    Frame,
    FrameDecoder,
    InvalidPayloadError,
    MessageTooBigError,
    Opcode,
    Ping,
    Pong,
    ProtocolError,
    Role,
    State,
    StateError,
    Text,
    encode_frame,
    prepare,
)
from fastws import connection as connection_module
from fastws._py import connection as source

SERVER, CLIENT = Role.SERVER, Role.CLIENT
KEY = b"\x01\x02\x03\x04"

roles = pytest.mark.parametrize("role", Role, ids=lambda role: role.name.lower())


def other(role: Role) -> Role:
    return CLIENT if role is SERVER else SERVER


def from_peer(of: Connection, opcode: int, payload: bytes = b"", **options: bool) -> bytes:
    """Write a frame like the peer of a connection."""
    key = KEY if of.role is SERVER else None
    return encode_frame(opcode, payload, key=key, **options)


def frames_of(connection: Connection) -> list[Frame]:
    """Read what a connection wants to send."""
    decoder = FrameDecoder(masked=connection.role is CLIENT)
    return decoder.feed(connection.data_to_send())


def pair(role: Role = CLIENT) -> tuple[Connection, Connection]:
    return Connection(role), Connection(other(role))


def deliver(sender: Connection, receiver: Connection) -> list[object]:
    return list(receiver.receive_data(sender.data_to_send()))


@roles
def test_repr_says_role_and_state(role):
    connection, peer = pair(role)
    name = role.name.lower()
    assert repr(connection) == f"<Connection {name} open>"
    connection.close(4000)
    assert repr(connection) == f"<Connection {name} closing>"
    deliver(connection, peer)
    assert repr(peer) == f"<Connection {other(role).name.lower()} open 4000>"
    deliver(peer, connection)
    assert repr(connection) == f"<Connection {name} closed 4000>"

    class Subclass(Connection):
        pass

    assert repr(Subclass(role)) == f"<Subclass {name} open>"


# Talking ------------------------------------------------------------------------------


messages = st.text(max_size=300) | st.binary(max_size=300) | st.integers(65534, 65537).map(bytes)


@roles
@settings(deadline=None)
@given(data=st.data(), sent=st.lists(messages, max_size=8))
def test_any_messages_arrive_however_the_stream_is_cut(role, data, sent):
    sender, receiver = pair(role)
    for message in sent:
        sender.send(message)
    stream = sender.data_to_send()
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    received = []
    for start, stop in pairwise([0, *cuts, len(stream)]):
        received += receiver.receive_data(stream[start:stop])
    assert received == sent
    assert receiver.data_to_send() == sender.data_to_send() == b""
    assert sender.state is receiver.state is State.OPEN


@roles
@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6), st.booleans())
def test_fragments_make_one_message_with_pings_between(role, pieces, as_text):
    parts = [piece.hex() if as_text else piece for piece in pieces]
    sender, receiver = pair(role)
    sender.send(parts[0], fin=len(parts) == 1)
    for number, part in enumerate(parts[1:], 2):
        sender.ping(b"between")
        sender.continuation(part, fin=number == len(parts))
    whole = ("" if as_text else b"").join(parts)
    assert deliver(sender, receiver) == [Ping(b"between")] * (len(parts) - 1) + [whole]
    assert deliver(receiver, sender) == [Pong(b"between")] * (len(parts) - 1)


@roles
def test_buffers_of_all_kinds_are_binary_messages(role, tmp_path):
    sender, receiver = pair(role)
    for message in (b"ab", bytearray(b"ab"), memoryview(b"xaby")[1:3]):
        sender.send(message)
    assert deliver(sender, receiver) == [b"ab"] * 3


# Text as bytes ------------------------------------------------------------------------------


def pair_for_bytes(role: Role) -> tuple[Connection, Connection]:
    return Connection(role), Connection(other(role), decode_text=False)


@roles
@given(
    st.lists(st.text(max_size=300).map(lambda text: Text(text.encode())) | st.binary(max_size=9)),
    st.booleans(),
)
def test_text_as_bytes_comes_back_as_it_was(role, sent, whole):
    sender, echo = pair_for_bytes(role)
    for message in sent:
        if whole or type(message) is bytes:
            sender.send(message)
        else:
            sender.send_text(message.data)
    received = deliver(sender, echo)
    assert received == sent
    for message in received:
        echo.send(message)
    assert deliver(echo, sender) == [
        str(message) if isinstance(message, Text) else message for message in sent
    ]


@roles
@pytest.mark.parametrize(
    "data", ["é", "é".encode(), bytearray("é".encode()), Text("é".encode())], ids=repr
)
def test_text_is_sent_in_any_form(role, data):
    sender, receiver = pair(role)
    assert sender.send_text(data) == sender.bytes_queued > 0
    sender.send(prepare(Text("é".encode())))
    sender.send_text(data, fin=False)
    sender.continuation(data)
    assert deliver(sender, receiver) == ["é", "é", "éé"]


@roles
@given(
    st.lists(st.binary(max_size=3), min_size=1, max_size=6)
    | st.text(min_size=1).map(lambda text: [bytes([byte]) for byte in text.encode()])
)
def test_fragments_of_text_may_be_cut_anywhere_but_must_be_utf8(role, pieces):
    sender, receiver = pair_for_bytes(role)
    try:
        sender.send_text(pieces[0], fin=len(pieces) == 1)
        for number, piece in enumerate(pieces[1:], 2):
            sender.continuation(piece, fin=number == len(pieces))
    except ValueError:
        with pytest.raises(UnicodeDecodeError):
            b"".join(pieces).decode()
        assert deliver(sender, receiver) == []
        assert receiver.error is None
    else:
        assert deliver(sender, receiver) == [Text(b"".join(pieces))]


@roles
@pytest.mark.parametrize("text", ["é", "✓", "\N{GRINNING FACE}", "aaa\N{GRINNING FACE}a"])
def test_fragments_of_text_may_be_cut_in_any_character(role, text):
    sender, receiver = pair_for_bytes(role)
    data = text.encode()
    for cut in range(len(data) + 1):
        sender.send_text(data[:cut], fin=False)
        sender.continuation(data[cut:])
    assert deliver(sender, receiver) == [Text(data)] * (len(data) + 1)


@roles
def test_a_fragment_of_text_is_not_checked_after_the_end(role):
    connection = Connection(role)
    connection.send_text(b"\xc3", fin=False)
    connection.close()
    with pytest.raises(ConnectionClosed):
        connection.continuation(b"\xff")


@roles
def test_a_refused_fragment_of_text_changes_nothing(role):
    sender, receiver = pair(role)
    sender.send_text(b"\xc3", fin=False)
    for fragment, fin in ((b"\xc3", False), ("a", True), (b"", True), (Text(b"a"), False)):
        with pytest.raises(ValueError, match=r"^text is not UTF-8$"):
            sender.continuation(fragment, fin=fin)
    for send in (sender.send_text, sender.send):
        with pytest.raises(StateError):
            send(b"a", fin=False)
    sender.continuation(b"\xa9")
    # The next message is not checked, if it is not begun in the same way.
    sender.send(b"\xc3", fin=False)
    sender.continuation(b"\xc3")
    assert deliver(sender, receiver) == ["é", b"\xc3\xc3"]


@roles
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xff", ValueError("text is not UTF-8")),
        (bytearray(b"\xc3"), ValueError("text is not UTF-8")),
        (5, TypeError("a bytes-like object is required, not 'int'")),
        (["a"], TypeError("a bytes-like object is required, not 'list'")),
    ],
    ids=repr,
)
def test_only_text_is_sent_as_text(role, data, error):
    sender = Connection(role)
    with pytest.raises(type(error), match=f"^{re.escape(str(error))}$"):
        sender.send_text(data)
    sender.send("before", fin=False)
    sender.continuation(b"after")
    assert [frame.payload for frame in frames_of(sender)] == [b"before", b"after"]


@roles
def test_text_that_is_not_utf8_ends_the_connection_as_ever(role):
    connection = Connection(role, decode_text=False)
    stream = from_peer(connection, Opcode.TEXT, b"a") + from_peer(connection, Opcode.TEXT, b"\xff")
    assert connection.receive_data(stream) == [Text(b"a")]
    assert isinstance(connection.error, InvalidPayloadError)
    assert connection.close_code == 1007


@roles
def test_a_ping_is_answered_with_its_own_data(role):
    connection = Connection(role)
    data = from_peer(connection, Opcode.PING, b"a") + from_peer(connection, Opcode.PING)
    assert connection.receive_data(data) == [Ping(b"a"), Ping()]
    assert frames_of(connection) == [Frame(Opcode.PONG, b"a"), Frame(Opcode.PONG)]


@roles
def test_a_pong_needs_no_ping_and_no_answer(role):
    sender, receiver = pair(role)
    sender.pong(b"beat")
    assert deliver(sender, receiver) == [Pong(b"beat")]
    assert receiver.data_to_send() == b""


@roles
@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c: c.send(1), TypeError),
        (lambda c: c.send(None), TypeError),
        (lambda c: c.send("\ud800"), ValueError),
        (lambda c: c.continuation("x"), StateError),
        (lambda c: c.ping("x"), TypeError),
        (lambda c: c.ping(bytes(126)), ValueError),
        (lambda c: c.pong(bytes(126)), ValueError),
        (lambda c: c.close(1005), ValueError),
        (lambda c: c.close(1000, "x" * 124), ValueError),
        (lambda c: c.close(None, "why"), ValueError),
        (lambda c: c.fail(1006, ""), ValueError),
        (lambda c: c.receive_data("text"), TypeError),
    ],
)
def test_the_applications_mistakes_raise_and_leave_the_connection_as_it_was(role, call, error):
    sender, receiver = pair(role)
    with pytest.raises(error):
        call(sender)
    assert sender.state is State.OPEN
    assert sender.close_code is None
    sender.send("still here")
    assert deliver(sender, receiver) == ["still here"]


@roles
def test_a_message_out_of_turn_raises(role):
    sender, receiver = pair(role)
    sender.send("a", fin=False)
    with pytest.raises(StateError):
        sender.send("b")
    sender.continuation("c")
    with pytest.raises(StateError):
        sender.continuation("d")
    assert deliver(sender, receiver) == ["ac"]


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"max_message_size": -1}, ValueError),
        ({"max_fragments": 0}, ValueError),
        ({"max_message_size": 1.5}, TypeError),
    ],
)
def test_wrong_limits_are_told_at_once(limits, error):
    with pytest.raises(error):
        Connection(SERVER, **limits)
    with pytest.raises(ValueError):
        Connection(2)


def test_how_much_is_queued_is_known():
    connection = Connection(SERVER)
    connection.send("abc")
    connection.ping()
    assert connection.bytes_queued == 7
    assert len(connection.data_to_send()) == 7
    assert connection.bytes_queued == 0


# Closing ------------------------------------------------------------------------------


@roles
@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        ((), 1000, ""),
        ((CloseCode.GOING_AWAY,), 1001, ""),
        ((4999, "fin ✓"), 4999, "fin ✓"),
        ((None,), 1005, ""),
    ],
)
def test_the_close_handshake_echoes_code_and_reason(role, args, code, reason):
    closer, peer = pair(role)
    closer.close(*args)
    assert (closer.state, peer.state) == (State.CLOSING, State.OPEN)
    assert closer.close_code is None
    assert deliver(closer, peer) == [Close(code, reason)]
    assert peer.close_code == code
    assert deliver(peer, closer) == [Close(code, reason)]
    for side in closer, peer:
        assert (side.state, side.close_code, side.close_reason) == (State.CLOSED, code, reason)
        assert side.data_to_send() == b""
        assert side.error is None


@roles
@pytest.mark.parametrize(("ending", "code"), [(b"\x0f\xa0bye", 4000), (b"", 1005), (b"\0", 1002)])
def test_what_came_before_the_close_frame_can_be_answered(role, ending, code):
    connection = Connection(role)
    data = from_peer(connection, Opcode.TEXT, b"x") + from_peer(connection, Opcode.CLOSE, ending)
    assert connection.receive_data(data)[0] == "x"
    # The connection will end with this; close() and more data do not change it.
    assert connection.close_code == code
    assert connection.receive_data(from_peer(connection, Opcode.PING)) == []
    connection.close(4999, "mine")
    connection.receive_eof()
    connection.fail(1011, "mine")
    connection.send("answer")
    answer, close = frames_of(connection)
    assert answer == Frame(Opcode.TEXT, b"answer")
    assert (close.opcode, close.payload[:2]) == (Opcode.CLOSE, ending and code.to_bytes(2, "big"))
    with pytest.raises(ConnectionClosed):
        connection.send("too late")
    assert (connection.state, connection.close_code) == (State.CLOSED, code)


@roles
def test_both_may_close_at_once(role):
    one, two = pair(role)
    one.close(4001, "one")
    two.close(4002, "two")
    to_two, to_one = one.data_to_send(), two.data_to_send()
    assert one.receive_data(to_one) == [Close(4002, "two")]
    assert two.receive_data(to_two) == [Close(4001, "one")]
    # §7.1.5: the code of the first close frame received.
    assert (one.close_code, two.close_code) == (4002, 4001)
    assert one.state is two.state is State.CLOSED
    assert one.data_to_send() == two.data_to_send() == b""


@roles
def test_a_close_code_that_sends_something_does_so_before_the_close_frame(role):
    ours = Connection(role)

    class Code:
        def __index__(self):
            ours.ping()
            return 4000

    ours.close(Code())
    frames = [frame.opcode for frame in frames_of(ours)]
    assert frames == [Opcode.PING] * (len(frames) - 1) + [Opcode.CLOSE]


@roles
def test_nothing_is_sent_after_a_close_frame(role):
    connection = Connection(role)
    connection.close(4000, "bye")
    connection.close(4001, "again")
    connection.receive_data(from_peer(connection, Opcode.PING, b"too late"))
    assert frames_of(connection) == [Frame(Opcode.CLOSE, b"\x0f\xa0bye")]
    for call in (
        lambda: connection.send("x"),
        lambda: connection.continuation("x"),
        connection.ping,
        connection.pong,
        connection.check_open,
    ):
        with pytest.raises(ConnectionClosed) as info:
            call()
        assert (info.value.code, info.value.reason) == (4000, "bye")  # ours; there is no other code
    connection.receive_data(from_peer(connection, Opcode.CLOSE, b"\x0f\xa1theirs"))
    with pytest.raises(ConnectionClosed) as info:
        connection.send("x")
    assert (info.value.code, info.value.reason) == (4001, "theirs")
    assert connection.data_to_send() == b""


@roles
def test_messages_still_arrive_while_closing(role):
    closer, peer = pair(role)
    peer.send("on its way")
    closer.close()
    assert deliver(peer, closer) == ["on its way"]
    assert closer.state is State.CLOSING


@roles
def test_what_follows_a_close_frame_is_dropped(role):
    connection = Connection(role)
    close = from_peer(connection, Opcode.CLOSE, b"\x03\xe8")
    late = from_peer(connection, Opcode.TEXT, b"late") + b"\xff\xff"
    assert connection.receive_data(close + late) == [Close(1000)]
    assert connection.receive_data(late) == []
    assert connection.error is None
    assert frames_of(connection) == [Frame(Opcode.CLOSE, b"\x03\xe8")]


@roles
def test_the_end_of_the_stream_without_a_close_frame_is_1006(role):
    connection = Connection(role)
    connection.receive_data(from_peer(connection, Opcode.TEXT, b"half")[:-1])
    connection.receive_eof()
    assert (connection.state, connection.close_code) == (State.CLOSED, 1006)
    assert connection.data_to_send() == b""
    assert connection.receive_data(from_peer(connection, Opcode.PING)) == []
    with pytest.raises(ConnectionClosed, match="1006 abnormal_closure"):
        connection.check_open()


@roles
def test_what_was_queued_can_be_sent_after_the_end_of_the_stream(role):
    """The peer may have shut down its writing side only."""
    connection = Connection(role)
    connection.receive_data(from_peer(connection, Opcode.PING, b"there?"))
    connection.send("answer")
    connection.receive_eof()
    connection.close()
    assert frames_of(connection) == [Frame(Opcode.PONG, b"there?"), Frame(Opcode.TEXT, b"answer")]
    connection.receive_eof()
    assert (connection.state, connection.close_code) == (State.CLOSED, 1006)
    assert connection.data_to_send() == b""


@roles
def test_the_end_of_the_stream_in_the_close_handshake_is_1006_too(role):
    connection = Connection(role)
    connection.close(4000)
    connection.receive_eof()
    assert connection.close_code == 1006


@roles
def test_the_end_of_the_stream_changes_nothing_after_the_close_handshake(role):
    connection = Connection(role)
    connection.receive_data(from_peer(connection, Opcode.CLOSE, b"\x0f\xa0"))
    connection.receive_eof()
    assert connection.close_code == 4000


# Failing ------------------------------------------------------------------------------


VIOLATIONS = [
    (lambda c: from_peer(c, Opcode.TEXT, b"\xff"), InvalidPayloadError, 1007),
    (lambda c: from_peer(c, Opcode.TEXT, b"a" * 11), MessageTooBigError, 1009),
    (lambda c: from_peer(c, Opcode.CONTINUATION), ProtocolError, 1002),
    (lambda c: from_peer(c, Opcode.TEXT, rsv1=True), ProtocolError, 1002),
    (lambda c: from_peer(c, Opcode.CLOSE, b"\x03\xed"), ProtocolError, 1002),
    (
        lambda c: encode_frame(Opcode.TEXT, key=None if c.role is SERVER else KEY),
        ProtocolError,
        1002,
    ),
    (
        lambda c: b"".join(
            from_peer(c, opcode, fin=False)
            for opcode in (Opcode.TEXT, Opcode.CONTINUATION, Opcode.CONTINUATION)
        ),
        MessageTooBigError,
        1009,
    ),
]  # fmt: skip


@roles
@pytest.mark.parametrize(("stream", "error", "code"), VIOLATIONS)
def test_a_violation_ends_the_connection_and_says_why(role, stream, error, code):
    connection = Connection(role, max_message_size=10, max_fragments=2)
    good = from_peer(connection, Opcode.TEXT, b"good") + from_peer(connection, Opcode.PING)
    after = from_peer(connection, Opcode.TEXT, b"after")
    assert connection.receive_data(good + stream(connection) + after) == ["good", Ping()]
    assert type(connection.error) is error
    assert (connection.close_code, connection.close_reason) == (code, str(connection.error))
    pong, close = frames_of(connection)
    assert connection.state is State.CLOSED
    assert pong == Frame(Opcode.PONG)
    assert close == Frame(Opcode.CLOSE, code.to_bytes(2, "big") + str(connection.error).encode())
    assert connection.receive_data(after) == []
    with pytest.raises(ConnectionClosed) as info:
        connection.send("x")
    assert info.value.code == code
    assert info.value.__cause__ is connection.error


@roles
def test_a_violation_after_our_close_frame_sends_no_second_one(role):
    connection = Connection(role)
    connection.close(4000)
    connection.data_to_send()
    connection.receive_data(from_peer(connection, Opcode.TEXT, b"\xff"))
    assert connection.data_to_send() == b""
    assert (connection.state, connection.close_code) == (State.CLOSED, 1007)
    assert isinstance(connection.error, InvalidPayloadError)


@roles
def test_fail_does_not_wait_for_the_peer(role):
    connection = Connection(role)
    connection.fail(1011, "keepalive ping timeout")
    assert (connection.state, connection.close_code) == (State.CLOSED, 1011)
    assert connection.close_reason == "keepalive ping timeout"
    assert connection.error is None
    connection.fail(1002, "again")
    assert frames_of(connection) == [Frame(Opcode.CLOSE, b"\x03\xf3keepalive ping timeout")]
    assert connection.close_code == 1011
    assert connection.receive_data(from_peer(connection, Opcode.CLOSE, b"\x03\xe8")) == []
    assert connection.close_code == 1011


@roles
def test_fail_while_closing_sends_nothing_more(role):
    connection = Connection(role)
    connection.close()
    connection.data_to_send()
    connection.fail(1011, "no answer")
    assert connection.data_to_send() == b""
    assert connection.close_code == 1011


# The table of all that ends a connection -----------------------------------------------


def close_from_peer(connection):
    connection.receive_data(from_peer(connection, Opcode.CLOSE, b"\x0f\xa1theirs"))


def violate(connection):
    connection.receive_data(from_peer(connection, Opcode.CONTINUATION))


CAUSES = {
    "CLOSE": lambda c: c.close(4000, "ours"),
    "FAIL": lambda c: c.fail(4002, "given up"),
    "PEER_CLOSE": close_from_peer,
    "VIOLATION": violate,
    "EOF": lambda c: c.receive_eof(),
}
# By the phase: what leads there.
WAYS = {
    "OPEN": [()],
    "ANSWERING": [("PEER_CLOSE",), ("VIOLATION",)],
    "CLOSING": [("CLOSE",)],
    "CLOSED": [("FAIL",), ("EOF",), ("CLOSE", "PEER_CLOSE"), ("CLOSE", "VIOLATION")],
}


def phase_of(connection: Connection) -> str:
    if connection.state is State.OPEN and connection.close_code is not None:
        return "ANSWERING"
    return connection.state.name


def how_it_ended(connection: Connection) -> tuple[object, ...]:
    return connection.close_code, connection.close_reason, connection.error


@roles
@pytest.mark.parametrize(
    ("phase", "way", "cause"),
    [(phase, way, cause) for phase, cause in product(WAYS, CAUSES) for way in WAYS[phase]],
)
def test_a_cause_leads_where_the_table_says(role, phase, way, cause):
    connection = Connection(role)
    for step in way:
        CAUSES[step](connection)
    assert phase_of(connection) == phase
    queued, ended = connection.bytes_queued, how_it_ended(connection)
    CAUSES[cause](connection)
    step = source._LIFE.get((source._Phase[phase], source._Cause[cause]))
    if step is None:
        assert (phase_of(connection), how_it_ended(connection)) == (phase, ended)
        assert connection.bytes_queued == queued
    else:
        assert phase_of(connection) == step[0].name
        assert (connection.bytes_queued > queued) is step[1]
        assert (connection.close_code is None) is (step[0].name == "CLOSING")


@roles
@pytest.mark.parametrize("way", WAYS["ANSWERING"])
def test_when_all_is_answered_it_is_closed_as_the_table_says(role, way):
    connection = Connection(role)
    CAUSES[way[0]](connection)
    ended = how_it_ended(connection)
    assert len(frames_of(connection)) == 1
    step = source._LIFE[source._Phase.ANSWERING, source._Cause.ANSWER]
    assert step == (source._Phase[phase_of(connection)], True)
    assert how_it_ended(connection) == ended


def test_the_table_has_no_other_phases_and_causes():
    assert [phase.name for phase in source._Phase] == [*WAYS]
    assert [cause.name for cause in source._Cause] == [*CAUSES, "ANSWER"]


# What people see of it -----------------------------------------------------------------


PUBLIC = [name for name in dir(Connection) if not name.startswith("_")]


@pytest.mark.parametrize("name", PUBLIC)
def test_help_shows_it_where_it_is_looked_for(name):
    own, _, inherited = pydoc.plain(pydoc.render_doc(Connection)).partition(" inherited from ")
    assert re.search(rf"^ \|  {name}\b", own, re.MULTILINE)
    assert not re.search(rf"^ \|  {name}\b", inherited, re.MULTILINE)
    member = vars(Connection)[name]
    if callable(member):
        assert member.__doc__.partition("\n")[0] in own


# Buffers of endpoints ------------------------------------------------------------------


@pytest.mark.parametrize(("size", "read"), [(3, 3), (7, 7), (99, 7), (0, 0), (-1, 0)])
def test_the_beginning_of_a_buffer_is_received_as_its_bytes_are(size, read):
    """Of the source as it is interpreted: only what is compiled can call it where it is."""
    storage = bytearray(encode_frame(Opcode.TEXT, b"short"))
    ours, other_ = (
        source.Connection(CLIENT, source.MessageDecoder(masked=False)) for _ in range(2)
    )
    assert ours._receive_from(storage, size) == other_.receive_data(storage[:read])
    rest = storage[read:]
    assert ours.receive_data(rest) == other_.receive_data(rest)
    ours._receive_from(storage, size)


def test_decoding_that_fails_ends_the_connection_however_it_came():
    class Broken:
        def inflate(self, data, room, last):
            raise OSError("broken")

    frame = encode_frame(Opcode.TEXT, b"x", rsv1=True)
    for receive in (
        lambda connection: connection._receive_from(bytearray(frame), len(frame)),
        lambda connection: connection.receive_data(frame),
    ):
        decoder = source.MessageDecoder(masked=False, inflater=Broken())
        connection = source.Connection(CLIENT, decoder)
        with pytest.raises(OSError, match="broken"):
            receive(connection)
        assert connection.close_code == 1011
        assert connection.error is decoder.error


# Mask keys ----------------------------------------------------------------------------


@roles
def test_while_pongs_are_held_the_last_ping_is_answered(role):
    connection = Connection(role)
    pings = b"".join(from_peer(connection, Opcode.PING, b"%d" % i) for i in range(3))
    connection.receive_data(pings)
    assert [frame.payload for frame in frames_of(connection)] == [b"0", b"1", b"2"]
    connection.hold_pongs(True)
    assert connection.receive_data(pings) == [Ping(b"0"), Ping(b"1"), Ping(b"2")]
    connection.hold_pongs(True)
    assert connection.bytes_queued == 0
    connection.send(b"meanwhile")
    connection.hold_pongs(False)
    assert [frame.payload for frame in frames_of(connection)] == [b"meanwhile", b"2"]
    connection.hold_pongs(False)
    assert connection.bytes_queued == 0


@roles
def test_a_pong_that_was_held_is_not_sent_after_a_close_frame(role):
    connection = Connection(role)
    connection.hold_pongs(True)
    connection.receive_data(from_peer(connection, Opcode.PING, b"late"))
    connection.close()
    connection.hold_pongs(False)
    assert [frame.opcode for frame in frames_of(connection)] == [Opcode.CLOSE]


def test_large_messages_are_not_copied():
    server = Connection(SERVER)
    large = bytes(70_000)
    server.send("before")
    server.send(large)
    server.close()
    buffers = server.buffers_to_send()
    assert any(buffer is large for buffer in buffers)
    client = Connection(CLIENT)
    events = client.receive_data(b"".join(buffers))
    assert events == ["before", large, Close(1000, "")]
    assert server.buffers_to_send() == []


def sent_keys(connection: Connection, count: int) -> list[bytes]:
    for _ in range(count):
        connection.send(b"\0" * 4)  # when masked, zeros become the key
    data = connection.data_to_send()
    return [data[i + 2 : i + 6] for i in range(0, len(data), 10)]


def test_a_client_masks_every_frame_with_a_key_of_its_own():
    client, server = pair(CLIENT)
    keys = sent_keys(client, 5000)
    # Among 5000 of 2**32 keys, two are equal in one of 350 runs; two such pairs do not happen.
    assert len(set(keys)) >= 4999
    client.send("a", fin=False)
    client.continuation("b")
    client.ping(b"c")
    client.pong(b"d")
    client.close(4000, "e")
    assert deliver(client, server) == ["ab", Ping(b"c"), Pong(b"d"), Close(4000, "e")]


def test_a_server_does_not_mask():
    server = Connection(SERVER)
    server.send("plain")
    assert server.data_to_send() == b"\x81\x05plain"


def test_connections_do_not_share_keys():
    one, two = Connection(CLIENT), Connection(CLIENT)
    assert not set(sent_keys(one, 50)) & set(sent_keys(two, 50))


def test_keys_are_drawn_from_the_operating_system(monkeypatch):
    drawn = []

    def urandom(size):
        drawn.append(bytes(range(256)) * (size // 256))
        return drawn[-1]

    monkeypatch.setattr(connection_module, "_pool", [])
    monkeypatch.setattr(connection_module.os, "urandom", urandom)
    keys = sent_keys(Connection(CLIENT), 1025)
    assert len(drawn) == 2
    assert sorted(keys[:1024]) == sorted(drawn[0][i : i + 4] for i in range(0, 4096, 4))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
# pytest-xdist has threads, but this child needs none of their locks.
@pytest.mark.filterwarnings("ignore:.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_draws_keys_of_its_own():
    sent_keys(Connection(CLIENT), 1)  # the pool is not empty
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(sent_keys(Connection(CLIENT), 20)))
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    theirs = {data[i : i + 4] for i in range(0, len(data), 4)}
    assert len(data) == 80
    assert not theirs & set(sent_keys(Connection(CLIENT), 1100))


# What the exception knows ----------------------------------------------------------------


def closed(connection: Connection) -> ConnectionClosed:
    with pytest.raises(ConnectionClosed) as caught:
        connection.send("more")
    error = caught.value
    assert error.last_heard is error.unsent is None
    return error


@roles
def test_the_error_knows_which_side_closed(role):
    connection, peer = pair(role)
    connection.close(1001, "bye")
    error = closed(connection)
    assert (error.by_peer, error.sent, error.received) == (False, Close(1001, "bye"), None)
    deliver(connection, peer)
    peer.data_to_send()  # the answer
    error = closed(peer)
    assert (error.by_peer, error.code) == (True, 1001)
    assert error.sent == error.received == Close(1001, "bye")
    assert str(error).startswith("1001 going_away: bye; the peer closed with 1001, we answered")


@roles
def test_the_error_knows_both_codes(role):
    connection, _peer = pair(role)
    connection.close(4000)
    connection.data_to_send()
    connection.receive_data(from_peer(connection, 8, b"\x0f\xa1why"))
    error = closed(connection)
    assert (error.code, error.reason, error.by_peer) == (4001, "why", False)
    assert (error.sent, error.received) == (Close(4000), Close(4001, "why"))


@roles
def test_a_close_frame_without_a_code_in_the_error(role):
    connection, peer = pair(role)
    connection.close(None)
    deliver(connection, peer)
    peer.data_to_send()
    error = closed(peer)
    assert (error.sent, error.received, error.by_peer) == (Close(1005), Close(1005), True)


@roles
def test_the_error_of_a_violation_and_of_a_failure(role):
    connection, _ = pair(role)
    connection.receive_data(from_peer(connection, 1, b"\xff"))
    connection.data_to_send()
    error = closed(connection)
    assert (error.by_peer, error.received) == (False, None)
    assert error.sent == Close(1007, "text message is not UTF-8")
    connection, _ = pair(role)
    connection.fail(1011, "oops")
    error = closed(connection)
    assert (error.by_peer, error.sent, error.received) == (False, Close(1011, "oops"), None)


@roles
def test_the_error_of_a_lost_connection(role):
    connection, _ = pair(role)
    connection.receive_eof()
    error = closed(connection)
    assert (error.code, error.by_peer, error.sent, error.received) == (1006, None, None, None)
    connection, _ = pair(role)
    connection.close(1000)
    connection.receive_eof()
    error = closed(connection)
    assert (error.code, error.by_peer, error.sent) == (1006, False, Close(1000))
    assert "we closed with 1000, the peer has not answered" in str(error)
