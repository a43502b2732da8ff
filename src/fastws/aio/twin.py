"""The twin of `wire` and `sinks` that goes with the codec's.

This module knows that both are compiled from the sources beside it, and where to find that. It
does not know what they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastws.codec import implementation

if TYPE_CHECKING or implementation == "py":
    from .sinks import Hooks, Queue, Sink
    from .wire import Wire, send, turn_of
else:
    from fastws._c.sinks import Hooks, Queue, Sink
    from fastws._c.wire import Wire, send, turn_of

__all__ = ["Hooks", "Queue", "Sink", "Wire", "send", "turn_of"]
