"""`fastws inspect`: what captured bytes mean, and which rules they break."""

from __future__ import annotations

import json
import shlex
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws import Agreement, ClientHandshake, Connection, PerMessageDeflate, Role, ServerHandshake
from fastws.cli import main
from fastws.cli._captures import Chunk, find_format, from_hex, from_packets, from_tshark
from fastws.cli._inspecting import Conversation, Frame, Head, Rest

from .tools import FASTWS, require

if TYPE_CHECKING:
    from collections.abc import Callable

HELLO = bytes.fromhex("818537fa213d7f9f4d5158")


def inspected(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, list[str]]:
    """Run the command; return its status and the lines that it prints."""
    status = main(["inspect", *args])
    return status, capsys.readouterr().out.splitlines()


def violations(data: bytes, sender: Role = Role.SERVER, **options: str) -> list[tuple[str, str]]:
    conversation = Conversation(**options)
    items = [*conversation.feed(sender, data), *conversation.end()]
    return [(rule.section, rule.text) for item in items for rule in item.violations]


# What is printed ------------------------------------------------------------------------


def test_a_frame_is_explained_byte_by_byte(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = inspected(capsys, "--hex", HELLO.hex(" "))
    assert status == 0
    assert lines == [
        '> text, 5 bytes: "Hello"',
        "         0  81                        FIN, opcode 0x1",
        "         1  85                        MASK, length 5",
        "         2  37 fa 21 3d               mask key",
        "         6  7f 9f 4d 51 58            unmasked 48 65 6c 6c 6f",
        "",
        "1 frame, 1 message, 0 violations",
    ]


def test_the_documentation_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs/explanation/limits.md").read_text("utf-8")
    command, _, output = page.partition("$ fastws inspect ")[2].partition("\n")
    assert inspected(capsys, *shlex.split(command)) == (0, output.partition("\n```")[0].split("\n"))


def test_a_line_for_each_frame(capsys: pytest.CaptureFixture[str]) -> None:
    data = "0103 48656c 8900 8002 6c6f c107 f248cdc9c90700 827e0100" + 256 * "00" + "8802 03e8 81"
    status, lines = inspected(capsys, "--brief", "--payload", "4", "--hex", data)
    assert status == 0
    assert lines == [
        '< text, 3 bytes, not the last fragment: "Hel"',
        "< ping, 0 bytes",
        '< continuation, 2 bytes: "lo"',
        '< = text message, 5 bytes, 2 frames: "Hell" and 1 more',
        "< text, 7 bytes, compressed",
        '< = text message, 5 bytes, compressed to 7 bytes: "Hell" and 1 more',
        "< binary, 256 bytes: 00 00 00 00 and 252 more",
        "< close, 2 bytes: 1000 (normal closure)",
        "< 1 byte at 284 not read: the beginning of a header",
        "6 frames, 3 messages, 0 violations",
    ]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = inspected(capsys, "--json", "--hex", HELLO.hex() + "8880f1f2f3f4")
    assert status == 0
    rows = [json.loads(line) for line in lines]
    assert rows[0] == {
        "connection": 1,
        "kind": "frame",
        "from": "client",
        "offset": 0,
        "fin": True,
        "rsv": [],
        "opcode": 1,
        "name": "text",
        "mask_key": "37fa213d",
        "length": 5,
        "captured": 5,
        "payload": b"Hello".hex(),
        "message": {
            "type": "text",
            "size": 5,
            "compressed_size": None,
            "frames": 1,
            "whole": True,
            "payload": b"Hello".hex(),
        },
        "violations": [],
    }
    assert rows[1]["close"] == {"code": 1005, "reason": ""}


def test_terminals_obey_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    head = b"GET /\x1b[2J HTTP/1.1\r\nHost: a\x9b\r\n\r\n"
    for options in ([], ["--json"], ["--brief"]):
        inspected(capsys, *options, "--hex", (head + b"\x81\x85" + bytes(4) + b"\x1b[2Jx").hex())
        _, lines = inspected(capsys, *options, "--hex", "88 0603e8 1b5b324a")
        assert all(line.isprintable() for line in lines)


def test_the_status_says_whether_a_rule_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = inspected(capsys, "--from", "server", "--hex", HELLO.hex())
    assert status == 1
    assert "<   ! RFC 6455 §5.1: frame from a server is masked (closes with 1002)" in lines
    assert lines[-1] == "1 frame, 1 message, 1 violation"


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--hex", "8"], 2, "not hexadecimal"),
        (["--hex", "\udcff"], 2, "not hexadecimal"),
        (["--extensions", "x", "--hex", "8100"], 2, "not an extension that can be read: x"),
        (["--tls-keys", "keys", "--hex", "8100"], 2, "needs packets"),
        (["/nonexistent/file"], 1, "cannot read /nonexistent/file: No such file"),
    ],
)
def test_mistakes_are_told(
    args: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *args]) == status
    assert message in capsys.readouterr().err


