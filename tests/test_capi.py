"""fastws.capi as another Cython project uses it: compiled against the installed package.

The results are compared to the Python API. tests/capi_consumer is that other project.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import fastws
from fastws import (
    Connection,
    FrameDecoder,
    MessageDecoder,
    MessageEncoder,
    Opcode,
    Role,
    capi,
    encode_frame,
)
from fastws import _py as pure

from .tools import Program, free_port, run

HERE = Path(__file__).parent
KEY = b"\x01\xf2\x83\x04"
SETUP = """
from setuptools import Extension, setup

setup(
    name="consumer",
    py_modules=[],
    ext_modules=[Extension(name, [f"{name}.pyx"]) for name in ("consumer", "echo")],
)
"""
# If these change, so does the interface that consumers were compiled against. They all must be
# recompiled, and CHANGELOG.md must say so.
SIGNATURES = {
    "append": "Py_ssize_t (fastws_MessageEncoder *, PyObject *, uint8_t const *)",
    "append_frame": (
        "Py_ssize_t (fastws_MessageEncoder *, uint8_t, uint8_t const *, Py_ssize_t,"
        " uint8_t const *)"
    ),
    "buffers_to_send": "PyObject *(fastws_Connection *)",
    "decode_utf8": "PyObject *(uint8_t const *, Py_ssize_t, uint8_t const *)",
    "feed": "PyObject *(fastws_MessageDecoder *, uint8_t const *, Py_ssize_t)",
    "feed_frames": "PyObject *(fastws_FrameDecoder *, uint8_t const *, Py_ssize_t)",
    "feed_utf8": "int (uint32_t *, uint8_t const *, size_t)",
    "header_error": "PyObject *(uint8_t const *, Py_ssize_t, int, int)",
    "is_utf8": "int (uint8_t const *, size_t)",
    "mask": "void (uint8_t *, uint8_t const *, size_t, uint8_t const *, uint64_t)",
    "pending": "Py_ssize_t (fastws_MessageEncoder *)",
    "read_header": ("int (uint8_t const *, Py_ssize_t, int, int, struct fastws_frame_header_1 *)"),
    "receive_data": "PyObject *(fastws_Connection *, uint8_t const *, Py_ssize_t)",
    "send": "Py_ssize_t (fastws_Connection *, PyObject *)",
    "take": "PyObject *(fastws_MessageEncoder *)",
    "take_buffers": "PyObject *(fastws_MessageEncoder *)",
    "write_header": "int (uint8_t *, uint8_t, uint64_t, uint8_t const *)",
}
# The size of FrameHeader and the offsets of its fields. If they change, the number in its name
# must change too, because compiled consumers identify it by that.
LAYOUT = (24, 0, 8, 12, 16)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the other project, compiled."""
    folder = tmp_path_factory.mktemp("consumer")
    for name in ("consumer.pyx", "echo.pyx", "use.py"):
        shutil.copy(HERE / "capi_consumer" / name, folder)
    (folder / "setup.py").write_text(SETUP)
    result = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        env=os.environ | {"CFLAGS": f"{os.environ.get('CFLAGS', '')} -O0"},  # compiles faster
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return folder


def load(folder: Path, name: str) -> Any:
    (path,) = (path for path in folder.glob(f"{name}.*") if path.suffix in (".so", ".pyd"))
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def consumer(built: Path) -> Any:
    return load(built, "consumer")


def described(error: Exception | None) -> tuple[object, ...]:
    return type(error), str(error), getattr(error, "close_code", None)


# Messages -----------------------------------------------------------------------------


STREAM = b"".join(
    (
        encode_frame(Opcode.TEXT, b"Hello", key=KEY),
        encode_frame(Opcode.BINARY, bytes(range(256)) * 2, key=KEY),
        encode_frame(Opcode.PING, b"there?", key=KEY),
        encode_frame(Opcode.TEXT, "hé".encode()[:2], fin=False, key=KEY),
        encode_frame(Opcode.PONG, key=KEY),
        encode_frame(Opcode.CONTINUATION, "hé".encode()[2:] + "😀".encode(), key=KEY),
    )
)
EVENTS = [
    "Hello",
    bytes(range(256)) * 2,
    fastws.Ping(b"there?"),
    fastws.Pong(b""),
    "hé😀",
]
CLOSE = encode_frame(Opcode.CLOSE, b"\x03\xe8bye", key=KEY)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_messages_and_the_close_frame_are_decoded(consumer: Any, size: int) -> None:
    stream = STREAM + CLOSE
    decoder = consumer.new_decoder()
    events = []
    for start in range(0, len(stream), size):
        events += consumer.feed(decoder, stream[start : start + size])
    assert events == [*EVENTS, fastws.Close(1000, "bye")]
    assert decoder.error is None
    assert consumer.feed(decoder, STREAM) == []


