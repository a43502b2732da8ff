"""Several threads at once, with their own objects and with shared ones.

threads.md promises that objects are independent of each other, and that immutable ones can be
shared freely. A call of a compiled decoder, encoder or validator is atomic, in whatever order
threads make them; in pure Python, threads that share such an object need a lock.

With a GIL, threads take turns, and these tests make the turns short. On a free-threaded build
they run at once, and a missing lock shows.
"""

from __future__ import annotations

import sys
import threading
import zlib
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastws import Close, CloseCode, Connection, Ping, Pong, Role, connection
from fastws.codec import implementation
from fastws.deflate import Inflater, PartInflater, deflate_alone
from fastws.exceptions import StateError
from fastws.prepared import prepare
from fastws.spec import Opcode, State

from .tools import FREE_THREADED, TIMEOUT
from .wire import agreement, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS = 4
ROUNDS = 60 if FREE_THREADED else 30
KEY = b"\x9d\x01\xfe\x42"
# From this size on, the kernels run without the GIL.
LARGE = 64 << 10
# The base of `Connection`.
IN_USE = SimpleNamespace(name=implementation)


@pytest.fixture(autouse=True)
def short_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*work: Callable[[], object], copies: int = 1) -> None:
    """Run each of these in its own threads, all starting together; raise what they raise."""
    jobs = [job for job in work for _ in range(copies)]
    begin = threading.Barrier(len(jobs))
    raised: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        begin.wait(TIMEOUT)
        try:
            job()
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    if raised:
        raise raised[0]