def test_a_pipe(tmp_path: Path) -> None:
    for data in (HELLO, HELLO.hex().encode(), b"GET / HTTP/1.1\r\n"):
        done = subprocess.run(
            [*FASTWS, "inspect", "--brief", "-"], input=data, capture_output=True, check=True
        )
        assert done.stdout.startswith((b'> text, 5 bytes: "Hello"', b"> 16 bytes at 0 not read"))


# Violations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "section", "text"),
    [
        ("9100", "§5.2", "reserved bit set: RSV3"),
        ("c900", "§5.2", "reserved bit set: RSV1"),
        ("8300", "§5.2", "reserved opcode: 0x3"),
        ("0900", "§5.5", "fragmented control frame: PING"),
        ("8000", "§5.4", "continuation frame without a message to continue"),
        ("010081 00", "§5.4", "new TEXT message inside a fragmented one"),
        ("818000000000", "§5.1", "frame from a server is masked"),
        ("817e000141", "§5.2", "length 1 is not encoded in the fewest bytes"),
        ("817f8000000000000000", "§5.2", "64-bit length with its most significant bit set"),
        ("897e007e" + 126 * "00", "§5.5", "control frame over 125 bytes: PING"),
        ("880103", "§5.5.1", "close frame with a payload of 1 byte"),
        ("880203ed", "§7.4", "close code 1005 may not be used in a close frame"),
        ("880303e8ff", "§5.5.1", "close reason is not UTF-8"),
        ("88008100", "§5.5.1", "frame after a close frame"),
        ("8101ff", "§8.1", "text message is not UTF-8"),
        ("0101c38000", "§8.1", "text message is not UTF-8"),
        ("c105ffffffffff", "RFC 7692 §7.2.2", "compressed message is not DEFLATE"),
    ],
)
def test_each_rule_is_named_and_reading_goes_on(octets: str, section: str, text: str) -> None:
    where = section if section.startswith("RFC") else f"RFC 6455 {section}"
    data = bytes.fromhex(octets)
    assert violations(data) == [(where, text)]
    if not text.startswith(("64-bit", "new", "frame after", "close")):
        conversation = Conversation()
        *_, last = conversation.feed(Role.SERVER, data + b"\x82\x02ok")
        assert isinstance(last, Frame)
        assert last.payload == b"ok"


def test_a_frame_may_break_many_rules() -> None:
    assert violations(bytes.fromhex("7b80")) == [
        ("RFC 6455 §5.2", "reserved bit set: RSV1 RSV2 RSV3"),
        ("RFC 6455 §5.2", "reserved opcode: 0xB"),
        ("RFC 6455 §5.1", "frame from a server is masked"),
    ]


def test_extensions_may_be_given() -> None:
    data = bytes.fromhex("c107f248cdc9c90700")
    assert not violations(data)
    assert not violations(data, extensions="permessage-deflate; server_no_context_takeover")
    assert violations(data, extensions="") == [("RFC 6455 §5.2", "reserved bit set: RSV1")]
    with pytest.raises(ValueError, match="not an extension that can be read: x"):
        Conversation("x")


def test_after_a_corrupt_message_nothing_is_guessed() -> None:
    data = bytes.fromhex("c105ffffffffff c107f248cdc9c90700 810141")
    conversation = Conversation()
    items = list(conversation.feed(Role.SERVER, data))
    messages = [item.message for item in items if isinstance(item, Frame)]
    assert [message is not None and message.is_whole for message in messages] == [0, 0, 1]
    assert sum(len(item.violations) for item in items) == 1


@pytest.mark.parametrize(
    "octets",
    [
        "808000",
        "8080010203",
        "81ff80",
        "81ff8000000000000000 0102030405",
        "827fff00000000000000 41",
    ],
)
def test_a_frame_is_the_same_however_it_is_split(octets: str) -> None:
    data = bytes.fromhex(octets)
    for sender in Role:
        whole = Conversation()
        items = [*whole.feed(sender, data), *whole.end()]
        for cut in range(len(data)):
            split = Conversation()
            parts = [*split.feed(sender, data[:cut]), *split.feed(sender, data[cut:])]
            assert [*parts, *split.end()] == items


