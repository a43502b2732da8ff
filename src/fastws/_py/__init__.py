"""The reference codec in pure Python; `fastws._c` is its accelerated twin."""
