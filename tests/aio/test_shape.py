"""The asyncio half: its modules stay short, and help() shows what people look for."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import pydoc
import re
import textwrap
from pathlib import Path

import pytest

import fastws.aio
from fastws import WebSocket, WebSocketProtocol
from fastws.aio import twin
from fastws.aio.endpoint import Endpoint
from fastws.codec import implementation

ROOT = Path(fastws.aio.__file__).parent

# Size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.stem)
def test_no_module_is_long(path):
    # Turn and Wire use each other's C types, so they are in one module.
    limit = 600 if path.stem == "wire" else 450
    assert len(path.read_text("utf-8").splitlines()) <= limit


def is_to_be_filled_in(function):
    """Whether a method does nothing, or raises NotImplementedError: it is for a subclass."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    body = [
        each
        for each in node.body
        if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        and not isinstance(each, ast.Pass)
    ]
    return not body or (
        isinstance(body[0], ast.Raise) and ast.unparse(body[0].exc) == "NotImplementedError"
    )


def test_an_endpoint_has_few_methods_for_subclasses_to_fill_in():
    own = {
        name
        for name in dir(Endpoint)
        if inspect.isfunction(getattr(Endpoint, name))
        and getattr(Endpoint, name).__module__.startswith("fastws.aio.")
        and not name.startswith("__")
        and is_to_be_filled_in(getattr(Endpoint, name))
    }
    assert own == {"_ended", "_failed", "_lost", "_opened"}
    assert len(own) <= 5
    # And what the wire leaves to others is there.
    for name in ("_receive_opening", "_after_read", "_drop_slow_peer", "_end_connection"):
        assert getattr(Endpoint, name) is not getattr(twin.Wire, name)


def test_a_method_without_a_body_is_found():
    class Some:
        def documented(self):
            """Do nothing."""

        def passing(self):
            pass

        def raising(self):
            """Do it."""
            raise NotImplementedError

        def working(self):
            """Do it."""
            return 1

    found = [name for name in vars(Some) if name[0] != "_" and is_to_be_filled_in(vars(Some)[name])]
    assert found == ["documented", "passing", "raising"]


# Copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [WebSocket, WebSocketProtocol])
@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda value, protocol=protocol: pickle.dumps(value, protocol)
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_a_connection_is_not_copied(kind, duplicate):
    with pytest.raises(TypeError, match=f"cannot copy or pickle '{kind.__name__}' object"):
        duplicate(kind())


# Help -----------------------------------------------------------------------------------------


def test_the_twin_is_that_of_the_codec():
    module = {"c": "fastws._c.wire", "py": "fastws.aio.wire"}[implementation]
    assert twin.Wire.__module__ == module
    assert WebSocketProtocol.send is twin.send
    assert issubclass(Endpoint, twin.Wire)


def own_methods(cls):
    """What help() shows first of a class: its own methods."""
    text = pydoc.plain(pydoc.render_doc(cls))
    own = text.partition("Methods defined here:")[2].partition(" |  ------")[0]
    return set(re.findall(r"^ \|  (?:async )?(\w+)\(", own, re.MULTILINE))


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (WebSocketProtocol, {"send", "ping", "close", "wait_closed", "on_open", "on_message"}),
        (WebSocket, {"recv", "send", "ping", "close", "wait_closed"}),
    ],
)
def test_help_shows_what_people_look_for_first(cls, names):
    assert own_methods(cls) >= names
    # (help() breaks a long signature into lines, from Python 3.13 on.)
    shown = str(inspect.signature(cls.send))
    assert re.match(r"\(self, message: .*compress: .*\) -> 'None'$", shown)
    assert inspect.getdoc(cls.send).startswith("Send a ")


def test_no_coroutine_function_overrides_a_function():
    for name, member in vars(WebSocket).items():
        inherited = getattr(Endpoint, name, None)
        if inspect.iscoroutinefunction(member) and inherited is not None:
            assert inspect.iscoroutinefunction(inherited), name
