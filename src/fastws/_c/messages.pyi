# The twins have one interface; the reference documents it.
from fastws._py.messages import MessageDecoder as MessageDecoder
from fastws._py.messages import MessageEncoder as MessageEncoder

__all__ = ["MessageDecoder", "MessageEncoder"]
