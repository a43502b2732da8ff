# The twins have one interface; the reference documents it.
from fastws._py.utf8 import Utf8Validator as Utf8Validator
from fastws._py.utf8 import decode_utf8 as decode_utf8
from fastws._py.utf8 import is_utf8 as is_utf8

__all__ = ["Utf8Validator", "decode_utf8", "is_utf8"]
