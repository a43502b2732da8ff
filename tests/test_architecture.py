"""docs/explanation/architecture.md: what it names exists, and its tables are those of the code.

A word in backticks that looks like a path must be a file or directory. A path followed by one
more word in backticks, with at most a space or line break between, must define that name. Names
such as `Class.member` must be defined somewhere in the package.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fastws import session
from fastws._py import connection
from fastws.aio import phases

from .test_imports import of_python

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fastws"
TEXT = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")

PATH = r"(?:[\w.-]+/)*[\w-]+\.(?:pyx|pyi?|pxd|h|c|md|toml)|[\w/]+/"
PATHS = sorted({path for path in re.findall(rf"`({PATH})`", TEXT) if "NAME" not in path})
PAIRS = sorted(set(re.findall(rf"`({PATH})`\s`([\w.]+)`", TEXT)))
MEMBERS = sorted(set(re.findall(r"`(_?[A-Z]\w*\.\w+)`", TEXT)))
# The rows of a table between two comments, as tuples of cells.
ROW = re.compile(r"^\| (.*) \|$", re.MULTILINE)


def between(name: str) -> str:
    return TEXT.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]


def rows(name: str) -> list[tuple[str, ...]]:
    return [tuple(row.split(" | ")) for row in ROW.findall(between(name))][1:]


def find(path: str) -> Path:
    """A path is relative to the package or to the root; a file of `aio/` may be named alone."""
    places = [PACKAGE / path, ROOT / path, PACKAGE / "aio" / path, PACKAGE / "_c/kernels" / path]
    return next((place for place in places if place.exists()), places[0])


@cache
def defined(path: Path) -> frozenset[str]:
    """What a file defines: functions, classes and constants, and members with their class."""
    text = path.read_text("utf-8")
    names: set[str] = set()
    if path.suffix != ".py":
        # In Cython and C, the indentation tells members from functions.
        prefix = ""
        for line in text.splitlines():
            if match := re.match(r"cdef class (\w+)", line):
                prefix = match[1]
                names.add(prefix)
            elif match := re.match(r"(?:cdef |cpdef )?(?:inline )?(?:[\w*]+ )*(\w+)\(", line):
                names.add(match[1])
            elif match := re.match(r" {4}(?:cdef|def|cpdef) (?:[\w*]+ )*(\w+)\(", line):
                names.add(f"{prefix}.{match[1]}")
        return frozenset(names)

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign):
                names.update(prefix + ast.unparse(target) for target in node.targets)
            elif isinstance(node, ast.AnnAssign):
                names.add(prefix + ast.unparse(node.target))

    visit(ast.parse(text).body, "")
    return frozenset(names)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_exists(path: str) -> None:
    assert find(path).exists()


@pytest.mark.parametrize(("path", "name"), PAIRS)
def test_a_file_defines_what_is_said(path: str, name: str) -> None:
    assert name in defined(find(path))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_is_defined_somewhere(name: str) -> None:
    sources = [path for kind in ("*.py", "*.pyx") for path in PACKAGE.rglob(kind)]
    assert any(name in defined(path) for path in sources)


def test_there_is_something_to_check() -> None:
    assert len(PATHS) > 90
    assert len(PAIRS) > 70
    assert len(MEMBERS) > 15


def test_every_module_is_on_the_map() -> None:
    start = TEXT.index("## The map")
    table = TEXT[start : TEXT.index("## A message")]
    named = set(re.findall(rf"`({PATH})`", table))
    sources = {
        path.relative_to(PACKAGE).as_posix()
        for kind in ("*.py", "*.pyx", "*.h")
        for path in PACKAGE.rglob(kind)
    }
    # These say all that they do in their first line, or are the package itself.
    trivial = {"__init__.py", "__main__.py", "_c/__init__.py", "_py/__init__.py"}
    trivial |= {"aio/__init__.py", "integrations/__init__.py"}
    trivial |= {path for path in sources if path.startswith("__pyinstaller/hook-")}
    assert sources - trivial - named == set()


@pytest.mark.parametrize(("name", "table"), [("phases", phases.NEXT), ("session", session._NEXT)])
def test_the_phases_are_those_of_the_code(name: str, table: dict[Any, set[Any]]) -> None:
    shown = [(phase, then) for phase, then, _ in rows(name)]
    real = {(phase.name, then.name) for phase, all_ in table.items() for then in all_}
    assert len(shown) == len(set(shown))
    assert set(shown) == real


def test_the_life_of_a_connection_is_that_of_the_code() -> None:
    shown = [(*row[:3], row[3] == "yes") for row in rows("life")]
    real = [
        (phase.name, cause.name, then.name, announced)
        for (phase, cause), (then, announced) in connection._LIFE.items()
    ]
    assert shown == real


def test_modules_of_aio_import_only_earlier_ones() -> None:
    lines = [re.findall(r"`(\w+)`", line) for line in between("aio").splitlines()]
    level = {name: number for number, line in enumerate(lines) for name in line}
    assert level.keys() == {path.stem for path in PACKAGE.glob("aio/[!_]*.py")}
    for name, own in level.items():
        for imported, typing in of_python(PACKAGE / "aio" / f"{name}.py"):
            if imported.startswith("fastws.aio.") and not typing:
                other = imported.split(".")[2]
                assert level[other] < own, f"{name} imports {other}"
