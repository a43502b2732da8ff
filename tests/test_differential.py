"""Compares the twins: for any input, both give the same output.

They have the same events from each feed, the same error class, message and close code; the same
exceptions for wrong arguments; the same names and parameters (docs/explanation/architecture.md has
the rules for twins). Whether the output is right is tested in other files. The number of examples
scales with hypothesis's profile (`--hypothesis-profile`).
"""

from __future__ import annotations

import inspect
import re
from array import array
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastws.deflate import Inflater
from fastws.events import Text as TextEvent
from fastws.spec import CloseCode, Opcode

from .wire import agreement, compressed, joined

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

MODULES = ("masking", "utf8", "frames", "messages")
TWINS: dict[str, dict[str, ModuleType]] = {
    twin: {name: import_module(f"fastws._{twin}.{name}") for name in MODULES}
    for twin in ("py", "c")
}


def times(factor: float) -> settings:
    return settings(
        deadline=None,
        max_examples=int(factor * settings.default.max_examples),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def both(name: str) -> tuple[Any, Any]:
    """Return a public name of each twin."""
    module = next(m for m in MODULES if name in TWINS["py"][m].__all__)
    return getattr(TWINS["py"][module], name), getattr(TWINS["c"][module], name)


def shown(value: Any) -> Any:
    """Convert a value to one that equals the corresponding value of the other twin."""
    if type(value).__name__ == "Frame":
        fields = (value.opcode, value.payload, value.fin, value.rsv1, value.rsv2, value.rsv3)
        return "Frame", *((type(field), field) for field in fields)
    if isinstance(value, list):
        return [shown(item) for item in value]
    return type(value), value


def outcome(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return shown(call(*arguments, **options))
    except Exception as exc:  # whatever it is, the other twin must raise it too
        return type(exc), re.sub(" at 0x[0-9a-fA-F]+", "", str(exc))


# Streams of bytes --------------------------------------------------------------------------


def judged(decoder: Any, chunks: list[bytes]) -> list[Any]:
    """What each feed returns, and the state of the decoder after it."""
    result = []
    for chunk in chunks:
        events = decoder.feed(chunk)
        error = decoder.error
        verdict = error and (type(error), str(error), error.close_code)
        counts = getattr(decoder, "_counts", tuple)()
        result.append((shown(events), verdict, (getattr(decoder, "_only_messages", None), counts)))
    return result


def chunked(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut `data` into pieces of these sizes, over and over."""
    chunks, start = [], 0
    while start < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[start : start + size])
        start += size
    return [*chunks, b""]


def check_stream(name: str, options: dict[str, Any], data: bytes, sizes: list[int]) -> None:
    py, c = both(name)
    chunks = chunked(data, sizes)
    expected = judged(py(**options), chunks)
    assert judged(c(**options), chunks) == expected
    # However it is split, the outcome is the same. (Of an incomplete message, there are parts.)
    for cls in (py, c):
        [(events, verdict, _), _] = judged(cls(**options), [data, b""])
        found = [[event for feed, *_ in expected for event in feed], events]
        if options.get("stream"):
            found = [joined([event for _, event in each]) for each in found]
            if verdict:
                found = [complete for complete, _ in found]
        assert found[0] == found[1]
        assert expected[-1][1] == verdict


sizes = st.lists(st.integers(1, 12) | st.integers(1, 300), min_size=1, max_size=6)
limits = st.none() | st.sampled_from([0, 1, 2, 10, 125, 126, 70_000, 2**64])
whole_options = st.fixed_dictionaries(
    {
        "masked": st.booleans(),
        "max_message_size": limits,
        "max_fragments": st.none() | st.sampled_from([1, 2, 3, 2**64]),
    }
)
message_options = whole_options | st.fixed_dictionaries(
    {
        "masked": st.booleans(),
        "stream": st.just(True),
        "max_stream_size": limits,
        "decode_text": st.booleans(),
    }
)
frame_options = st.fixed_dictionaries(
    {
        "masked": st.none() | st.booleans(),
        "max_payload_size": limits,
        "rsv1": st.booleans(),
        "rsv2": st.booleans(),
        "rsv3": st.booleans(),
    }
)
encode_frame = both("encode_frame")[0]

utf8 = st.one_of(
    st.text(max_size=60).map(str.encode),
    st.text("aé€😀", max_size=60).map(str.encode),
    st.sampled_from(
        [b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80"]
    ),
)
payloads = st.one_of(
    utf8,
    st.lists(utf8, max_size=4).map(b"".join),
    st.binary(max_size=140),
    st.integers(0, 140).map(bytes),
    st.sampled_from([b"a" * 65535, "€".encode() * 22000]),
)
close_payloads = st.builds(
    lambda code, reason: code.to_bytes(2, "big") + reason,
    st.sampled_from([0, 999, 1000, 1001, 1004, 1005, 1006, 1014, 1015, 2999, 3000, 4999, 5000]),
    utf8,
)


@st.composite
def frames(draw: Callable[[Any], Any], masked: bool) -> bytes:
    """One frame, mostly valid."""
    opcode = draw(st.sampled_from([0, 0, 0, 1, 1, 1, 2, 2, 9, 10, 8]))
    payload = draw(close_payloads | payloads if opcode == 8 else payloads)
    fin = opcode > 7 or draw(st.booleans())
    oddly = draw(st.integers(0, 30))
    key = draw(st.binary(min_size=4, max_size=4)) if masked is (oddly != 1) else None
    rsv = draw(st.integers(0, 7)) if oddly == 2 else 0
    return encode_frame(
        opcode,
        payload[:125] if opcode > 7 else payload,
        fin=fin,
        rsv1=rsv & 4,
        rsv2=rsv & 2,
        rsv3=rsv & 1,
        key=key,
    )


@st.composite
def streams(draw: Callable[[Any], Any], masked: bool) -> bytes:
    """Frames, in which a byte is changed, removed or added here and there."""
    stream = bytearray(b"".join(draw(st.lists(frames(masked), max_size=8))))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        if stream:
            where = draw(st.integers(0, len(stream) - 1) | st.integers(0, min(15, len(stream) - 1)))
            change = draw(st.sampled_from(["flip", "replace", "delete", "insert", "cut"]))
            if change == "flip":
                stream[where] ^= 1 << draw(st.integers(0, 7))
            elif change == "replace":
                stream[where] = draw(st.integers(0, 255))
            elif change == "delete":
                del stream[where]
            elif change == "insert":
                stream.insert(where, draw(st.integers(0, 255)))
            else:
                del stream[where:]
    return bytes(stream)


@times(5)
@given(options=message_options, data=st.binary(max_size=80), sizes=sizes)
def test_any_bytes_as_messages(options: dict[str, Any], data: bytes, sizes: list[int]) -> None:
    check_stream("MessageDecoder", options, data, sizes)


@times(5)
@given(options=frame_options, data=st.binary(max_size=80), sizes=sizes)
def test_any_bytes_as_frames(options: dict[str, Any], data: bytes, sizes: list[int]) -> None:
    check_stream("FrameDecoder", options, data, sizes)


@times(8)
@given(options=message_options, data=st.data(), sizes=sizes)
def test_streams_of_frames_as_messages(
    options: dict[str, Any], data: st.DataObject, sizes: list[int]
) -> None:
    stream = data.draw(streams(options["masked"]))
    sizes = sizes if len(stream) < 3000 else [size * 40 for size in sizes]
    check_stream("MessageDecoder", options, stream, sizes)


@times(2)
@given(options=whole_options, data=st.data(), sizes=sizes)
def test_text_as_bytes_is_the_text_as_str(
    options: dict[str, Any], data: st.DataObject, sizes: list[int]
) -> None:
    stream = data.draw(streams(options["masked"]))
    sizes = sizes if len(stream) < 3000 else [size * 40 for size in sizes]
    chunks = chunked(stream, sizes)
    for cls in both("MessageDecoder"):
        expected = [
            ([as_bytes(event) for event in events], verdict, only_messages)
            for events, verdict, only_messages in judged(cls(**options, decode_text=True), chunks)
        ]
        assert judged(cls(**options, decode_text=False), chunks) == expected


def as_bytes(event: Any) -> Any:
    kind, value = event
    return (TextEvent, TextEvent(value.encode())) if kind is str else event


@times(4)
@given(options=frame_options, data=st.data(), sizes=sizes)
def test_streams_of_frames_as_frames(
    options: dict[str, Any], data: st.DataObject, sizes: list[int]
) -> None:
    stream = data.draw(streams(bool(options["masked"])))
    sizes = sizes if len(stream) < 3000 else [size * 40 for size in sizes]
    check_stream("FrameDecoder", options, stream, sizes)


@times(4)
@given(data=st.lists(utf8 | st.binary(max_size=9), max_size=6).map(b"".join), sizes=sizes)
def test_any_bytes_as_utf8(data: bytes, sizes: list[int]) -> None:
    py, c = (cls() for cls in both("Utf8Validator"))
    for chunk in chunked(data, sizes):
        assert c.feed(chunk) is py.feed(chunk)
        assert c.complete is py.complete
    py, c = both("is_utf8")
    assert c(data) is py(data) is (outcome(data.decode)[0] is str)


# Any arguments ---------------------------------------------------------------------------------
#
# An argument is drawn as a function that creates it, so that each twin gets its own object.


class Text(str):
    """A str that lies about itself."""

    __slots__ = ()

    def encode(self, *arguments: Any) -> bytes:
        return b"wrong"


class Bytes(bytes):
    """A bytes that lies about itself."""

    def __bytes__(self) -> bytes:
        return b"wrong"


class Number:
    """A number only by its __index__."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class NoTruth:
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")


def released() -> memoryview:
    view = memoryview(b"abcd")
    view.release()
    return view


class Thing:
    """Nothing in particular, with a repr that has no address."""

    def __repr__(self) -> str:
        return "a thing"


def just(*makers: Callable[[], Any]) -> Any:
    return st.sampled_from(makers)


def of(strategy: Any, make: Callable[[Any], Any]) -> Any:
    return strategy.map(lambda value: lambda: make(value))


content = st.binary(max_size=24) | st.sampled_from([b"", b"abcd", bytes(125), bytes(126)])
buffers = st.one_of(
    of(content, bytes),
    of(content, bytearray),
    of(content, memoryview),
    of(content, lambda b: memoryview(bytearray(b))[::-1]),
    of(content, lambda b: memoryview(bytearray(b))[1::2]),
    of(content, lambda b: array("B", b)),
    of(content, lambda b: array("i", b[: len(b) // 4 * 4])),
    of(content, Bytes),
    just(
        lambda: memoryview(bytearray(24)).cast("h", [3, 4]),
        lambda: memoryview(bytearray(4)).cast("i", []),
    ),
)
texts = st.one_of(
    of(st.text(max_size=20), str),
    of(st.text(max_size=20), Text),
    just(lambda: "\ud800", lambda: Text("é\udfff"), lambda: "é" * 62, lambda: "a" * 123),
)
text_events = of(st.text(max_size=20), lambda text: TextEvent(text.encode()))
keys = st.one_of(of(st.binary(min_size=4, max_size=4), bytes), just(lambda: None), buffers)
numbers = st.one_of(
    of(st.integers(-2, 20), int),
    of(st.integers(), int),
    of(st.sampled_from([2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64, -(2**63), 2**70]), int),
    of(st.sampled_from([999, 1000, 1001, 1005, 1015, 2999, 3000, 4999, 5000, 65536]), int),
)
strange = st.one_of(
    just(
        lambda: None,
        lambda: True,
        lambda: False,
        lambda: CloseCode.GOING_AWAY,
        lambda: Opcode.PING,
        lambda: Number(1),
        lambda: Number(1000),
        lambda: Fraction(1),
        lambda: Fraction(1, 2),
        lambda: Decimal(9),
        lambda: 1j,
        lambda: 2 + 0j,
        list,
        lambda: [1],
        dict,
        lambda: (1, 2),
        Thing,
        lambda: Thing,
    ),
    of(st.floats(), float),
    of(st.sampled_from([0.0, 1.0, 8.0, 1000.0, 3000.5]), float),
)
# A flag has at least a truth value. If evaluating it is an error (as with a memoryview without
# dimensions) and another argument is wrong too, it is undefined which error is raised.
flags = st.one_of(just(lambda: True, lambda: False), texts, numbers, strange)
anything = st.one_of(buffers, texts, numbers, strange, just(released))
opcodes = st.one_of(of(st.sampled_from([0, 1, 2, 8, 9, 10]), Opcode), numbers, strange)
FLAGS = ("fin", "rsv1", "rsv2", "rsv3")
flag_options = dict.fromkeys(FLAGS, flags)


def mostly(likely: Any) -> Any:
    """An argument that is probably valid, more often than one that is probably not."""
    return likely | likely | anything


def made(makers: Any) -> Any:
    if isinstance(makers, dict):
        return {name: make() for name, make in makers.items()}
    return [make() for make in makers]


def check_call(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    py, c = both(name)
    assert outcome(c, *made(arguments), **made(options)) == outcome(
        py, *made(arguments), **made(options)
    )


FUNCTIONS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "apply_mask": ([mostly(buffers), mostly(keys)], {"offset": mostly(numbers)}),
    "is_utf8": ([mostly(buffers)], {}),
    "decode_utf8": ([mostly(buffers)], {"key": mostly(keys), "offset": mostly(numbers)}),
    "encode_frame": ([mostly(opcodes)], {"payload": mostly(buffers), "key": mostly(keys)}),
    "Frame": ([mostly(opcodes)], {"payload": mostly(buffers)} | flag_options),
}
FUNCTIONS["encode_frame"][1].update(flag_options)


@pytest.mark.parametrize("name", FUNCTIONS)
@times(4)
@given(data=st.data())
def test_any_arguments_to(name: str, data: st.DataObject) -> None:
    positional, named = FUNCTIONS[name]
    arguments = data.draw(st.tuples(*positional))
    options = data.draw(st.fixed_dictionaries({}, optional=named))
    check_call(name, arguments, options)


@times(4)
@given(
    make=mostly(buffers),
    key=mostly(keys),
    options=st.fixed_dictionaries({}, optional={"offset": mostly(numbers)}),
)
def test_any_arguments_to_apply_mask_inplace(
    make: Callable[[], Any], key: Callable[[], Any], options: dict[str, Any]
) -> None:
    results = []
    for call in both("apply_mask_inplace"):
        target = make()
        result = outcome(call, target, key(), **made(options))
        try:
            results.append((result, memoryview(target).tobytes()))
        except (TypeError, ValueError):
            results.append((result, None))
    assert results[0] == results[1]


@times(2)
@given(
    name=st.sampled_from(["MessageDecoder", "FrameDecoder"]),
    options=st.fixed_dictionaries(
        {"masked": flags},
        optional={"max_message_size": mostly(numbers), "max_fragments": mostly(numbers)},
    ),
    rsv=st.fixed_dictionaries({}, optional={f"rsv{i}": flags for i in (1, 2, 3)}),
    fed=mostly(buffers),
)
def test_any_arguments_to_a_decoder(
    name: str, options: dict[str, Any], rsv: dict[str, Any], fed: Callable[[], Any]
) -> None:
    if name == "FrameDecoder":
        options.pop("max_fragments", None)
        options = {name.replace("message", "payload"): make for name, make in options.items()}
        options |= rsv
    results = []
    for cls in both(name):
        try:
            decoder = cls(**made(options))
        except Exception as exc:
            results.append((type(exc), str(exc)))
        else:
            results.append(
                (outcome(decoder.feed, fed()), shown(decoder.error and str(decoder.error)))
            )
    assert results[0] == results[1]


@times(2)
@given(fed=st.lists(mostly(buffers), max_size=4))
def test_any_arguments_to_a_validator(fed: list[Callable[[], Any]]) -> None:
    py, c = (cls() for cls in both("Utf8Validator"))
    for make in fed:
        assert outcome(c.feed, make()) == outcome(py.feed, make())
        assert c.complete is py.complete


def calls(method: str, *positional: Any, **named: Any) -> Any:
    optional = {name: value if name in FLAGS else mostly(value) for name, value in named.items()}
    return st.tuples(
        st.just(method),
        st.tuples(*map(mostly, positional)),
        st.fixed_dictionaries({}, optional=optional),
    )


encoder_calls = st.one_of(
    calls("text", texts | text_events, key=keys, fin=flags),
    calls("text_bytes", buffers | of(utf8, bytes), key=keys, fin=flags),
    calls("binary", buffers, key=keys, fin=flags),
    calls("continuation", texts | buffers | of(utf8, bytes), key=keys, fin=flags),
    calls("ping", data=buffers, key=keys),
    calls("pong", data=buffers, key=keys),
    calls("close", code=numbers, reason=texts, key=keys),
    calls("frame", opcodes, payload=buffers, key=keys, **flag_options),
    calls("raw", buffers),
    calls("take"),
)


@times(8)
@given(calls=st.lists(encoder_calls, max_size=8))
@example(calls=[("text", (lambda: "a",), {"fin": lambda: False}), ("frame", (lambda: 1.0,), {})])
def test_any_calls_to_an_encoder(calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> None:
    py, c = (cls() for cls in both("MessageEncoder"))
    for method, arguments, options in calls:
        results = [
            outcome(getattr(encoder, method), *made(arguments), **made(options))
            for encoder in (py, c)
        ]
        assert results[0] == results[1]
        assert len(py) == len(c)
        assert c._counts() == py._counts()
    assert c.take() == py.take()


@pytest.mark.parametrize(
    ("name", "flag"),
    [(name, flag) for name in ("Frame", "encode_frame") for flag in FLAGS]
    + [("FrameDecoder", flag) for flag in ("masked", "rsv1", "rsv2", "rsv3")]
    + [("MessageDecoder", "masked")],
    ids=".".join,
)
def test_flag_that_is_neither_true_nor_false_is_refused(name: str, flag: str) -> None:
    arguments = () if name.endswith("Decoder") else (1,)
    options = {"masked": True} if name.endswith("Decoder") else {}
    for call in both(name):
        assert outcome(call, *arguments, **options | {flag: NoTruth()})[0] is RuntimeError


@pytest.mark.parametrize("flag", FLAGS)
def test_encoder_appends_nothing_if_a_flag_is_neither_true_nor_false(flag: str) -> None:
    for encoder in (cls() for cls in both("MessageEncoder")):
        assert outcome(encoder.frame, 1, **{flag: NoTruth()})[0] is RuntimeError
        assert len(encoder) == 0


@given(
    first=st.tuples(*[opcodes, buffers, flags, flags]),
    second=st.tuples(*[opcodes, buffers, flags, flags]),
)
def test_frames_compare_alike(first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    results = []
    for cls in both("Frame"):
        try:
            one, other = cls(*made(first)), cls(*made(second))
        except ValueError:
            results.append(None)
        else:
            same = one == other, one != other, len({one, other}), hash(one) == hash(other)
            results.append((same, repr(one), one == b"", one.__reduce__()[1]))
    assert results[0] == results[1]


# The same names --------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_modules_have_the_same_public_names(module: str) -> None:
    py, c = TWINS["py"][module], TWINS["c"][module]
    assert c.__all__ == py.__all__
    assert {name for name in dir(c) if name in py.__all__} == set(py.__all__)


@st.composite
def compressed_messages(draw: st.DrawFn) -> list[tuple[int, bytes, bool, bool]]:
    """Frames: opcode, payload, FIN, RSV1."""
    frames: list[tuple[int, bytes, bool, bool]] = []
    for _ in range(draw(st.integers(1, 12))):
        text = draw(st.text("aä☃😀", max_size=30)) * draw(st.sampled_from([0, 1, 100, 10_000]))
        coded = draw(st.booleans())
        payload = text.encode()
        if coded:
            payload = compressed(payload)
        cut = draw(st.integers(0, len(payload)))
        frames += (1, payload[:cut], False, coded), (9, b"", True, False)
        frames.append((0, payload[cut:], True, False))
    return frames


@times(1)
@given(
    frames=compressed_messages(),
    step=st.sampled_from([1, 1000, 100_000, 1 << 20]),
    cut=st.integers(0, 1000),
    decode_text=st.booleans(),
)
def test_decoders_stop_inflating_at_the_same_places(
    frames: list[tuple[int, bytes, bool, bool]], step: int, cut: int, decode_text: bool
) -> None:
    agreed = agreement()
    encode, _ = both("encode_frame")
    stream = b"".join(
        encode(opcode, payload, fin=fin, rsv1=rsv1, key=b"mask")
        for opcode, payload, fin, rsv1 in frames
    )
    results = []
    for decoder_class in both("MessageDecoder"):
        decoder = decoder_class(
            masked=True, inflater=Inflater(agreed), step=step, decode_text=decode_text
        )
        batches = [shown(decoder.feed(stream[:cut])), shown(decoder.feed(stream[cut:]))]
        while decoder.has_pending:
            batches.append(shown(decoder.feed(b"")))
        results.append((batches, decoder.error))
    py, c = results
    assert c == py
    assert sum(map(len, py[0])) == len(frames) // 3 * 2


NAMES = [name for module in MODULES for name in TWINS["py"][module].__all__]
CLASSES = [name for name in NAMES if isinstance(both(name)[0], type)]


@pytest.mark.parametrize("name", CLASSES)
def test_classes_have_the_same_public_attributes(name: str) -> None:
    py, c = ({each for each in dir(cls) if not each.startswith("_")} for cls in both(name))
    assert c == py
    assert getattr(both(name)[1], "__match_args__", ()) == getattr(
        both(name)[0], "__match_args__", ()
    )


@pytest.mark.parametrize("name", CLASSES)
def test_constructors_have_the_same_parameters(name: str) -> None:
    """Signatures are compared in test_stubs.py; this is about calls."""
    py, c = both(name)
    taken = inspect.signature(py).parameters.values()
    good: dict[str, Any] = {"opcode": 1, "payload": b"a"}
    required = {p.name: good.get(p.name, True) for p in taken if p.default is p.empty}
    places = [p for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD]
    for p in taken:
        c(**required | ({} if p.default is p.empty else {p.name: p.default}))
    for missing in required:
        with pytest.raises(TypeError):
            c(**{each: value for each, value in required.items() if each != missing})
    with pytest.raises(TypeError):
        c(**required, another=1)
    c(*(good.get(p.name, True) for p in places), **({} if places else required))
    with pytest.raises(TypeError):
        c(*(good.get(p.name, True) for p in places), True, **({} if places else required))
