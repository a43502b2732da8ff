# One source makes both twins.
from fastws.aio.wire import Wire as Wire
from fastws.aio.wire import send as send

__all__ = ["Wire", "send"]
