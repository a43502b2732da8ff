"""Holds what is written in two source files to each other: numbers and docstrings."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fastws
from fastws import spec
from fastws.spec import Opcode

PACKAGE = Path(fastws.__file__).parent
TOOL = Path(__file__).parents[1] / "tools" / "docstrings.py"
OPCODES = {opcode.name: opcode.value for opcode in Opcode}
NUMBERS = {name: value for name, value in vars(spec).items() if isinstance(value, int)}
NUMBERS |= {f"OPCODE_{name}": value for name, value in OPCODES.items()}

# Numbers -------------------------------------------------------------------------------------

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


def test_every_number_of_the_table_is_used() -> None:
    paths = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pxd", ".pyx")]
    used = {
        word
        for path in paths
        for line in path.read_text("utf-8").splitlines()
        for word in re.findall(r"\w+", line)
        if not (path.name.startswith("spec.") and re.match(rf"(cdef )?\s*{word}\b.*=", line))
    }
    numbers = {name for name, value in vars(spec).items() if isinstance(value, (int, float))}
    assert len(numbers) > 20
    # The RFC's may be there for the sake of completeness.
    assert numbers - used - {"MAX_PAYLOAD"} == set()


# Docstrings --------------------------------------------------------------------------------


def test_docstrings_are_copied() -> None:
    command = [sys.executable, TOOL, "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


REFERENCE = '''
class Thing:
    """A thing.

    Args:
        first: the first.
    """

    def method(self):
        """Do it."""

    def undocumented(self):
        pass


def function(first, second=(1, 2)):
    """Tell what."""


def method(self):
    """Not of the class."""
'''
CYTHON = '''
cdef class Thing:
    """Thing(
        first
    )\\n--\\n
    Some thing."""

    cdef int function(self):
        """Not public."""

    @property
    def method(self):

        return 1

    def undocumented(self):
        """Stays."""


def function(
    first,
    second=(1, 2),
):
    """Old.

    """
    return f"""{first}"""


def method(self):
    return 1
'''
COPIED = '''
cdef class Thing:
    """Thing(
        first
    )\\n--\\n
    A thing.

    Args:
        first: the first.
    """

    cdef int function(self):
        """Not public."""

    @property
    def method(self):
        """Do it."""

        return 1

    def undocumented(self):
        """Stays."""


def function(
    first,
    second=(1, 2),
):
    """Tell what."""
    return f"""{first}"""


def method(self):
    """Not of the class."""
    return 1
'''


def test_docstrings_are_put_where_they_belong() -> None:
    copied = runpy.run_path(str(TOOL))["copied"]
    assert copied(REFERENCE, CYTHON) == COPIED
    assert copied(REFERENCE, COPIED) == COPIED
