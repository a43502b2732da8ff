"""Checks the import direction of DESIGN.md §1, by reading the source tree.

    spec <- exceptions <- errors <- rules <- _py | _c <- codec <- deflate <- connection
    http <- extensions, heads <----------------------------- handshake <- aio <- cli
    uri <----------------------------------------------------'

The sources of what is above the codec and compiled are in _py and _c, too, but not of the codec.

A module that does not exist yet is no error; one that is not in the table below is.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fastws.spec

ROOT = Path(fastws.spec.__file__).parent

TWIN = {"errors", "exceptions", "events", "rules", "spec"}
PARTS = TWIN | {"_cython", "deflate", "prepared"}  # of a connection, beside the codec
CODEC = TWIN | {"codec"}
OPENING = {"extensions", "handshake", "heads", "http", "uri"}
SANS_IO = CODEC | OPENING | {"connection", "deflate", "prepared"}
ALL = SANS_IO | {"aio", "cli", "demo", "integrations"}

# What each part may import of fastws when it runs ...
ALLOWED: dict[str, set[str]] = {
    "spec": set(),
    "http": {"exceptions"},
    "uri": {"exceptions"},
    "heads": {"http"},
    "extensions": {"http"},
    "exceptions": {"spec"},
    "errors": {"exceptions", "spec"},
    "events": {"spec"},
    "rules": {"errors", "exceptions", "events", "spec"},
    "_cython": set(),
    "_py": TWIN,
    "_c": TWIN,
    "_py.connection": PARTS | {"_py"},
    "_c.connection": PARTS | {"_c"},
    "capi": TWIN | {"_c"},
    "codec": {"_c", "_py"},
    "deflate": CODEC,
    "handshake": {"extensions", "heads", "http", "uri", "exceptions", "spec", "deflate"},
    "prepared": CODEC | {"deflate"},
    "connection": CODEC | {"_c", "_py", "deflate"},
    "aio": SANS_IO,
    "integrations": SANS_IO | {"aio"},
    "demo": set(),
    "__pyinstaller": {"integrations"},
    "cli": ALL | {"_init_"},
    "__main__": ALL,
    "__init__": ALL,
}
# ... and, in addition, for the type checker.
FOR_TYPES: dict[str, set[str]] = {
    "exceptions": {"http"},
    "deflate": {"extensions"},
}
# Twins have no clock, no randomness, no logging and no I/O.
NOT_IN_A_TWIN = {"asyncio", "logging", "os", "random", "secrets", "socket", "ssl", "time"}

SOURCES = sorted(
    path
    for pattern in ("*.py", "*.pyx", "*.pxd")
    for path in ROOT.rglob(pattern)
    if "__pycache__" not in path.parts
)
SUBMODULES = {path.stem for path in ROOT.glob("*.py*")} | {
    path.name for path in ROOT.iterdir() if path.is_dir()
}


def part_of(path: Path) -> str:
    """The module or package directly under fastws that a file belongs to."""
    first = path.relative_to(ROOT).parts[0]
    if first in ("_c", "_py") and f"{first}.{path.stem}" in ALLOWED:
        return f"{first}.{path.stem}"
    return first.partition(".")[0]


def of_python(path: Path) -> set[tuple[str, bool]]:
    """The absolute names of all imports, and whether they are only for the type checker."""
    package = ["fastws", *path.relative_to(ROOT).parts[:-1]]
    found = set()

    def visit(node: ast.AST, typing: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, typing)
            return
        if isinstance(node, ast.Import):
            found.update((alias.name, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            found.update((f"{base}.{alias.name}", typing) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.add((ast.unparse(node.args[0]), typing))
        for child in ast.iter_child_nodes(node):
            visit(child, typing)

    visit(ast.parse(path.read_text("utf-8")), False)
    return found


IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\(.*?\)|[^\n#]*)|c?import[ \t]+([^\n#]*))",
    re.MULTILINE | re.DOTALL,
)


def of_cython(path: Path) -> set[tuple[str, bool]]:
    """The same for a Cython source, import and cimport alike."""
    found = set()
    for module, names, modules in IMPORT.findall(path.read_text("utf-8")):
        for name in re.findall(r"[\w.]+(?: as \w+)?", names or modules):
            name = name.split(" as ")[0]
            found.add((f"{module}.{name}" if module else name, False))
    return found


def imports(path: Path) -> set[tuple[str, bool]]:
    return of_python(path) if path.suffix == ".py" else of_cython(path)


def fastws_parts(path: Path, typing: bool) -> set[str]:
    """The parts of fastws that a file imports; "_init_" for a name of the package itself."""
    parts = set()
    for name, for_types in imports(path):
        if for_types is typing and (name == "fastws" or name.startswith("fastws.")):
            child = f"{name}.".split(".")[1]
            parts.add(child if child in SUBMODULES else "_init_")
    return parts


every_source = pytest.mark.parametrize(
    "path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES]
)


@every_source
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED, f"say in {Path(__file__).name} what {part} may import"
    allowed = ALLOWED[part] | ({part} if (ROOT / part).is_dir() else set())
    assert fastws_parts(path, typing=False) <= allowed
    assert fastws_parts(path, typing=True) <= allowed | FOR_TYPES.get(part, set())


def test_the_table_has_no_circle() -> None:
    order = TopologicalSorter({part: names - {part} for part, names in ALLOWED.items()})
    assert set(order.static_order()) >= set(ALLOWED)


@every_source
def test_package_itself_is_imported_by_nobody(path: Path) -> None:
    if part_of(path) not in ("__init__", "cli"):
        assert "_init_" not in fastws_parts(path, False) | fastws_parts(path, True)


@pytest.mark.parametrize("name", ["_py", "_c"])
def test_twins_know_no_clock_no_chance_no_log_and_no_io(name: str) -> None:
    sources = [path for path in SOURCES if path.parent.name == name]
    assert sources
    assert len(sources) == 1 or any(imports(path) for path in sources)
    for path in sources:
        assert not NOT_IN_A_TWIN & {imported.split(".")[0] for imported, _ in imports(path)}


def test_twins_are_told_apart_in_one_place() -> None:
    assert fastws_parts(ROOT / "codec.py", typing=False) >= {"_c", "_py"}
    # What is chosen there is taken from there, except for a connection, which is no codec.
    taking = ("_c", "_py", "codec", "connection")
    for path in SOURCES:
        if (
            path.suffix == ".py"
            and path.parent.name not in ("_c", "_py")
            and part_of(path) not in taking
        ):
            parts = fastws_parts(path, typing=False) | fastws_parts(path, typing=True)
            assert not parts & {"_c", "_py"}, path


# Does this file see what it claims to see? -------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "source", "expected"),
    [
        (".py", "import fastws.aio.server", {("fastws.aio.server", False)}),
        (".py", "from fastws import rules", {("fastws.rules", False)}),
        (".py", "def f():\n    from .masking import xor", {("fastws._py.masking.xor", False)}),
        (".py", "from ..codec import Frame", {("fastws.codec.Frame", False)}),
        (".py", "from .. import rules", {("fastws.rules", False)}),
        (
            ".py",
            "if TYPE_CHECKING:\n    from fastws.http import Response\nelse:\n    import os",
            {("fastws.http.Response", True), ("os", False)},
        ),
        (".pyx", "from fastws import rules", {("fastws.rules", False)}),
        (".pyx", "cimport cython\nimport os as o", {("cython", False), ("os", False)}),
        (
            ".pyx",
            "from fastws._c.frames cimport (\n    A, b as c,\n)\nx = 1",
            {("fastws._c.frames.A", False), ("fastws._c.frames.b", False)},
        ),
    ],
)
def test_imports_are_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    source: str,
    expected: set[tuple[str, bool]],
) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path, raising=True)
    path = tmp_path / "_py" / f"module{suffix}"
    path.parent.mkdir()
    path.write_text(source)
    assert imports(path) == expected