@given(st.binary(max_size=300), st.data())
def test_any_bytes_are_read_whole_however_they_are_split(data: bytes, draw: st.DataObject) -> None:
    cut = draw.draw(st.integers(0, len(data)))
    for sender in Role:
        whole, split = Conversation(), Conversation()
        items = [*whole.feed(sender, data), *whole.end()]
        assert items == [
            *split.feed(sender, data[:cut]),
            *split.feed(sender, data[cut:]),
            *split.end(),
        ]
        sizes = [
            len(item.octets)
            if isinstance(item, Head)
            else item.size
            if isinstance(item, Rest)
            else len(item.header) + len(item.key) + len(item.octets)
            if isinstance(item, Frame)
            else -1
            for item in items
        ]
        assert sum(sizes) == len(data)


@given(st.lists(st.text() | st.binary(), max_size=8), st.booleans(), st.sampled_from(list(Role)))
def test_what_a_connection_sends_breaks_no_rule(
    sent: list[str | bytes], is_compressed: bool, role: Role
) -> None:
    agreement = Agreement(
        role=role,
        config=PerMessageDeflate(threshold=0),
        context_takeover=True,
        peer_context_takeover=True,
        max_window_bits=12,
        peer_max_window_bits=15,
    )
    connection = Connection(role, deflate=agreement if is_compressed else None)
    for message in sent:
        connection.send(message)
    connection.close(1000, "bye")
    conversation = Conversation()
    items = list(conversation.feed(role, connection.data_to_send()))
    frames = [item for item in items if isinstance(item, Frame)]
    assert len(frames) == len(items)
    assert not any(frame.violations for frame in frames)
    messages = [frame.message for frame in frames if frame.message is not None]
    assert [
        message.payload.decode() if message.opcode == 1 else message.payload for message in messages
    ] == sent


def test_what_follows_a_length_that_cannot_be() -> None:
    data = bytes.fromhex("827fffffffffffffffff 0102 8100".replace(" ", ""))
    conversation = Conversation()
    *frames, rest = [
        *conversation.feed(Role.SERVER, data[:-2]),
        *conversation.feed(Role.SERVER, data[-2:]),
        *conversation.end(),
    ]
    assert len(frames) == 1
    assert isinstance(rest, Rest)
    assert (rest.offset, rest.size) == (10, 4)


# The opening handshake ------------------------------------------------------------------


def talk() -> tuple[bytes, bytes]:
    """Return what a client and a server send, compressed and with context takeover."""
    deflate = PerMessageDeflate(threshold=0)
    client = ClientHandshake("ws://localhost/", extensions=[deflate])
    server = ServerHandshake(extensions=[deflate])
    request = server.receive_data(client.request())
    assert request is not None
    response = server.accept(request)
    client.receive_data(response)
    sides = []
    for role, handshake in ((Role.CLIENT, client), (Role.SERVER, server)):
        connection = Connection(role, deflate=handshake.deflate)
        for _ in range(2):
            connection.send("Hello Hello Hello")
        connection.close()
        sides.append(connection.data_to_send())
    return client.request() + sides[0], response + sides[1]


def test_a_whole_connection() -> None:
    client, server = talk()
    conversation = Conversation()
    items = [
        *conversation.feed(Role.CLIENT, client[:100]),
        *conversation.feed(Role.CLIENT, client[100:-2]),
        *conversation.feed(Role.SERVER, server),
        *conversation.feed(Role.CLIENT, client[-2:]),
        *conversation.end(),
    ]
    assert not any(item.violations for item in items)
    frames = [item for item in items if isinstance(item, Frame)]
    messages = [frame.message.payload for frame in frames if frame.message is not None]
    assert messages == [b"Hello Hello Hello"] * 4
    assert [item.octets[:4] for item in items if isinstance(item, Head)] == [b"GET ", b"HTTP"]


