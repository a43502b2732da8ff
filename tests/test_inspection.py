"""The channel of `fastws echo --inspect`: what it shows, to whom, and how much it keeps."""

from __future__ import annotations

import json
import os
import socket
from http.client import HTTPConnection

import pytest
from websockets.sync.client import connect as websockets_connect

from fastws.cli._inspection import MAX_FRAMES, MAX_PAYLOAD, Scanner, refusal
from fastws.http import Headers, Request

from .tools import TIMEOUT, Echo, needs_uvloop, run_fastws

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs are stopped POSIX's way")

BOTH_LOOPS = [[], pytest.param(["--uvloop"], marks=needs_uvloop)]


def connect(server: Echo, path: str = "/", **options):
    # `proxy`: whatever the environment says, the tests connect to nothing else.
    return websockets_connect(server.url + path, proxy=None, open_timeout=TIMEOUT, **options)


def view(server: Echo):
    return connect(server, "/inspect", origin=server.http)


def batch(viewer) -> dict:
    viewer.send("next")
    return json.loads(viewer.recv(TIMEOUT))


def frames(viewer, port: int, count: int) -> list[dict]:
    """The next frames of one client; they arrive in one batch or several."""
    found: list[dict] = []
    while len(found) < count:
        found += [f for f in batch(viewer)["frames"] if f["peer"] == f"127.0.0.1:{port}"]
    return found


@pytest.fixture(scope="module", params=BOTH_LOOPS, ids=["asyncio", "uvloop"])
def server(request):
    with Echo("--inspect", *request.param) as server:
        yield server


# Frames ---------------------------------------------------------------------------------------

KEY = b"\x01\x02\x03\x04"
LARGE = bytes(range(256)) * 300
FRAMES = [
    (b"\x81\x80" + KEY, b"", 0),
    (b"\x01\x02", b"hi", 2),
    (b"\xff\x83" + KEY, b"abc", 3),  # everything is wrong with it
    (b"\x82\xfe\x00\x80" + KEY, bytes(128), 128),
    (b"\x82\x7f" + len(LARGE).to_bytes(8, "big"), LARGE[:MAX_PAYLOAD], len(LARGE)),
    (b"\x88\x02", b"\x03\xe8", 2),
]


@pytest.mark.parametrize("step", [1, 2, 7, 1000, 1 << 20])
def test_the_scanner_finds_frames_however_they_arrive(step):
    stream = b"".join(
        header + (LARGE if size == len(LARGE) else payload) for header, payload, size in FRAMES
    )
    found = []
    scanner = Scanner(lambda *frame: found.append(frame))
    for start in range(0, len(stream), step):
        scanner.feed(stream[start : start + step])
    assert found == [(*frame, True) for frame in FRAMES]
    scanner.end()
    scanner.feed(b"\x82\x7f" + bytes([127, *bytes(7)]) + b"abc")
    scanner.end()
    assert found[len(FRAMES) :] == [
        (b"\x82\x7f\x7f" + bytes(7), b"abc", 127 << 56, False),
    ]


def test_both_directions(server):
    with view(server) as viewer:
        with connect(server) as ws:
            ws.send("Hello")
            assert ws.recv(TIMEOUT) == "Hello"
            ws.send(bytes(100_000))
            ws.recv(TIMEOUT)
            assert ws.ping().wait(TIMEOUT)
            port = ws.local_address[1]
        shown = frames(viewer, port, 8)
    received = [frame for frame in shown if not frame["sent"]]
    sent = [frame for frame in shown if frame["sent"]]
    assert [frame["head"] for frame in sent] == ["8105", "827f00000000000186a0", "8a04", "8802"]
    assert [frame["size"] for frame in received] == [5, 100_000, 4, 2]
    assert [frame["head"][:4] for frame in received] == ["8185", "82ff", "8984", "8882"]
    assert sent[0]["payload"] == b"Hello".hex()
    assert sent[1]["payload"] == bytes(MAX_PAYLOAD).hex()
    assert all(frame["complete"] for frame in shown)
    assert len({frame["connection"] for frame in shown}) == 1


def test_a_violation_is_shown(server):
    handshake = (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    address = ("127.0.0.1", server.port)
    with view(server) as viewer, socket.create_connection(address, TIMEOUT) as sock:
        # The first frame comes with the handshake; the second one is of no known kind.
        sock.sendall(handshake + b"\x81\x80" + KEY + b"\x83\x85" + KEY + b"ab")
        answer = b""
        while b"\x03\xea" not in answer:  # 1002
            answer += sock.recv(4096)
        shown = frames(viewer, sock.getsockname()[1], 4)
    received = [(frame["head"], frame["complete"]) for frame in shown if not frame["sent"]]
    assert received == [("8180" + KEY.hex(), True), ("8385" + KEY.hex(), False)]
    echo, close = [frame for frame in shown if frame["sent"]]
    assert echo["head"] == "8100"
    assert close["head"].startswith("88")
    assert close["payload"].startswith("03ea")  # 1002


def test_only_the_last_frames_are_kept_and_only_on_request():
    with Echo("--inspect") as server:
        with connect(server) as ws:
            for number in range(MAX_FRAMES):
                ws.send(str(number))
                ws.recv(TIMEOUT)
        with view(server) as viewer:
            first = batch(viewer)
            assert len(first["frames"]) == MAX_FRAMES
            assert first["missed"] == 2 * MAX_FRAMES + 2 - MAX_FRAMES
            with connect(server) as ws:
                ws.send("later")
                ws.recv(TIMEOUT)
            with pytest.raises(TimeoutError):
                viewer.recv(0.2)
            assert batch(viewer)["missed"] == 0
        assert server.stop() == 0
        assert server.errors == ""


# Who may see them -----------------------------------------------------------------------------


def status(server: Echo, host: str, origin: str | None, path: str = "/inspect") -> int:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    headers = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
    }
    if origin is not None:
        headers["Origin"] = origin
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", 101),
        ("127.0.0.1:8080", "https://127.0.0.1:8080", 101),
        ("localhost", "http://localhost", 101),
        ("[::1]:8080", "http://[::1]:8080", 101),
        ("127.0.0.1:8080", None, 403),
        ("127.0.0.1:8080", "null", 403),
        ("127.0.0.1:8080", "http://127.0.0.1:8081", 403),
        ("127.0.0.1:8080", "http://evil.example", 403),
        ("evil.example:8080", "http://evil.example:8080", 403),  # DNS rebinding
        ("localhost.evil.example", "http://localhost.evil.example", 403),
        ("localhost:99999", "http://localhost:99999", 400),
        ("local host", "http://local host", 400),
    ],
)
def test_only_the_page_of_this_server_sees_frames(server, host, origin, expected):
    assert status(server, host, origin) == expected


def test_a_host_in_upper_case_is_the_same():
    headers = Headers({"Host": "example.com:8080", "Origin": "http://example.com:8080"})
    request = Request("GET", "/inspect", headers)
    assert refusal(request, "Example.COM") is None
    assert refusal(request, "example.org").status == 403


def test_without_the_option_there_is_no_channel():
    with Echo() as server:
        with connect(server, "/inspect") as ws:
            ws.send("next")
            assert ws.recv(TIMEOUT) == "next"
        connection = HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
        connection.request("GET", "/server.json")
        assert json.loads(connection.getresponse().read()) == {"inspect": False}
        connection.close()


def test_not_with_workers():
    result = run_fastws("echo", "--inspect", "--workers", "2", "--port", "1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "fastws echo: --inspect shows the frames of one process, so it cannot be used with "
        "--workers\n"
    )
