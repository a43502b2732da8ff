"""Stand-ins for `cython`, for sources that are both compiled and interpreted.

This module knows the few names of Cython's pure-Python mode that such sources use. In interpreted
code they do nothing. It does not know Cython, which is never imported at run time:

    from fastws import _cython as cython

    if cython.compiled:
        import cython

When such a source is compiled, Cython handles the second import itself. The C types are in the
.pxd file of the compiled module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["binding", "cast", "cclass", "compiled", "critical_section", "embedsignature"]

_T = TypeVar("_T", bound=type)
_C = TypeVar("_C")
_F = TypeVar("_F", bound=Callable[..., Any])

# Cython replaces this with True when it compiles a source.
compiled: Final[bool] = False


def cast(kind: type[_C], value: object, *, typecheck: bool) -> _C:
    """Use a value as one of an extension type, after a check of its type."""
    return value  # type: ignore[return-value]


def cclass(cls: _T) -> _T:
    """Turn a class into an extension type.

    The docstring of an extension type begins with its signature. A Python class does not need
    that, so it is removed here.
    """
    cls.__doc__ = (cls.__doc__ or "").rpartition("\n--\n\n")[2].lstrip() or None
    return cls


def critical_section(function: _F) -> _F:
    """Lock the object that a method belongs to, on free-threaded Python."""
    return function


def binding(flag: bool) -> Callable[[_F], _F]:
    """Choose between a method that behaves like Python's and one that is faster to call."""
    return _as_it_is


def embedsignature(flag: bool) -> Callable[[_F], _F]:
    """Put the signature into the docstring, if the method cannot store it anywhere else."""
    return _as_it_is


def _as_it_is(function: _F) -> _F:
    return function
