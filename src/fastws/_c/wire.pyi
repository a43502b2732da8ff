# One source makes both twins.
from fastws.aio.wire import Turn as Turn
from fastws.aio.wire import Wire as Wire
from fastws.aio.wire import send as send
from fastws.aio.wire import turn_of as turn_of

__all__ = ["Turn", "Wire", "send", "turn_of"]
