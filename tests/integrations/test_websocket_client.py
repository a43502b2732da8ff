"""websocket-client with fastws: it sends, receives and refuses the same as without."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from contextlib import nullcontext
from itertools import pairwise

import pytest
import websocket
from hypothesis import given, settings
from hypothesis import strategies as st
from websocket import ABNF, _abnf, _utils

from fastws import FrameDecoder, codec, encode_frame, integrations
from fastws.integrations import websocket_client

from ..tools import Echo
from .comparing import outcome

KEY = b"\x12\x34\x56\x78"
TEXT = "fastws: ä€😀 " * 5


@pytest.fixture
def installed():
    with websocket_client.install() as installation:
        yield installation


def both(function, *args):
    """Call a function without and with fastws; return the two outcomes."""
    theirs = outcome(function, *args)
    with websocket_client.install():
        return theirs, outcome(function, *args)


# Installation ----------------------------------------------------------------------


def test_installs_and_uninstalls() -> None:
    stock = [ABNF.mask, ABNF.format, _utils._validate_utf8]
    with websocket_client.install() as installation:
        assert installation.active
        assert integrations.installed() == ["websocket-client"]
        assert websocket_client.install() is installation
        assert isinstance(vars(ABNF)["mask"], staticmethod)
        assert _utils._validate_utf8 is not stock[2]
        # The pure-Python twin leaves to wsaccel what wsaccel does faster.
        theirs = codec.implementation == "py" and hasattr(_abnf, "XorMaskerSimple")
        assert (ABNF.mask is stock[0]) is (ABNF.format is stock[1]) is theirs
    assert [ABNF.mask, ABNF.format, _utils._validate_utf8] == stock
    assert integrations.installed() == []


def test_import_patches_nothing() -> None:
    script = (
        "import websocket; stock = websocket.ABNF.mask\n"
        "import fastws.integrations.websocket_client\n"
        "assert websocket.ABNF.mask is stock"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# Masking ---------------------------------------------------------------------------


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=300), st.booleans())
def test_masks_alike(key: bytes, data: bytes, mutable: bool) -> None:
    theirs, ours = both(ABNF.mask, key, bytearray(data) if mutable else data)
    assert ours == theirs
    assert type(ours[1]) is bytes


def mask(*args):
    return ABNF.mask(*args)  # looked up when it is called


@pytest.mark.parametrize(
    ("key", "data"),
    [
        (KEY, ""),
        (KEY, None),
        (KEY, "abcé"),
        (KEY, "€"),
        (KEY, memoryview(b"abcdef")[::2]),
        (KEY, [1, 2, 3]),
        (KEY, 7),
        ("abcd", b"text"),
        ("abc€", b"text"),
        (bytearray(KEY), b"text"),
        (b"abc", b"text"),
        (b"", b""),
        (b"abcde", b"text and more"),
        (None, b"text"),
    ],
)
def test_masks_alike_what_is_odd(key, data) -> None:
    theirs, ours = both(mask, key, data)
    assert ours == theirs


# Framing ---------------------------------------------------------------------------


def unmasked(frame: bytes) -> tuple[object, ...]:
    decoder = FrameDecoder(masked=None, max_payload_size=None, rsv1=True, rsv2=True, rsv3=True)
    return len(frame), frame[0], frame[1] & 0x80, decoder.feed(frame), str(decoder.error)


@pytest.mark.parametrize("fin", [0, 1, True])
@pytest.mark.parametrize("opcode", [0, 1, 2, 3, 8, 9, 10])
@pytest.mark.parametrize("data", [b"", b"x", b"x" * 125, b"x" * 126, bytearray(b"ab"), "aé"])
def test_frames_alike(fin: int, opcode: int, data: bytes) -> None:
    def frame():
        return unmasked(ABNF.create_frame(data, opcode, fin).format())

    theirs, ours = both(frame)
    assert ours == theirs


@pytest.mark.parametrize("size", [65535, 65536, 200_000])
def test_frames_large_payloads_alike(size: int) -> None:
    data = os.urandom(size)
    theirs, ours = both(lambda: unmasked(ABNF.create_frame(data, ABNF.OPCODE_BINARY).format()))
    assert ours == theirs


@pytest.mark.parametrize("field", ["fin", "rsv1", "rsv2", "rsv3", "mask_value", "opcode"])
@pytest.mark.parametrize("value", [0, 1, 2, 15, None])
def test_frames_alike_what_is_odd(field: str, value: object) -> None:
    def frame():
        frame = ABNF.create_frame(b"payload", ABNF.OPCODE_TEXT)
        setattr(frame, field, value)
        return unmasked(frame.format())

    theirs, ours = both(frame)
    assert ours == theirs


@pytest.mark.parametrize("key", [KEY, "\1\2\3\4", "abcd", b"abc"])
def test_asks_the_application_for_the_key(key: object) -> None:
    asked = []

    def frame():
        frame = ABNF.create_frame(b"payload", ABNF.OPCODE_TEXT)
        frame.get_mask_key = lambda size: asked.append(size) or key
        return frame.format()

    theirs, ours = both(frame)
    assert ours == theirs
    assert asked == [4, 4]


def test_calls_a_frame_of_another_class_as_before(installed) -> None:
    class Frame(ABNF):
        def _get_masked(self, mask_key):
            return b"mine"

    assert Frame(1, 0, 0, 0, ABNF.OPCODE_TEXT, 1, b"payload").format()[2:] == b"mine"


def test_draws_a_new_key_for_each_frame(installed) -> None:
    frame = ABNF.create_frame(b"payload", ABNF.OPCODE_TEXT)
    assert len({frame.format()[2:6] for _ in range(20)}) == 20


# Validation ------------------------------------------------------------------------


@given(
    st.one_of(
        st.binary(max_size=20),
        st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(
            st.sampled_from(b"a\x80\xa0\xbf\xc2\xdf\xe0\xe2\x82\xac\xed\xf0\x90\xf4\xff"),
            max_size=8,
        ).map(bytes),
    )
)
def test_validates_alike(data: bytes) -> None:
    for kind in (bytes, bytearray):
        theirs, ours = both(_abnf.validate_utf8, kind(data))
        assert ours == theirs
        assert type(ours[1]) is bool


@pytest.mark.parametrize("data", ["", "abc", "ä€😀", "\ud800", b"\xe2\x82", None, 5])
def test_validates_alike_what_is_odd(data: object) -> None:
    theirs, ours = both(_abnf.validate_utf8, data)
    assert ours == theirs


# Whole connections -----------------------------------------------------------------


def receive(stream: bytes, cuts: list[int], options: dict[str, bool]) -> list[object]:
    """Feed a client a stream of bytes, with a timeout at each cut; return all results."""
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(0.001)
        client = websocket.WebSocket(**options)
        client.sock, client.connected = near, True
        results: list[object] = []
        for start, end in pairwise([0, *cuts, len(stream)]):
            far.sendall(stream[start:end])
            while not results or results[-1][0] == "returned":
                results.append(outcome(client.recv_data, True))
            if results[-1][0] is not websocket.WebSocketTimeoutException:
                break
            results.append(("returned", "the time was over"))
        # Its answers: pongs, and a close frame.
        near.shutdown(socket.SHUT_WR)
        with far.makefile("rb") as file:
            return [*results, FrameDecoder(masked=True).feed(file.read())]


frames = st.builds(
    lambda opcode, payload, fin, rsv: (
        bytes([fin << 7 | rsv | opcode]) + encode_frame(2, payload)[1:]
    ),
    opcode=st.sampled_from([0, 0, 1, 1, 1, 2, 3, 8, 9, 10]),
    payload=st.one_of(
        st.binary(max_size=10),
        st.just(b"x" * 130),
        st.text(max_size=5).map(str.encode),
        st.sampled_from([struct.pack("!H", code) + b"why" for code in (1000, 1005, 3000, 5000)]),
    ),
    fin=st.sampled_from([1, 1, 0]),
    rsv=st.sampled_from([0, 0, 0, 0, 0x40]),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(frames, max_size=4).map(b"".join),
    st.lists(st.integers(0, 60), max_size=2),
    st.booleans(),
    st.booleans(),
)
def test_receives_alike(stream: bytes, cuts: list[int], fire: bool, skip: bool) -> None:
    cuts = sorted(min(cut, len(stream)) for cut in cuts)
    options = {"fire_cont_frame": fire, "skip_utf8_validation": skip}
    theirs = receive(stream, cuts, options)
    with websocket_client.install():
        assert receive(stream, cuts, options) == theirs


def test_refuses_text_that_is_not_utf8(installed) -> None:
    assert receive(encode_frame(1, b"ab\xff"), [], {}) == [
        (websocket.WebSocketPayloadException, r"cannot decode: b'ab\xff'"),
        [],
    ]
    assert receive(encode_frame(8, b"\x03\xe8\xff"), [], {}) == [
        (websocket.WebSocketProtocolException, "Invalid close frame."),
        [],
    ]


def test_a_timeout_loses_nothing(installed) -> None:
    stream = encode_frame(1, TEXT.encode() * 3)
    results = receive(stream, list(range(1, len(stream))), {})
    received = [value for _, value in results[:-1] if isinstance(value, tuple)]
    assert received == [(ABNF.OPCODE_TEXT, TEXT.encode() * 3)]


@pytest.fixture(scope="module")
def server():
    """An echo server in a process of its own."""
    with Echo("--host", "127.0.0.1") as echo:
        yield echo.url


@pytest.mark.parametrize("patched", [False, True], ids=["stock", "fastws"])
def test_talks_to_a_server(server: str, patched: bool) -> None:
    with websocket_client.install() if patched else nullcontext():
        client = websocket.create_connection(server, timeout=10)
        for size in (0, 1, 125, 126, 65535, 65536, 300_000):
            text = (TEXT * (size // len(TEXT) + 1))[:size]
            client.send(text)
            assert client.recv() == text
            data = os.urandom(size)
            client.send_binary(data)
            assert client.recv() == data
        client.send_bytes(bytearray(b"mutable"))
        assert client.recv() == b"mutable"
        client.ping("are you there?")
        assert client.recv_data(control_frame=True) == (ABNF.OPCODE_PONG, b"are you there?")
        client.send_frame(ABNF.create_frame("frag", ABNF.OPCODE_TEXT, 0))
        client.send_frame(ABNF.create_frame(b"ment", ABNF.OPCODE_CONT, 0))
        client.send_frame(ABNF.create_frame(b"ed", ABNF.OPCODE_CONT, 1))
        assert client.recv() == "fragmented"
        client.send(b"\xff", ABNF.OPCODE_TEXT)
        opcode, data = client.recv_data()
        assert (opcode, data[:2]) == (ABNF.OPCODE_CLOSE, struct.pack("!H", 1007))
        client.shutdown()


def test_runs_an_app(server: str, installed) -> None:
    got: list[object] = []

    def on_message(app, message) -> None:
        got.append(message)
        if len(got) == 20:
            app.close()

    def on_open(app) -> None:
        for number in range(20):
            app.send(f"{number} {TEXT}")

    app = websocket.WebSocketApp(server, on_open=on_open, on_message=on_message)
    assert app.run_forever(ping_interval=0) is False
    assert got == [f"{number} {TEXT}" for number in range(20)]