@pytest.mark.parametrize(
    ("before", "after", "section", "text"),
    [
        (b"Version: 13", b"Version: 12", "RFC 6455 §4.2.1", "version"),
        (b"Key: ", b"Key: !", "RFC 6455 §4.2.1", "Sec-WebSocket-Key"),
        (b"Host:", b"Host", "RFC 6455 §4.2.1", ""),
        (b"Accept: ", b"Accept: !", "RFC 6455 §4.2.2", "Sec-WebSocket-Accept does not answer"),
        (b"Upgrade\r\nSec", b"Close\r\nSec", "RFC 6455 §4.2.2", "Connection does not say upgrade"),
        (b"permessage-deflate", b"x", "RFC 6455 §9.1", "not an extension that can be read: x"),
        (b"101 Switching Protocols", b"\xff", "RFC 9112", ""),
    ],
)
def test_a_handshake_is_checked(before: bytes, after: bytes, section: str, text: str) -> None:
    client, server = talk()
    conversation = Conversation()
    is_request = section.endswith("4.2.1")
    if is_request:
        client = client.replace(before, after, 1)
    else:
        server = server.replace(before, after, 1)
    items = [*conversation.feed(Role.CLIENT, client), *conversation.feed(Role.SERVER, server)]
    rules = [rule for item in items for rule in item.violations if isinstance(item, Head)]
    assert section in [rule.section for rule in rules]
    assert any(text in rule.text for rule in rules)


def test_a_refusal_is_not_read_as_frames() -> None:
    conversation = Conversation()
    client, _ = talk()
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n"
    items = [
        *conversation.feed(Role.SERVER, head + b"no"),
        *conversation.feed(Role.CLIENT, client),
        *conversation.end(),
    ]
    reasons = {item.sender: item.reason for item in items if isinstance(item, Rest)}
    assert reasons == {
        Role.SERVER: "the server answered 403",
        Role.CLIENT: "the opening handshake failed",
    }
    assert not any(item.violations for item in items)


# Captures -------------------------------------------------------------------------------


def test_hexadecimal_in_every_spelling(tmp_path: Path) -> None:
    data = b"\x81\x05Hello\x82\x7e\x01\x00" + bytes(range(256))
    assert find_format(data) == "raw"
    spellings = [
        data.hex(),
        data.hex(" ").upper(),
        data.hex(":"),
        "".join(f"\\x{byte:02x}" for byte in data),
        ", ".join(f"0x{byte:02x}" for byte in data),
        repr(data),
        # hexdump -C, xxd, Wireshark
        *(
            "\n".join(
                form(position, data[position : position + 16])
                for position in range(0, len(data), 16)
            )
            for form in (
                lambda at, row: (
                    f"{at:08x}  {row[:8].hex(' ')}  {row[8:].hex(' ')}  |{printed(row)}|"
                ),
                lambda at, row: f"{at:08x}: {row.hex(' ', 2)}  {printed(row)}",
                lambda at, row: f"{at:04x}   {row.hex(' ')}   {printed(row)}",
            )
        ),
    ]
    for text in spellings:
        assert from_hex(f" {text}\n") == data
        assert find_format(text.encode()) == "hex"
    for text in ("", " ", "8", "81 0", "xx", "b'", "b'a' + b'b'", "GET / HTTP/1.1"):
        with pytest.raises(ValueError, match="not "):
            from_hex(text)


def test_what_begins_like_a_literal_may_be_anything() -> None:
    for text in ("b''+" * 20_000 + "b''", "b''" + "-" * 100_000 + "1", "b''if 1else 2"):
        assert find_format(text.encode()) == "raw"
        with pytest.raises(ValueError, match="not a literal of bytes"):
            from_hex(text)
    for text in ("b''", "b'\\\n'"):
        assert find_format(text.encode()) == "raw"
        with pytest.raises(ValueError, match="not hexadecimal"):
            from_hex(text)
    # Python warns about this one; it must not warn about our input.
    assert from_hex(r"b'\x81\q'") == b"\x81\\q"


def printed(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)


def ethernet(source: int, target: int, sequence: int, flags: int, data: bytes) -> bytes:
    """A TCP segment between two ports of 127.0.0.1, in an Ethernet frame."""
    tcp = struct.pack("!HHIIBBHHH", source, target, sequence % 2**32, 0, 0x50, flags, 9, 0, 0)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 9, 6, 0)
    return bytes(12) + b"\x08\x00" + ip + b"\x7f\0\0\1\x7f\0\0\1" + tcp + data


def pcap(packets: list[bytes]) -> bytes:
    head = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    return head + b"".join(
        struct.pack("<IIII", 1, 0, len(packet), len(packet)) + packet for packet in packets
    )


