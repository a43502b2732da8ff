# One source makes both twins.
from fastws._py.connection import Connection as Connection

__all__ = ["Connection"]