class Locked:
    """An object of the pure-Python twin with a lock, as its users have to use it."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                return value(*args, **kwargs)

        with self._lock:
            value = getattr(self._value, name)
        return call if callable(value) else value

    def __len__(self) -> int:
        with self._lock:
            return len(self._value)


def shared(twin: SimpleNamespace, value: Any) -> Any:
    return value if twin.name == "c" else Locked(value)


# What is sent: chunks of whole messages, with what is to come out of each ---------------------


def chunks(twin: SimpleNamespace, number: int) -> Iterator[tuple[bytes, list[Any]]]:
    """Streams that end at the end of a message; no two non-empty messages are the same."""

    def frame(opcode: int, payload: str | bytes, **options: Any) -> bytes:
        octets = payload.encode() if isinstance(payload, str) else payload
        encoded: bytes = twin.encode_frame(opcode, octets, key=KEY, **options)
        return encoded

    for n in range(ROUNDS):
        name = f"{number}.{n}"
        text, beyond, long = f"text {name}", f"téxt ☂ {name} " * 9, f"{name} 😀 " * 30
        binary = name.encode() * 40
        yield (
            frame(Opcode.TEXT, text)
            + frame(Opcode.PING, name.encode())
            + frame(Opcode.BINARY, binary)
            + frame(Opcode.TEXT, beyond, fin=False)
            + frame(Opcode.PONG, binary[:99])
            + frame(Opcode.CONTINUATION, long),
            [text, Ping(name.encode()), binary, Pong(binary[:99]), beyond + long],
        )
        if n % 16 == 0:
            large = name.encode() * (LARGE // len(name) + 1)
            yield frame(Opcode.BINARY, large), [large]
            yield frame(Opcode.TEXT, large.decode()) * 2, [large.decode()] * 2


def frames(twin: SimpleNamespace, number: int) -> Iterator[tuple[bytes, list[Any]]]:
    for n in range(ROUNDS):
        payload = f"{number}.{n}".encode() * 30
        stream = twin.encode_frame(Opcode.BINARY, payload, key=KEY)
        stream += twin.encode_frame(Opcode.TEXT, payload, fin=False)
        yield (
            stream,
            [twin.Frame(Opcode.BINARY, payload), twin.Frame(Opcode.TEXT, payload, fin=False)],
        )


# Objects of their own -------------------------------------------------------------------


def test_separate_objects(twin: SimpleNamespace) -> None:
    """The results are exactly what one thread gets."""

    def decode(number: int) -> None:
        decoder, stream = twin.MessageDecoder(masked=True), b""
        expected: list[Any] = []
        for chunk, events in chunks(twin, number):
            stream += chunk
            expected += events
        events = []
        for start in range(0, len(stream), 997):
            events += decoder.feed(stream[start : start + 997])
        assert events == expected
        assert decoder.error is None

    def decode_frames(number: int) -> None:
        decoder = twin.FrameDecoder(masked=None)
        for chunk, expected in frames(twin, number):
            got = decoder.feed(chunk[:5]) + decoder.feed(chunk[5:])
            assert got == expected

    def encode(number: int) -> None:
        encoder, decoder = twin.MessageEncoder(), twin.MessageDecoder(masked=True)
        for n in range(ROUNDS):
            text, binary = f"{number} ☂ {n}", bytes([number, n % 256]) * (n * 7)
            encoder.text(text, KEY)
            encoder.binary(binary, KEY)
            encoder.ping(b"%d" % n, KEY)
            assert decoder.feed(encoder.take()) == [text, binary, Ping(b"%d" % n)]

    def validate(number: int) -> None:
        valid = f"{number} ☂ 😀".encode()
        for n in range(ROUNDS):
            validator = twin.Utf8Validator()
            assert validator.feed(valid * n)
            assert validator.feed(valid[:-1])
            assert not validator.complete
            assert not validator.feed(b"a")
            assert not validator.feed(b"")

    def mask(number: int) -> None:
        data = bytes([number]) * (LARGE + number)
        masked = twin.apply_mask(data, KEY)
        buffer = bytearray(data)
        for _ in range(ROUNDS):
            assert twin.apply_mask(masked, KEY) == data
            twin.apply_mask_inplace(buffer, KEY)
            assert buffer == masked
            twin.apply_mask_inplace(buffer, KEY)
            assert twin.is_utf8(data)
            assert twin.decode_utf8(masked, KEY) == data.decode()

    for work in (decode, decode_frames, encode, validate, mask):
        together(*(lambda number=number, work=work: work(number) for number in range(THREADS)))


# Shared decoders ---------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "parts"])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "inflater"])
def test_shared_message_decoder(twin: SimpleNamespace, compressed: bool, stream: bool) -> None:
    """Each call gets complete messages and returns exactly these."""
    agreed = agreement(context_takeover=False, peer_context_takeover=False)
    kind = PartInflater if stream else Inflater
    inflater = kind(agreed) if compressed else None
    decoder = shared(twin, twin.MessageDecoder(masked=True, inflater=inflater, stream=stream))

    def feed(number: int) -> None:
        for chunk, expected in chunks(twin, number):
            assert joined(decoder.feed(chunk)) == (expected, None)
            if compressed:
                text = f"{number} ☂ " * 9
                payload = deflate_alone(("zlib", 6, 15, 8), text.encode())
                first = twin.encode_frame(1, payload[:7], fin=False, rsv1=True, key=KEY)
                data = first + twin.encode_frame(0, payload[7:], key=KEY)
                assert joined(decoder.feed(data)) == ([text], None)

    together(*(lambda number=number: feed(number) for number in range(THREADS)))
    assert decoder.error is None


def test_shared_frame_decoder(twin: SimpleNamespace) -> None:
    decoder = shared(twin, twin.FrameDecoder(masked=None))

    def feed(number: int) -> None:
        for chunk, expected in frames(twin, number):
            assert decoder.feed(chunk) == expected

    together(*(lambda number=number: feed(number) for number in range(THREADS)))
    assert decoder.error is None


@pytest.mark.parametrize("what", ["MessageDecoder", "FrameDecoder"])
def test_shared_decoder_meets_a_violation(twin: SimpleNamespace, what: str) -> None:
    """Before it, messages are complete; after it, there are none; all threads see one error."""
    good = twin.encode_frame(Opcode.BINARY, b"good" * 20, key=KEY) * 3
    bad = b"\xf3\x80"
    for _ in range(9):
        decoder = shared(twin, getattr(twin, what)(masked=True))
        seen: set[int] = set()

        def feed(decoder: Any = decoder, seen: set[int] = seen) -> None:
            ended = False
            while not ended:
                events = decoder.feed(good)
                assert len(events) in (0, 3)
                ended = not events
            seen.add(len(decoder.feed(good)))

        def spoil(decoder: Any = decoder) -> None:
            assert len(decoder.feed(good + bad)) == 3
            assert decoder.error is not None

        def watch(decoder: Any = decoder) -> None:
            while (error := decoder.error) is None:
                pass
            assert error is decoder.error
            assert error.close_code == CloseCode.PROTOCOL_ERROR

        together(feed, feed, spoil, watch)
        assert seen == {0}


def test_shared_decoder_of_pieces_survives(twin: SimpleNamespace) -> None:
    """Pieces in any order are garbage: the result is an error, or other messages."""
    stream = b"".join(chunk for chunk, _ in chunks(twin, 1))[: 40 << 10]
    stream += twin.encode_frame(Opcode.CLOSE, b"\x03\xe8" + b"x" * 90, key=KEY)

    for size in (1, 3, 140, 4099):
        for make in (
            lambda: twin.MessageDecoder(masked=True),
            lambda: twin.FrameDecoder(masked=True),
            twin.Utf8Validator,
        ):
            decoder = shared(twin, make())

            def feed(decoder: Any = decoder, size: int = size) -> None:
                for start in range(0, len(stream), size):
                    decoder.feed(stream[start : start + size])

            together(feed, copies=3)


def test_inflater_must_not_feed(twin: SimpleNamespace) -> None:
    class Feeds:
        def inflate(self, data: bytes, budget: int | None, last: bool) -> bytes:
            decoder.feed(frame)
            raise AssertionError

    decoder = twin.MessageDecoder(masked=True, inflater=Feeds())
    frame = twin.encode_frame(Opcode.TEXT, b"abc", rsv1=True, key=KEY)
    with pytest.raises(StateError, match="decoding already"):
        decoder.feed(frame)


def test_shared_validator(twin: SimpleNamespace) -> None:
    validator = shared(twin, twin.Utf8Validator())
    piece = "ä☂😀".encode() * 30

    def feed() -> None:
        for _ in range(ROUNDS):
            assert validator.feed(piece)
            assert validator.complete

    together(feed, copies=THREADS)
    assert not validator.feed(b"\xff")
    results: list[bool] = []
    together(lambda: results.extend(validator.feed(piece) for _ in range(9)), copies=3)
    assert results == [False] * 27


# Shared encoders -----------------------------------------------------------------------


@pytest.mark.parametrize("masked", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("how", ["take", "take_buffers"])
def test_shared_encoder(twin: SimpleNamespace, masked: bool, how: str) -> None:
    """Every message comes out complete and once, whatever other threads append and take."""
    encoder, rounds = shared(twin, twin.MessageEncoder()), ROUNDS * 5
    key = KEY if masked else None
    prepared = twin.encode_frame(Opcode.TEXT, b"prepared", key=key)
    taken: list[bytes] = []
    appending = [True] * THREADS

    def append(number: int) -> None:
        for n in range(rounds):
            name = f"{number}.{n}"
            assert encoder.text(name, key) >= len(name)
            encoder.text(f"☂ {name}", key)
            encoder.text_bytes(f"☀ {name}".encode(), key)
            encoder.binary(name.encode(), key)
            encoder.frame(Opcode.PING, name.encode(), key=key)
            encoder.raw(prepared)
            if n % 64 == 0:
                encoder.binary(name.encode() * LARGE, key)
            with pytest.raises(StateError):
                encoder.continuation(b"", key)
        appending[number] = False

    def take() -> None:
        while any(appending):
            assert len(encoder) >= 0
            taken.append(encoder.take() if how == "take" else b"".join(encoder.take_buffers()))

    together(take, *(lambda number=number: append(number) for number in range(THREADS)))
    taken.append(encoder.take())
    assert len(encoder) == 0

    decoder = twin.MessageDecoder(masked=masked, max_message_size=None)
    events = decoder.feed(b"".join(taken))
    assert decoder.error is None
    expected: Counter[Any] = Counter({"prepared": THREADS * rounds})
    for number in range(THREADS):
        for n in range(rounds):
            name = f"{number}.{n}"
            expected.update([name, f"☂ {name}", f"☀ {name}", name.encode(), Ping(name.encode())])
            if n % 64 == 0:
                expected[name.encode() * LARGE] += 1
    assert Counter(events) == expected


# Frames and messages that are shared ----------------------------------------------------


def test_shared_frame(twin: SimpleNamespace) -> None:
    """Even if one thread calls __init__ again, others always see a valid frame."""
    frame = twin.Frame(Opcode.TEXT, b"a" * 100)

    def read() -> None:
        for _ in range(ROUNDS * 10):
            assert frame.payload in (b"a" * 100, b"b" * 100)
            assert frame.opcode in (Opcode.TEXT, Opcode.BINARY)
            assert hash(frame)
            assert repr(frame)

    def write() -> None:
        for n in range(ROUNDS * 10):
            frame.__init__(1 + n % 2, bytearray(b"ab"[n % 2 : n % 2 + 1] * 100))

    together(read, read, write)


def test_shared_prepared_message() -> None:
    parameters = [("zlib", 6, bits, 5) for bits in range(9, 16)]

    def compress(text: str = "☂ " * 500) -> None:
        for n in range(ROUNDS):
            name = f"{text} {n}"
            message = prepare(name)
            for one in parameters:
                alone = deflate_alone(one, message.payload)
                inflated = zlib.decompressobj(-15).decompress(alone + b"\x00\x00\xff\xff")
                assert inflated == message.payload
                inflated = zlib.decompressobj(-15).decompress(
                    common.compressed(one) + b"\x00\x00\xff\xff"
                )
                assert inflated == common.payload

    common = prepare("shared ☂" * 500)
    together(compress, copies=THREADS)


# Masking in place ---------------------------------------------------------------------


def test_parts_of_one_buffer_are_masked_at_once(twin: SimpleNamespace) -> None:
    buffer = bytearray(range(256)) * (THREADS * LARGE // 256)
    original = bytes(buffer)
    with memoryview(buffer) as view:
        parts = [view[n * LARGE : (n + 1) * LARGE] for n in range(THREADS)]

        def mask(part: memoryview) -> None:
            for _ in range(2 * 9 + 1):
                twin.apply_mask_inplace(part, KEY)

        together(*(lambda part=part: mask(part) for part in parts))
        for part in parts:
            part.release()
    assert buffer == twin.apply_mask(original, KEY)


def test_one_buffer_is_masked_by_many(twin: SimpleNamespace) -> None:
    """The final bytes are undefined."""
    buffer = memoryview(bytearray(2 * LARGE))
    together(
        lambda: [twin.apply_mask_inplace(buffer, KEY) for _ in range(20)],
        lambda: [twin.apply_mask(buffer, KEY) for _ in range(20)],
        lambda: [twin.is_utf8(buffer) for _ in range(20)],
        copies=2,
    )
    assert len(buffer) == 2 * LARGE


# (Before 3.14, the bytearray of a free-threaded build has no lock when it grows.)
@pytest.mark.skipif(
    FREE_THREADED and sys.version_info < (3, 14), reason="no bytearray of this Python bears it"
)
def test_a_buffer_cannot_be_resized_while_it_is_masked(twin: SimpleNamespace) -> None:
    buffer = bytearray(2 * LARGE)
    ended = threading.Event()

    def resize() -> None:
        while not ended.is_set():
            try:
                buffer.append(0)
                buffer.pop()
            except BufferError:
                pass

    def mask() -> None:
        try:
            for _ in range(60):
                twin.apply_mask_inplace(buffer, KEY)
                twin.apply_mask(buffer, KEY)
        finally:
            ended.set()

    together(resize, mask)


# Connections ----------------------------------------------------------------------------


def test_no_two_threads_get_the_same_mask_key(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(range(10**9))
    lock = threading.Lock()

    def urandom(size: int) -> bytes:
        with lock:
            return b"".join(next(drawn).to_bytes(4, "big") for _ in range(size // 4))

    monkeypatch.setattr(connection.os, "urandom", urandom)
    monkeypatch.setattr(connection, "_POOL_SIZE", 64)
    monkeypatch.setattr(connection, "_pool", [])
    keys: list[list[bytes]] = [[] for _ in range(THREADS)]
    together(
        *(
            lambda mine=mine: mine.extend(connection._next_mask_key() for _ in range(ROUNDS * 20))
            for mine in keys
        )
    )
    everything = [key for mine in keys for key in mine]
    assert len(everything) == len(set(everything)) == THREADS * ROUNDS * 20
    assert {len(key) for key in everything} == {4}


@pytest.mark.parametrize("role", Role)
def test_shared_connection(role: Role) -> None:
    """The only promise is that of its encoder: frames are complete, and each is sent once."""
    ours, rounds = shared(IN_USE, Connection(role)), ROUNDS * 10
    peer = Connection(Role.CLIENT if role is Role.SERVER else Role.SERVER)
    peer.ping(b"?")
    question = peer.data_to_send()
    sent: list[bytes] = []

    def send(number: int) -> None:
        for n in range(rounds):
            assert ours.send(f"{number}.{n}") > 0

    def ping() -> None:
        for n in range(rounds):
            ours.ping(b"%d" % n)

    def receive() -> None:
        for _ in range(rounds):
            assert ours.receive_data(question) == [Ping(b"?")]

    def take() -> None:
        for _ in range(rounds):
            assert ours.bytes_queued >= 0
            assert ours.state is State.OPEN
            assert ours.close_code is None
            sent.append(ours.data_to_send())

    together(lambda: send(0), lambda: send(1), ping, receive, take)
    sent.append(ours.data_to_send())
    events = Counter(peer.receive_data(b"".join(sent)))
    while peer.has_pending:  # so many control frames are more than one step
        events.update(peer.receive_data(b""))
    assert peer.error is None
    assert events == Counter(
        [
            *(f"{number}.{n}" for number in range(2) for n in range(rounds)),
            *(Ping(b"%d" % n) for n in range(rounds)),
            *[Pong(b"?")] * rounds,
        ]
    )


def test_shared_connection_that_ends() -> None:
    """Whatever else happens, the connection ends."""
    for n in range(9):
        ours, peer = shared(IN_USE, Connection(Role.SERVER)), Connection(Role.CLIENT)
        peer.close(1000, "bye")
        goodbye = peer.data_to_send()

        def end(ours: Any = ours, goodbye: bytes = goodbye, by_peer: int = n % 2) -> None:
            if by_peer:
                assert ours.receive_data(goodbye) in ([Close(1000, "bye")], [])
            ours.close()

        def watch(ours: Any = ours) -> None:
            while ours.state is State.OPEN:
                ours.data_to_send()
            assert ours.close_code in (None, 1000)
            assert ours.close_reason in ("", "bye")

        together(end, watch, watch)
        assert ours.state is not State.OPEN