def pcapng(packets: list[bytes]) -> bytes:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack(">I", len(body) + 12)
        return struct.pack(">I", kind) + size + body + size

    return (
        block(0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 1, 0, -1))
        + block(1, struct.pack(">HHI", 1, 0, 65535))
        + b"".join(
            block(6, struct.pack(">IIIII", 0, 0, 1, len(packet), len(packet)) + packet)
            for packet in packets
        )
    )


def segments(client: bytes, server: bytes, size: int = 50) -> list[bytes]:
    """Two streams in segments: each pair is swapped, and each segment is sent twice."""
    start = 2**32 - 70  # sequence numbers wrap around
    syn = [
        ethernet(5000, 80, start - 1, 0x02, b""),
        ethernet(80, 5000, 999, 0x12, b""),
    ]
    sides = [
        [ethernet(a, b, first + at, 0x18, data[at : at + size]) for at in range(0, len(data), size)]
        for a, b, first, data in ((5000, 80, start, client), (80, 5000, 1000, server))
    ]
    packets = []
    for side in sides:
        for at in range(0, len(side), 2):
            packets += [*side[at : at + 2][::-1], side[at]]
    return syn + packets


def sides(chunks: list[Chunk]) -> list[bytes]:
    return [
        b"".join(chunk.data for chunk in chunks if chunk.from_first is first)
        for first in (True, False)
    ]


@pytest.mark.parametrize("write", [pcap, pcapng])
def test_packets_are_put_in_order(write, tmp_path: Path) -> None:
    client, server = talk()
    data = write([*segments(client, server), b"", bytes(60)])
    (flow,) = from_packets(data)
    assert (flow.first, flow.second) == ("127.0.0.1:5000", "127.0.0.1:80")
    assert sides(flow.chunks) == [client, server]
    # tshark finds the same.
    require("tshark", install="apt install tshark")
    path = tmp_path / "capture"
    path.write_bytes(data)
    assert [(*flow[:2], sides(flow.chunks))] == [
        (*flow[:2], sides(flow.chunks)) for flow in from_tshark(str(path))
    ]


@pytest.fixture(params=[False, True], ids=["alone", "tshark"])
def reader(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reassembles captures: we, or tshark."""
    if request.param:
        require("tshark", install="apt install tshark")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("reader")
def test_a_capture_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "capture"
    path.write_bytes(pcap(segments(*talk())))
    status, lines = inspected(capsys, "--brief", str(path))
    assert status == 0
    assert lines[:2] == ["127.0.0.1:5000 -> 127.0.0.1:80", "> GET / HTTP/1.1"]
    assert "< HTTP/1.1 101 Switching Protocols" in lines
    assert sum("text message, 17 bytes, compressed" in line for line in lines) == 4
    assert lines[-1] == "6 frames, 4 messages, 0 violations"


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("write", [pcap, pcapng])
def test_what_comes_before_a_cut_is_printed(
    write: Callable[[list[bytes]], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packets = segments(*talk())
    path = tmp_path / "capture"
    whole, rest = write(packets), len(write(packets)) - len(write(packets[:-1]))
    # Of the last packet, the end is missing, or everything but the beginning of its header.
    for data in (whole[:-5], whole[: 9 - rest]):
        path.write_bytes(data)
        main(["inspect", "--brief", str(path)])
        output = capsys.readouterr()
        assert output.out.startswith("127.0.0.1:5000 -> 127.0.0.1:80\n> GET / HTTP/1.1\n")
        assert "text message, 17 bytes, compressed" in output.out
        assert output.err.count("the capture is truncated") == 1


def test_what_was_not_captured_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    packets = segments(*talk())
    path = tmp_path / "capture"
    path.write_bytes(pcap([packet for packet in packets if packet not in packets[5:7]]))
    main(["inspect", str(path)])
    assert "some bytes of the client were not captured" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [1, 5, 17, 30, 70])
def test_a_damaged_capture_is_an_error(cut: int) -> None:
    for write in (pcap, pcapng):
        data = write([ethernet(1, 2, 3, 0x18, HELLO)])
        with pytest.raises(ValueError, match=r"damaged, or ends too early|link type"):
            from_packets(data[: 4 + cut] if cut < 60 else data[:-cut])


def test_a_capture_without_tcp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "capture"
    path.write_bytes(pcap([bytes(60)]))
    assert main(["inspect", str(path)]) == 1
    assert "no TCP connection with data" in capsys.readouterr().err
