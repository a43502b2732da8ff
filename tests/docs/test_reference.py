"""docs/reference/: complete, as far as that can be compared with the code without Sphinx."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fastws
from fastws import cli, exceptions, integrations, spec

from .pages import DOCS, ROOT, text

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTIVE = re.compile(r"^\.\. auto\w+:: (fastws\.[\w.]+)(?:\(.*\))?$", re.MULTILINE)
SOURCES = Path(fastws.__file__).parent


def rows(page: str) -> list[list[str]]:
    """Return the cells of all tables of a page."""
    return [row.split(" | ") for row in re.findall(r"^\| (.*?) ?\|$", text(page), re.MULTILINE)]


# Names -------------------------------------------------------------------------------------


def test_every_public_name_is_documented_once() -> None:
    pages = [path.relative_to(DOCS).as_posix() for path in (DOCS / "reference").glob("*.md")]
    documented = [name for page in pages for name in DIRECTIVE.findall(text(page))]
    assert sorted(documented) == sorted({*documented})
    public = {f"fastws.{name}" for module in (fastws, exceptions, spec) for name in module.__all__}
    public |= {f"fastws.integrations.{name}" for name in integrations.__all__}
    provisional = ("fastws.bus.", "fastws.metrics.")
    assert {name for name in documented if not name.startswith(provisional)} == public


def load(path: Path) -> Any:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated() -> Any:
    """The module that writes what pages take from the code."""
    return load(DOCS / "_ext" / "generated.py")


def test_every_command_and_option_is_described(generated: Any) -> None:
    page = generated.commands()
    assert re.findall(r"^## fastws (\w+)$", page, re.MULTILINE) == [*cli.COMMANDS]
    for option in ("--workers N", "--insecure", "--with NAME", "--junit FILE"):
        assert f"`{option}" in page
    assert "==SUPPRESS==" not in page
    assert "%(default)s" not in page


def test_what_is_generated_is_used_and_the_other_way_round(generated: Any) -> None:
    asked = {
        name
        for path in DOCS.rglob("*.md")
        for kind, name in generated.COMMENT.findall(path.read_text("utf-8"))
        if kind == "generated"
    }
    assert asked == generated.GENERATED.keys()


def test_links_of_included_files_are_changed(generated: Any) -> None:
    page = generated.include("CONTRIBUTING.md")
    assert "](../explanation/architecture.md)" in page
    assert "](security.md)" in page
    assert "](../../tools/README.md)" in page


def test_what_make_docs_installs_is_the_extra() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    own, *tools = extras["docs"]
    assert own == "fastws-codec[nats,redis]"
    wanted = {*tools, *extras["nats"], *extras["redis"]}
    lines = (ROOT / "tools" / "docs.txt").read_text("utf-8").splitlines()
    installed = {re.split("[=>]", line)[0] for line in lines if not line.startswith("#")}
    assert {re.split("[=>]", line)[0] for line in wanted} | {"docutils"} == installed


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "picture.png").touch()
    (tmp_path / "folder" / "page.html").write_text(
        '<h1 id="here"><a href="#here"></a><a href="https://example.org/#x"></a></h1>'
        '<img src="../picture.png"><a href="../index.html#top"></a><a href="page.html#there"></a>'
    )
    (tmp_path / "index.html").write_text('<a href="folder/page.html#here"></a><a href="gone.html">')
    assert list(load(ROOT / "tools" / "docs.py").broken_links(tmp_path)) == [
        f"{Path('folder/page.html')}: page.html#there: no such anchor",
        "index.html: gone.html: no such file",
    ]


# The environment --------------------------------------------------------------------------


def read_variables() -> Iterator[str]:
    """Find the names of the variables that the package and its setup.py read or set."""
    for path in [*SOURCES.rglob("*.py"), ROOT / "setup.py"]:
        tree = ast.parse(path.read_text("utf-8"))
        constants = {
            ast.unparse(node.targets[0]): node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            match node:
                case ast.Subscript(value=ast.Attribute(attr="environ"), slice=name):
                    pass
                case ast.Call(
                    func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get" | "pop"),
                    args=[name, *_],
                ):
                    pass
                case ast.Compare(left=name, comparators=[ast.Attribute(attr="environ")]):
                    pass
                case _:
                    continue
            if isinstance(name, ast.Constant):
                yield str(name.value)
            elif ast.unparse(name) in constants:
                yield str(constants[ast.unparse(name)])


def test_every_variable_that_is_read_is_documented() -> None:
    documented = {
        name
        for row in rows("reference/environment.md")
        for name in re.findall(r"`([A-Z_]+)`", row[0])
    }
    read = {*read_variables()}
    assert {"FASTWS_IMPL", "FASTWS_EXT", "FASTWS_RUN_PID", "NOTIFY_SOCKET"} <= read
    # urllib.request reads those of proxies, and `fastws run` sets others.
    known = {name for name in documented if name.endswith("_PROXY")} | {"PYTHONPATH"}
    known |= {"FASTWS_INTEGRATIONS_PREFIX"}
    assert documented - known == read - known


# Close codes --------------------------------------------------------------------------------


def test_every_close_code_has_a_row() -> None:
    found = {
        (int(match[1]), match[2])
        for row in rows("reference/close-codes.md")
        if (match := re.fullmatch(r"(1\d{3}) `(\w+)`", row[0]))
    }
    assert found == {(code.value, code.name) for code in fastws.CloseCode}


# Limits -------------------------------------------------------------------------------------

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "s": 1.0}


def limits_of(function: Any) -> dict[str, float | None]:
    """The parameters that limit something, and their defaults."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if re.match("max_|(read|write)_limit|ping_|.*_timeout", name)
    }


def test_every_limit_has_a_row_with_its_default() -> None:
    listed: dict[str, dict[str, float | None]] = {"serve": {}, "connect": {}}
    for names, default, limits, *_ in (
        row for row in rows("explanation/limits.md") if row[0].startswith("`")
    ):
        number, _, unit = default.partition(" ")
        value = None if number == "none" else int(number) * UNITS.get(unit, 1)
        match = re.match(r"only `(serve|connect)`", limits)
        for function in [match[1]] if match else listed:
            listed[function] |= dict.fromkeys(re.findall(r"`(\w+)`", names), value)
    assert listed == {"serve": limits_of(fastws.serve), "connect": limits_of(fastws.connect)}
