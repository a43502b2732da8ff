# The twins have one interface; the reference documents it.
from fastws._py.hot import HotEndpoint as HotEndpoint

__all__ = ["HotEndpoint"]
