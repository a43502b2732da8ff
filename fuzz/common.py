"""Shared parts of the fuzz targets: the first bytes of the input make choices, the rest is data.

A target is a module with `check(data: bytes)`, which raises if something is wrong. atheris
calls it as often as it can; tests call it with the corpus, which needs no atheris.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from itertools import cycle
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

atheris: ModuleType | None
try:
    import atheris
except ImportError:
    atheris = None

NO_ATHERIS = (
    "atheris is not installed: pip install atheris "
    "(it has wheels for Linux on x86-64, and not for every Python)"
)

# Not if a test imports this.
FUZZING = atheris is not None and "fastws" not in sys.modules


def instrumented() -> AbstractContextManager[object]:
    """Instrument what is imported of fastws and h11 in this block for atheris."""
    if not FUZZING or atheris is None:
        return nullcontext()
    manager: AbstractContextManager[object] = atheris.instrument_imports(include=["fastws", "h11"])
    return manager


with instrumented():
    import fastws._py.frames
    import fastws._py.messages
    import fastws.deflate
    from fastws.events import Close, Ping, Pong, Text
    from fastws.exceptions import ProtocolError
    from fastws.spec import Role

MODULES = ("frames", "messages")


def load_twins() -> dict[str, SimpleNamespace]:
    """All public names of each twin, or of one if FASTWS_IMPL=py or if there is no compiler."""
    twins = {}
    for name in ("py", "c"):
        names: dict[str, Any] = {}
        try:
            for module in MODULES:
                loaded = import_module(f"fastws._{name}.{module}")
                names |= {public: getattr(loaded, public) for public in loaded.__all__}
        except ImportError:
            if name == "py" or os.environ.get("FASTWS_IMPL") == "c":
                raise
            continue
        twins[name] = SimpleNamespace(**names)
    return twins


TWINS = load_twins()


class Input:
    """The fuzzer's bytes, taken from the front; after the last one, there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def byte(self) -> int:
        self._position += 1
        return self._data[self._position - 1] if self._position <= len(self._data) else 0

    def choice(self, options: Sequence[T]) -> T:
        return options[self.byte() % len(options)]

    def rest(self) -> bytes:
        return self._data[self._position :]

    def cut(self) -> Callable[[bytes], list[bytes]]:
        """A way to split streams: not at all, or into pieces of two alternating sizes."""
        sizes = [(self.byte() or 1) ** 2, self.byte() or 1]
        whole = not self.byte() % 4

        def cut(data: bytes) -> list[bytes]:
            return [data] if whole else list(pieces(data, sizes))

        return cut


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Split `data` into pieces of these sizes, repeatedly, followed by an empty one."""
    start = 0
    for size in cycle(sizes):
        yield data[start : start + size]
        if start >= len(data):
            return
        start += size


# Decoders ----------------------------------------------------------------------------------

LIMITS = (1 << 16, None, 0, 1, 2, 10, 125, 126, 1000)


def message_options(source: Input) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Return arguments for a MessageDecoder, and a function that returns its inflater or None."""
    flags = source.byte()
    options = {
        "masked": bool(flags & 1),
        "max_message_size": source.choice(LIMITS),
        "max_fragments": source.choice((4096, None, 1, 2, 3)),
        "decode_text": not flags & 16,
    }
    agreed = agreement(flags & 4 != 0, 15 if flags & 8 else 9)

    def inflater(kind: Any = fastws.deflate.Inflater) -> Any:
        return kind(agreed) if flags & 2 else None

    return options, inflater


def agreement(
    takeover: bool, window_bits: int = 15, backend: str = "zlib"
) -> fastws.deflate.Agreement:
    return fastws.deflate.Agreement(
        role=Role.SERVER,
        config=fastws.deflate.PerMessageDeflate(backend=backend),
        context_takeover=takeover,
        peer_context_takeover=takeover,
        max_window_bits=window_bits,
        peer_max_window_bits=window_bits,
    )


def verdict(decoder: Any) -> tuple[type, str, int] | None:
    """Return a decoder's error in a form that can be compared to another's."""
    error = decoder.error
    if error is None:
        return None
    assert isinstance(error, ProtocolError), error
    assert error.close_code in (1002, 1007, 1009), error
    # Both would keep the invalid data alive.
    assert error.__traceback__ is error.__context__ is None, error
    return type(error), str(error), error.close_code


def typed(events: list[Any]) -> list[tuple[type, Any]]:
    """Return events with their types: a subclass, or bytes for a bytearray, would be equal."""
    for event in events:
        assert type(event) in (str, bytes, Text, Ping, Pong, Close), event
    return [(type(event), event) for event in events]


def size_of(event: Any) -> int:
    """The size of a message or of a control frame's payload, in bytes."""
    if isinstance(event, bytes):
        return len(event)
    if isinstance(event, (str, Text)):
        return len(str(event).encode())  # which raises if it is not UTF-8
    if isinstance(event, Close):
        assert event.code == 1005 or 1000 <= event.code <= 4999
        return (2 if event.code != 1005 else 0) + len(event.reason.encode())
    return len(event.data)


# Running -----------------------------------------------------------------------------------


def fuzz(check: Callable[[bytes], None]) -> None:
    """Run a target with atheris; the command line is libFuzzer's."""
    if atheris is None:
        sys.exit(NO_ATHERIS)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
