"""The accelerated codec, compiled; `fastws._py` is its reference twin."""
