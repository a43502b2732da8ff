"""The signatures of the compiled modules are those of the reference and of the stubs.

tests/typing does the same for types, with mypy; this is what every user can inspect.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fastws

from .conftest import MODULES

if TYPE_CHECKING:
    from types import ModuleType, SimpleNamespace

# Methods that the reference declares for its subclasses to fill in.
ABSTRACT = {"on_message"}

STUBS = Path(fastws.__file__).parent / "_c"

SPECIAL = ("__call__", "__contains__", "__iter__", "__len__", "__match_args__", "__next__")
OVERRIDDEN = ("__delattr__", "__eq__", "__hash__", "__init__", "__repr__", "__setattr__")


def parameters(thing: Any) -> list[tuple[str, Any, Any]]:
    """What a caller has to know. It omits types, because only the reference has annotations, and
    how a method takes `self`, which is positional-only in compiled methods."""
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.name != "self"
    ]


def interface(thing: Any) -> Any:
    """All that a user can see of a function or class, in a form that can be compared."""
    if not isinstance(thing, type):
        return parameters(thing)
    found: dict[str, Any] = {"constructor": parameters(thing)}
    for name in dir(thing):
        if not name.startswith("_") and name not in ABSTRACT:
            member = inspect.getattr_static(thing, name)
            found[name] = "data" if inspect.isdatadescriptor(member) else parameters(member)
    for name in SPECIAL:
        found[name] = hasattr(thing, name)
    for name in OVERRIDDEN:
        found[name] = getattr(thing, name) is not getattr(object, name)
    return found


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    modules = [import_module(f"fastws._py.{name}") for name in MODULES]
    return {name: getattr(module, name) for module in modules for name in module.__all__}


def test_names(twin: SimpleNamespace, reference: dict[str, Any]) -> None:
    assert vars(twin).keys() - {"name"} == reference.keys()


def test_names_and_parameters(twin: SimpleNamespace, reference: dict[str, Any]) -> None:
    ours = {name: interface(getattr(twin, name)) for name in reference}
    theirs = {name: interface(thing) for name, thing in reference.items()}
    assert ours == theirs


def test_all_is_documented(twin: SimpleNamespace, reference: dict[str, Any]) -> None:
    assert reference
    for name in reference:
        assert inspect.getdoc(getattr(twin, name)), name
        assert not (inspect.getdoc(getattr(twin, name)) or "").startswith(f"{name}("), name


def documentation(thing: Any) -> dict[str, str]:
    """What `help` says of a function or class, by the names of its public members."""
    found = {"": thing.__doc__}
    if isinstance(thing, type):
        members = {name: inspect.getattr_static(thing, name) for name in dir(thing)}
        found |= {name: each.__doc__ for name, each in members.items() if not name.startswith("_")}
    # (Where it ends in the source makes a difference to what is compiled.)
    return {
        name: inspect.cleandoc(text).rstrip()
        for name, text in found.items()
        if text is not None and name not in ABSTRACT
    }


def test_all_is_documented_like_the_reference(
    twin: SimpleNamespace, reference: dict[str, Any]
) -> None:
    ours = {name: documentation(getattr(twin, name)) for name in reference}
    theirs = {name: documentation(reference[name]) for name in reference}
    assert ours == theirs


# What each message of an asyncio connection passes is written once, too, beside what uses it.
OF_AIO = ("wire", "sinks")


@pytest.mark.parametrize("name", OF_AIO)
def test_the_parts_of_aio_are_documented_like_their_source(
    twin: SimpleNamespace, name: str
) -> None:
    source = import_module(f"fastws.aio.{name}")
    ours = source if twin.name == "py" else import_module(f"fastws._c.{name}")
    assert ours.__all__ == source.__all__
    for public in source.__all__:
        found = documentation(getattr(ours, public))
        assert found[""], public
        # (Attributes have no documentation of their own, or that of a type.)
        theirs = documentation(getattr(source, public))
        names = {each for each, text in theirs.items() if text and not text.startswith("bool(")}
        assert {each: found.get(each) for each in names} == {each: theirs[each] for each in names}


@pytest.mark.parametrize("name", [*MODULES, *OF_AIO])
def test_stubs_name_what_the_reference_has(name: str) -> None:
    package = "aio" if name in OF_AIO else "_py"
    module: ModuleType = import_module(f"fastws.{package}.{name}")
    tree = ast.parse((STUBS / f"{name}.pyi").read_text("utf-8"))
    imported = {
        alias.asname: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name  # "as" re-exports it (PEP 484)
    }
    assert imported == dict.fromkeys(module.__all__, module.__name__)
    (exported,) = [
        ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
    ]
    assert exported == module.__all__