@pytest.mark.parametrize(
    "bad",
    [
        encode_frame(Opcode.TEXT, b"abc\xff", key=KEY),
        encode_frame(Opcode.TEXT, b"abc"),
        encode_frame(Opcode.BINARY, bytes(1001), key=KEY),
        b"\xf1",
    ],
    ids=["UTF-8", "unmasked", "too big", "RSV"],
)
def test_a_violation_comes_after_what_was_good(consumer: Any, bad: bytes) -> None:
    decoder = consumer.new_decoder()
    reference = MessageDecoder(masked=True, max_message_size=1000)
    assert consumer.feed(decoder, STREAM + bad) == reference.feed(STREAM + bad) == EVENTS
    assert reference.error is not None
    assert described(decoder.error) == described(reference.error)
    assert consumer.feed(decoder, STREAM) == []


def test_no_data_may_have_no_address(consumer: Any) -> None:
    decoder = consumer.new_decoder()
    assert consumer.feed(decoder, STREAM[:3]) == []
    assert consumer.feed(decoder, None) == []
    assert consumer.feed(decoder, STREAM[3:]) == EVENTS


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize(
    "message",
    [
        *("", "ascii", "hé", "x" * 200, b"", b"data", bytearray(b"ba"), memoryview(b"mv")),
        *("é" * 70_000, fastws.Text("hé".encode())),
    ],
    ids=range(10),
)
def test_a_message_is_encoded(consumer: Any, message: Any, key: bytes | None) -> None:
    encoder, reference = MessageEncoder(), MessageEncoder()
    if isinstance(message, (str, fastws.Text)):
        count = reference.text(message, key)
    else:
        count = reference.binary(message, key)
    assert consumer.append(encoder, message, key) == count == consumer.pending(encoder)
    assert consumer.take(encoder) == reference.take()
    assert consumer.pending(encoder) == 0
    assert consumer.take(encoder) == b""


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.CLOSE])
@pytest.mark.parametrize("payload", [None, b"ab" * 30], ids=["empty", "some"])
def test_a_frame_is_encoded(
    consumer: Any, opcode: int, payload: bytes | None, key: bytes | None
) -> None:
    encoder = MessageEncoder()
    frame = encode_frame(opcode, payload or b"", key=key)
    assert consumer.append_frame(encoder, 0x80 | opcode, payload, key) == len(frame)
    assert consumer.take(encoder) == frame


def test_large_payloads_are_not_copied(consumer: Any) -> None:
    encoder = MessageEncoder()
    large = bytes(70_000)
    consumer.append(encoder, "first")
    consumer.append(encoder, large)
    head, payload = consumer.take_buffers(encoder)
    assert payload is large
    assert head == encode_frame(1, b"first") + encode_frame(2, large)[:10]
    assert consumer.take_buffers(encoder) == []


def test_what_cannot_be_encoded_is_an_error(consumer: Any) -> None:
    encoder = MessageEncoder()
    for key in (None, KEY):
        with pytest.raises(TypeError, match="bytes-like"):
            consumer.append(encoder, 3, key)
        with pytest.raises(ValueError, match="surrogates"):
            consumer.append(encoder, "\ud800", key)
        with pytest.raises(ValueError, match="3 is not a valid Opcode"):
            consumer.append_frame(encoder, 0x83, b"", key)
        with pytest.raises(ValueError, match="control frame must not be fragmented"):
            consumer.append_frame(encoder, Opcode.PING, b"", key)
        with pytest.raises(ValueError, match="payload of PING must be at most 125 bytes"):
            consumer.append_frame(encoder, 0x80 | Opcode.PING, bytes(126), key)
        with pytest.raises(fastws.StateError):
            consumer.append_frame(encoder, Opcode.CONTINUATION, b"", key)
        assert consumer.take(encoder) == b""
    consumer.append_frame(encoder, Opcode.TEXT, b"a")
    for key in (None, KEY):
        with pytest.raises(fastws.StateError):
            consumer.append(encoder, "b", key)
    consumer.append_frame(encoder, 0x80, b"b")
    assert consumer.take(encoder) == b"\x01\x01a\x80\x01b"


# Connections ---------------------------------------------------------------------------


