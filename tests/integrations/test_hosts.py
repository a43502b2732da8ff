"""The table of hosts: complete, true, and free of imports of hosts."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from fastws.integrations import _hosts
from fastws.integrations._hosts import HOSTS

from ..tools import run

ROOT = Path(__file__).parents[2]
FOLDER = Path(_hosts.__file__).parent


def integrations() -> dict[str, ast.Module]:
    return {path.stem: ast.parse(path.read_text("utf-8")) for path in FOLDER.glob("[!_]*.py")}


def test_every_integration_of_a_host_is_in_the_table_and_no_other() -> None:
    found = {
        name
        for name, module in integrations().items()
        for node in module.body
        if isinstance(node, ast.Assign) and ast.unparse(node) == f"HOST = HOSTS['{name}']"
    }
    # Names only: nothing is patched, and wsaccel need not be installed. ASGI is no host.
    assert integrations().keys() - found == {"asgi", "wsaccel"}
    assert found == HOSTS.keys()
    assert [*HOSTS] == sorted(HOSTS)


@pytest.mark.parametrize("name", HOSTS)
def test_what_can_be_installed_has_an_install(name: str) -> None:
    body = integrations()[name].body
    has_install = any(isinstance(node, ast.FunctionDef) and node.name == "install" for node in body)
    assert HOSTS[name].installable is has_install


@pytest.mark.parametrize("name", HOSTS)
def test_the_package_is_that_of_the_distribution(name: str) -> None:
    found = packages_distributions().get(HOSTS[name].package)
    if found is None:
        pytest.skip(f"{HOSTS[name].name} is not installed")
    assert HOSTS[name].name in found


def test_the_readme_names_every_integration() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    table = re.findall(r"^\| .* \| `(.*)` \|$", text, re.MULTILINE)
    for name in HOSTS:
        assert any(re.search(rf"(--with |integrations\.){name}\b", line) for line in table), name


def test_the_table_imports_no_host() -> None:
    code = (
        "import sys; from fastws.integrations._hosts import HOSTS\n"
        "print({host.package for host in HOSTS.values()} & {*sys.modules})"
    )
    result = run(sys.executable, "-c", code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "set()\n", "")
