# One source makes both twins.
from fastws.aio.sinks import Hooks as Hooks
from fastws.aio.sinks import Queue as Queue
from fastws.aio.sinks import Sink as Sink

__all__ = ["Hooks", "Queue", "Sink"]