def test_a_connection_talks(consumer: Any) -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    assert consumer.send(client, "Hello") == 11
    client.ping(b"there?")
    data = b"".join(consumer.buffers_to_send(client))
    assert consumer.receive_data(server, data) == ["Hello", fastws.Ping(b"there?")]
    consumer.send(server, bytes(3))
    server.close(1000, "bye")
    events = consumer.receive_data(client, b"".join(consumer.buffers_to_send(server)))
    assert events == [fastws.Pong(b"there?"), bytes(3), fastws.Close(1000, "bye")]
    with pytest.raises(fastws.ConnectionClosed):
        consumer.send(server, "too late")


# Frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10_000])
def test_frames_are_decoded(consumer: Any, size: int) -> None:
    decoder, reference = FrameDecoder(masked=True), FrameDecoder(masked=True)
    stream = STREAM + CLOSE + b"\x83\x80"
    frames = []
    for start in range(0, len(stream), size):
        frames += consumer.feed_frames(decoder, stream[start : start + size])
    assert frames == reference.feed(stream)
    assert len(frames) == 7
    assert described(decoder.error) == described(reference.error)
    assert consumer.feed_frames(decoder, STREAM) == []


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536, 2**63 - 1])
def test_a_header_is_written_and_read(consumer: Any, length: int, key: bytes | None) -> None:
    header = consumer.write_header(0x82, length, key)
    if length <= 65536:
        assert header == encode_frame(2, bytes(length), key=key)[: len(header)]
    read = (len(header), 0x82, length, key is not None, key or bytes(4))
    assert consumer.read_header(header) == consumer.read_header(header + b"more") == read
    assert consumer.read_header(header, 0, int(key is not None)) == read
    for size in range(len(header)):
        assert consumer.read_header(header[:size]) == (0, None)


@pytest.mark.parametrize("masked", [-1, 0, 1])
@pytest.mark.parametrize("rsv", [0, 0x40, 0x10, 0x70])
def test_a_bad_header_is_refused_at_its_first_bad_byte(
    consumer: Any, rsv: int, masked: int
) -> None:
    options = {f"rsv{i}": bool(rsv & 0x80 >> i) for i in (1, 2, 3)}
    tails = (b"", b"\x05", b"\x81", b"\x7e\0\x7d", b"\x7e\0\x7e", b"\xff" + b"\x80" + bytes(7))
    found = set()
    for first, tail in product(range(256), tails):
        decoder = FrameDecoder(
            masked=None if masked < 0 else bool(masked), max_payload_size=None, **options
        )
        decoder.feed(bytes([first]) + tail)
        result, *rest = consumer.read_header(bytes([first]) + tail, rsv, masked)
        assert (result == -1) == (decoder.error is not None)
        if result == -1:
            assert described(rest[0]) == described(decoder.error)
            found.add(str(rest[0]))
    assert len(found) >= 19


# Payloads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5, 8, 63, 200, 70_000])
@pytest.mark.parametrize("offset", [0, 3, 2**40 + 2])
def test_a_payload_is_masked(consumer: Any, size: int, offset: int) -> None:
    data = os.urandom(size)
    buffer = bytearray(data)
    consumer.mask(buffer, KEY, offset)
    assert buffer == fastws.apply_mask(data, KEY, offset)


@pytest.mark.parametrize(
    "data",
    [b"", b"abc", "hé€😀".encode() * 50, b"\xff", b"\xed\xa0\x80", b"\xe2\x82", b"ab\xf4\x90"],
    ids=repr,
)
def test_text_is_validated_and_decoded(consumer: Any, data: bytes) -> None:
    valid = fastws.is_utf8(data)
    assert consumer.is_utf8(data) == valid
    for cut in range(min(len(data), 12)):
        pieces = [data[:cut], b"", *(data[i : i + 1] for i in range(cut, len(data)))]
        validator = fastws.Utf8Validator()
        follows = all(validator.feed(piece) for piece in pieces)
        whole = validator.complete if follows else None
        assert consumer.feed_utf8(pieces) == (follows, whole)
    for key in (None, KEY):
        masked = data if key is None else fastws.apply_mask(data, key)
        if valid:
            assert consumer.decode_utf8(masked, key) == data.decode()
        else:
            with pytest.raises(UnicodeDecodeError):
                consumer.decode_utf8(masked, key)


def test_the_constants_are_those_of_the_rfc(consumer: Any) -> None:
    assert consumer.constants() == [0x80, 0x40, 0x20, 0x10, *Opcode, 0xC1]


