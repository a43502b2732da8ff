"""Holds what stands in two source files to each other: the numbers of RFC 6455."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import fastws
from fastws import spec
from fastws.spec import Opcode

PACKAGE = Path(fastws.__file__).parent
OPCODES = {opcode.name: opcode.value for opcode in Opcode}
NUMBERS = {name: value for name, value in vars(spec).items() if isinstance(value, int)}
NUMBERS |= {f"OPCODE_{name}": value for name, value in OPCODES.items()}

# A member of an enum.
CONSTANT = re.compile(r"^ +([A-Z][A-Z0-9_]+) = ([^#\n]+)", re.MULTILINE)


def constants(path: Path) -> dict[str, str]:
    return dict(CONSTANT.findall(path.read_text("utf-8")))


def values(path: Path) -> dict[str, int]:
    return {name: ast.literal_eval(text.strip()) for name, text in constants(path).items()}


def test_cython_has_the_numbers_that_python_has() -> None:
    found = values(PACKAGE / "_c" / "spec.pxd")
    assert found == {name: NUMBERS[name] for name in found}
    assert len(found) > 20


def test_consumers_get_the_numbers_that_python_has() -> None:
    found = values(PACKAGE / "capi.pxd")
    assert found == {name: (NUMBERS | OPCODES)[name] for name in found}
    assert len(found) > 10


@pytest.mark.parametrize(
    "path",
    [*PACKAGE.glob("_c/*.p[yx][xd]"), *PACKAGE.glob("*.pyx")],
    ids=lambda path: path.name,
)
def test_numbers_stand_nowhere_else(path: Path) -> None:
    if path.name != "spec.pxd":
        assert not values(PACKAGE / "_c" / "spec.pxd").keys() & constants(path).keys()
