"""Checks the public names: what their signatures name can be imported, too."""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import re
import sys
import typing
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import fastws

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The modules that define the public names, as in the table of levels in stability.md. Signatures
# may also use names in the `__all__` of these.
DOCUMENTED = (
    "fastws",
    "fastws.aio.client",
    "fastws.aio.protocol",
    "fastws.aio.retries",
    "fastws.aio.server",
    "fastws.aio.serving",
    "fastws.aio.topics",
    "fastws.aio.websocket",
    "fastws.bus",
    "fastws.codec",
    "fastws.connection",
    "fastws.deflate",
    "fastws.events",
    "fastws.exceptions",
    "fastws.extensions",
    "fastws.handshake",
    "fastws.http",
    "fastws.metrics",
    "fastws.peers",
    "fastws.prepared",
    "fastws.proxy_protocol",
    "fastws.session",
    "fastws.spec",
    "fastws.stats",
    "fastws.uri",
)
ELSEWHERE = {
    *vars(builtins),
    *vars(typing),
    *vars(collections.abc),
    *sys.stdlib_module_names,
    "Buffer",  # collections.abc's from Python 3.12 on
    "P",  # a type variable
    "ssl_module",
}


def signatures() -> Iterator[tuple[str, Callable[..., Any]]]:
    """All public callables and properties that have documentation."""
    for name in fastws.__all__:
        value = getattr(fastws, name)
        if not inspect.isclass(value):
            if callable(value) and not isinstance(value, type(fastws.HeadersLike)):
                yield name, value
            continue
        if "Args:" in (value.__doc__ or ""):
            yield f"{name}.__init__", value.__init__
        for attribute in dir(value):
            member = inspect.getattr_static(value, attribute)
            member = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if inspect.isroutine(member) and member.__doc__ and not attribute.startswith("_"):
                yield f"{name}.{attribute}", member


def named(function: Callable[..., Any]) -> set[str]:
    """The names in a signature's annotations, without those of the standard library."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # of what is compiled
        return set()
    annotations = [parameter.annotation for parameter in signature.parameters.values()]
    found: set[str] = set()
    for annotation in [*annotations, signature.return_annotation]:
        if annotation is not inspect.Signature.empty:
            text = (
                annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
            )
            text = re.sub(r"fastws(\.\w+)*\.|['\"].*?['\"]", "", text)
            found |= {word.partition(".")[0] for word in re.findall(r"[A-Za-z_][\w.]*", text)}
    return found - ELSEWHERE


SIGNATURES = dict(signatures())


@pytest.mark.parametrize("name", SIGNATURES)
def test_what_a_signature_names_can_be_imported(name: str) -> None:
    importable = {name for module in DOCUMENTED for name in import_module(module).__all__}
    assert named(SIGNATURES[name]) <= importable


def test_the_walk_finds_signatures() -> None:
    assert {"serve.__init__", "ServerHandshake.accept", "Connection.__init__"} <= set(SIGNATURES)
    assert named(fastws.ServerHandshake.accept) == {"Request", "HeadersLike"}
    assert "Agreement" in named(fastws.Connection.__init__)


@pytest.mark.parametrize("name", fastws.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(fastws, name) is not None
    assert name in dir(fastws)