def test_the_documentation_has_a_consumer_that_works(built: Path) -> None:
    echo = load(built, "echo").Echo()
    expected = MessageEncoder()
    for event in EVENTS:
        if isinstance(event, str):
            expected.text(event)
        elif isinstance(event, bytes):
            expected.binary(event)
    assert echo.data_received(STREAM) == expected.take()
    result = subprocess.run(
        [sys.executable, "use.py"],
        cwd=built,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "['Hello Server!']\n")


# What goes wrong ---------------------------------------------------------------------------


def test_another_object_is_refused(consumer: Any) -> None:
    from fastws._py.messages import MessageDecoder as PureDecoder

    for wrong in (None, 3, PureDecoder(masked=True), MessageEncoder()):
        with pytest.raises(TypeError):
            consumer.feed(wrong, b"")
    for call, *args in (
        (consumer.feed_frames, b""),
        (consumer.append, "text"),
        (consumer.append_frame, 0x81),
        (consumer.pending,),
        (consumer.take,),
        (consumer.take_buffers,),
        (consumer.receive_data, b""),
        (consumer.send, "text"),
        (consumer.buffers_to_send,),
    ):
        for wrong in (None, object(), pure):
            with pytest.raises(TypeError):
                call(wrong, *args)


def test_the_interface_is_the_one_that_consumers_were_compiled_against(consumer: Any) -> None:
    found = {name: repr(capsule) for name, capsule in capi.__pyx_capi__.items()}
    assert found.keys() == SIGNATURES.keys()
    for name, signature in SIGNATURES.items():
        assert f'"{signature}"' in found[name]
    assert consumer.header_layout() == LAYOUT


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            'capi["feed"] = capi["take"]',
            "TypeError: C function fastws.capi.feed has wrong signature",
        ),
        ('del capi["mask"]', "ImportError: fastws.capi does not export expected C function mask"),
        ('sys.modules["fastws.capi"] = None', "ModuleNotFoundError: import of fastws.capi halted"),
    ],
    ids=["changed", "gone", "not compiled"],
)
def test_another_interface_is_an_error_at_import(built: Path, change: str, error: str) -> None:
    code = f"import sys, fastws.capi\ncapi = fastws.capi.__pyx_capi__\n{change}\nimport consumer"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = (str(built), str(Path(fastws.__file__).parents[1]))
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=env | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith(error)


def test_threads_may_share_an_object(consumer: Any) -> None:
    encoder, counts = MessageEncoder(), []
    barrier = threading.Barrier(3)

    def work() -> None:
        barrier.wait()
        for number in range(3000):
            consumer.append(encoder, "ten octets", KEY if number & 1 else None)
            consumer.append_frame(encoder, 0x82, b"ten octets")
            if not number % 100:
                counts.append(len(consumer.take(encoder)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.append(len(consumer.take(encoder)))
    assert sum(counts) == 3 * 3000 * (12 + 12 + 2)


# The example ----------------------------------------------------------------------------


def test_the_example_echoes(tmp_path: Path) -> None:
    folder = shutil.copytree(HERE.parent / "examples" / "cython_server", tmp_path / "example")
    result = run(
        *(sys.executable, "setup.py", "build_ext", "--inplace"),
        cwd=folder,
        env=os.environ | {"CFLAGS": f"{os.environ.get('CFLAGS', '')} -O0"},
    )
    assert result.returncode == 0, result.stderr
    port = free_port()
    server = folder / "server.py"
    server.write_text(server.read_text("utf-8").replace("8080", str(port)), "utf-8")
    with Program(sys.executable, "-W", "error", str(server)) as program:
        program.wait_for_port(port)
        asyncio.run(talk(f"ws://localhost:{port}"))
        assert program.stop(signal.SIGINT) == 0
        assert program.errors == ""


async def talk(url: str) -> None:
    async with fastws.connect(url) as ws:
        await ws.send("Hello Server!")
        await ws.send(bytes(100_000))
        assert [await ws.recv(), await ws.recv()] == ["Hello Server!", bytes(100_000)]
        await ws.ping()
        await ws.close(3000, "bye")
        assert (ws.close_code, ws.close_reason) == (3000, "bye")
    port = fastws.ClientHandshake(url).uri.port
    for sent, answered in ((b"nonsense\r\n\r\n", b"HTTP/1.1 400 "), (b"", b"")):
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(sent)
        writer.write_eof()
        assert (await reader.read()).startswith(answered)
        writer.close()
        await writer.wait_closed()
