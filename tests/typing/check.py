"""Compare the types to the code with mypy, as part of `make lint`.

    python tests/typing/check.py

It checks three things, in the Python that runs this, with fastws and its extension installed:

    the whole package     with stubtest: everything exists as it is declared
    the compiled modules  with stubtest, using the reference as their stubs. Their own stubs only
                          say that they are like it, so that users have one type and not two
    a user's program      consumer.py with `mypy --strict`, in its own virtual environment with
                          the wheel, so that py.typed and the wheel's contents count as well

allowlist.txt lists what stubtest may find, and why.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ALLOWLIST = HERE / "allowlist.txt"
# The compiled modules, and the packages of their references.
COMPILED = {
    "masking": "_py",
    "utf8": "_py",
    "frames": "_py",
    "messages": "_py",
    "connection": "_py",
    "sinks": "aio",
    "wire": "aio",
}
PACKED = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")

# The nature of cdef classes, and what Cython does to the parameters of special methods.
BY_NATURE = ("--ignore-disjoint-bases", "--ignore-positional-only")


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mypy.ini").write_text("[mypy]\n")
        config = ("--mypy-config-file", str(folder / "mypy.ini"))
        checks = (
            ("the package", lambda: stubtest("fastws", *config, path=None)),
            (
                "the compiled modules",
                lambda: stubtest("fastws._c", *config, *BY_NATURE, path=stubs(folder / "stubs")),
            ),
            ("a user's program", lambda: consume(folder)),
        )
        good = True
        for name, check in checks:
            print(f"=== types: {name}", flush=True)
            good &= check()
    return 0 if good else 1


def run(*command: str | Path, **env: str) -> bool:
    # In a directory without packages: a checkout or a Python path would interfere.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | env
    return subprocess.run(command, cwd=HERE, env=env, check=False).returncode == 0


def stubtest(*arguments: str, path: Path | None) -> bool:
    env = {} if path is None else {"MYPYPATH": str(path)}
    command = (sys.executable, "-P", "-m", "mypy.stubtest", "--concise", *arguments)
    # Each run finds only part of the list.
    return run(*command, "--allowlist", ALLOWLIST, "--ignore-unused-allowlist", **env)


# The reference as stubs of the compiled modules ---------------------------------------------


def stubs(folder: Path) -> Path:
    """Copy the package with such stubs; return the path of the copy."""
    package = folder / "fastws"
    shutil.copytree(
        ROOT / "src" / "fastws", package, ignore=shutil.ignore_patterns("*.so", "*.pyd")
    )
    for name, home in COMPILED.items():
        tree = ast.parse((package / home / f"{name}.py").read_text("utf-8"))
        (public,) = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                node.module, node.level = f"fastws.{home}.{node.module}", 0
        tree.body = declarations(tree.body, lambda name, public=public: name in public)
        (package / "_c" / f"{name}.pyi").write_text(ast.unparse(tree), "utf-8")
    return folder


def declarations(body: list[ast.stmt], wanted: Callable[[str], bool]) -> list[ast.stmt]:
    """Reduce code to a stub: no bodies, no private names."""
    found = []
    for node in body:
        match node:
            case ast.FunctionDef(name=name) if wanted(name):
                node.body = [ast.Expr(ast.Constant(...))]
            case ast.ClassDef(name=name) if is_public(name):
                node.body = declarations(node.body, is_public) or [ast.Pass()]
            case ast.AnnAssign(target=ast.Name(id=name)) if wanted(name):
                pass
            case ast.Assign(targets=[ast.Name(id="__all__" | "__match_args__")]):
                pass
            case ast.Assign(targets=[ast.Name(id=name)]) if name[0] != "_" and wanted(name):
                pass
            case ast.If(test=test) if ast.unparse(test) == "cython.compiled":
                continue
            case ast.Import() | ast.ImportFrom() | ast.If():
                pass
            case _:
                continue
        found.append(node)
    return found


def is_public(name: str) -> bool:
    return name.startswith("__") or not name.startswith("_")


# A user's program ------------------------------------------------------------------------------


def consume(folder: Path) -> bool:
    tree, wheels = folder / "tree", folder / "wheels"
    tree.mkdir()
    for name in PACKED:
        shutil.copy(ROOT / name, tree)
    for name in ("src", "tools"):
        ignored = shutil.ignore_patterns("*.so", "*.egg-info")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    venv.create(folder / "venv")
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    return (
        run(*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", wheels, tree, FASTWS_EXT="no")
        and run(*pip, "--python", python, "install", *wheels.iterdir())
        and run(
            *(sys.executable, "-P", "-m", "mypy", "--strict", "--no-incremental"),
            *("--config-file", folder / "mypy.ini", "--python-executable", python, "consumer.py"),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
