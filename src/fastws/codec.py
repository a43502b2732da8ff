"""The codec: one of the two twins, chosen once, at import.

This module knows that there are two twins and which one is in use. It does not know what they
do. `FASTWS_IMPL=c` requires the accelerated twin, `FASTWS_IMPL=py` the pure-Python one. Without
it, the accelerated twin is used if it can be imported: it must be compiled, and only one
interpreter of a process can import it, the first that tries. Other subinterpreters get the
pure-Python twin. Both are imported by statements, so that PyInstaller and similar tools include
them in a frozen program. The accelerated twin has kernels for several instruction sets and uses
the best ones that the CPU can run; `FASTWS_KERNEL` selects others.

Threads, with a GIL or without: objects are independent of each other, functions have no state,
and immutable objects (a frame, an event, a prepared message) can be shared freely. If several
threads use one decoder, encoder, validator or connection, they must lock it. Without a lock,
only that object can be affected. In the accelerated twin, each call of a decoder, an encoder or a
validator is atomic: its data is processed as a whole, and once.

Attributes:
    implementation: "c" or "py".
    kernel: the kernels in use: "avx512", "avx2", "sse", "neon" or "scalar"; "python" if there are
        none.
"""

from __future__ import annotations

import copyreg
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from . import events

__all__ = [
    "Frame",
    "FrameDecoder",
    "MessageDecoder",
    "MessageEncoder",
    "Utf8Validator",
    "apply_mask",
    "apply_mask_inplace",
    "decode_utf8",
    "encode_frame",
    "implementation",
    "is_utf8",
    "kernel",
]


def _choose() -> str:
    wanted = os.environ.get("FASTWS_IMPL", "")
    if wanted not in ("", "c", "py"):
        raise ImportError(f"FASTWS_IMPL must be c or py, not {wanted!r}")
    if wanted == "py":
        return "py"
    try:
        import fastws._c.connection  # noqa: F401 - it imports the codec's modules

        # Do not import the compiled modules of fastws.aio before they are needed.
        for name in ("fastws._c.sinks", "fastws._c.wire"):
            if find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    except ImportError as exc:
        if wanted == "c":
            missing = isinstance(exc, ModuleNotFoundError) and f"{exc.name}".startswith("fastws.")
            why = "is not compiled" if missing else f"cannot be imported: {exc}"
            raise ImportError(f"FASTWS_IMPL=c, but fastws._c {why}") from exc
        return "py"
    return "c"


def _choose_kernel() -> str:
    wanted = os.environ.get("FASTWS_KERNEL", "")
    if implementation == "py":
        if wanted not in ("", "python"):
            raise ImportError(f"FASTWS_KERNEL={wanted!r}, but this is the pure-Python twin")
        return "python"
    from ._c import kernel as kernels

    if wanted:
        try:
            kernels.use(wanted)
        except ValueError as exc:
            raise ImportError(f"FASTWS_KERNEL: {exc}") from None
    return kernels.current()


implementation: Final = _choose()
kernel: Final = _choose_kernel()

if TYPE_CHECKING or implementation == "py":
    from ._py.frames import Frame, FrameDecoder, encode_frame
    from ._py.frames import read_header as read_header  # for integrations
    from ._py.masking import apply_mask, apply_mask_inplace
    from ._py.messages import MessageDecoder, MessageEncoder
    from ._py.utf8 import Utf8Validator, decode_utf8, is_utf8
    from ._py.utf8 import valid_text as valid_text  # for text
else:
    from ._c.frames import Frame, FrameDecoder, encode_frame
    from ._c.frames import read_header as read_header
    from ._c.masking import apply_mask, apply_mask_inplace
    from ._c.messages import MessageDecoder, MessageEncoder
    from ._c.utf8 import Utf8Validator, decode_utf8, is_utf8
    from ._c.utf8 import valid_text as valid_text

events.is_utf8 = is_utf8  # for Text, whose module is below the twins


# A frame that was pickled with one twin can be loaded with the other ------------------


def _make_frame(*fields: Any) -> Frame:
    return Frame(*fields)


def _reduce_frame(frame: Frame) -> tuple[Any, ...]:
    return _make_frame, frame.__reduce__()[1]


copyreg.pickle(Frame, _reduce_frame)
