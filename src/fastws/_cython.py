"""What a source that is compiled and interpreted alike needs of Cython when it is interpreted.

This module knows the few names of Cython's pure-Python mode that such sources use, and does
nothing by them. It does not know Cython, which is imported by nobody at run time:

    from fastws import _cython as cython

    if cython.compiled:
        import cython

Where the source is compiled, Cython reads the second import itself, and no module is imported
for it. What C types there are stands in the .pxd file of the compiled module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ["binding", "cclass", "compiled", "critical_section", "embedsignature"]

_T = TypeVar("_T", bound=type)
_F = TypeVar("_F", bound=Callable[..., Any])

# Cython knows better, and does not ask.
compiled: Final[bool] = False


def cclass(cls: _T) -> _T:
    """Make an extension type of a class.

    The signature of one stands at the head of its docstring; that of a Python class does not.
    """
    cls.__doc__ = (cls.__doc__ or "").rpartition("\n--\n\n")[2].lstrip() or None
    return cls


def critical_section(function: _F) -> _F:
    """Lock the object that a method belongs to, on free-threaded Python."""
    return function


def binding(flag: bool) -> Callable[[_F], _F]:
    """Choose between a method that is like Python's and one that is called faster."""
    return _as_it_is


def embedsignature(flag: bool) -> Callable[[_F], _F]:
    """Put the signature into the docstring, for a method that has no other place for it."""
    return _as_it_is


def _as_it_is(function: _F) -> _F:
    return function
