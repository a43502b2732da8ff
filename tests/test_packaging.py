"""The package: what is in an sdist and in a wheel, and what FASTWS_EXT does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import fastws

ROOT = Path(__file__).parents[1]
MODULES = ("kernel", "masking", "utf8", "frames", "messages", "connection", "sinks", "wire")
# The sources of both twins.
SHARED = {
    "connection": "src/fastws/_py/connection.py",
    "sinks": "src/fastws/aio/sinks.py",
    "wire": "src/fastws/aio/wire.py",
}
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
SOURCES = (
    *(f"src/fastws/_c/{module}.{kind}" for module in MODULES for kind in ("pxd", "pyi")),
    *(f"src/fastws/_c/{module}.pyx" for module in MODULES if module not in SHARED),
    *SHARED.values(),
    "src/fastws/_c/buffers.pxd",
    *(f"src/fastws/capi.{kind}" for kind in ("pyx", "pxd", "pyi")),
    *(
        f"src/fastws/_c/kernels/{header}.h"
        for header in ("avx512", "cpu", "kernels", "mask", "scalar", "sets", "simd", "utf8")
    ),
    "src/fastws/py.typed",
    "src/fastws/demo/index.html",
    "src/fastws/demo/page.css",
    "src/fastws/demo/page.js",
    "src/fastws/__pyinstaller/hook-fastws.cli.py",
    "LICENSE",
    "README.md",
    "CHANGELOG.md",
    "docs/conf.py",
    "docs/explanation/architecture.md",
    "pyproject.toml",
    "setup.py",
    "tools/commands.py",
)

# The tests read what is in these, and must pass from an unpacked sdist.
READ_BY_TESTS = (".github", "docs", "examples")

pytestmark = pytest.mark.timeout(300)


def python(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def build(hook: str, tree: Path, out: Path, **env: str) -> tuple[Path | None, str]:
    """Call a hook of the build backend (PEP 517) in the current environment."""
    out.mkdir(exist_ok=True)
    before = set(out.iterdir())
    code = f"from setuptools import build_meta; build_meta.{hook}({str(out)!r})"
    result = python("-c", code, cwd=tree, **env)
    made = set(out.iterdir()) - before
    assert (result.returncode == 0) == (len(made) == 1), result.stdout
    return (made.pop() if made else None), result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, without build products."""
    tree = tmp_path_factory.mktemp("checkout")
    for name in (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        ".pre-commit-config.yaml",
    ):
        shutil.copy(ROOT / name, tree)
    ignore = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "*.egg-info")
    for name in (*READ_BY_TESTS, "src", "tools"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignore)
    return tree


@pytest.fixture(scope="module", params=["require", "no"])
def sdist(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    made, _ = build("build_sdist", checkout, out, FASTWS_EXT=request.param)
    assert made is not None
    return made


@pytest.fixture
def tree(checkout: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkout, tmp_path / "tree")


def installed(wheel: Path, target: Path) -> str:
    """Unpack a wheel and return which twin it runs."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    code = (
        "import fastws, sys; assert fastws.__file__.startswith(sys.argv[1]), fastws.__file__;"
        "assert fastws.apply_mask(b'abcd', b'    ') == b'ABCD'; print(fastws.implementation)"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("FASTWS_")}
    result = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        cwd=target,
        env=env | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def test_an_sdist_has_all_sources_and_nothing_generated(checkout: Path, sdist: Path) -> None:
    assert sdist.name == f"fastws_codec-{fastws.__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*SOURCES, ".pre-commit-config.yaml"} <= names
    read = [path for name in READ_BY_TESTS for path in (checkout / name).rglob("*")]
    assert {path.relative_to(checkout).as_posix() for path in read if path.is_file()} <= names
    assert not [name for name in names if name.endswith((".c", ".so", ".pyd", ".pyc"))]


def test_a_wheel_built_from_the_sdist_is_complete(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = (path for path in tmp_path.iterdir() if path.is_dir())
    wheel, output = build("build_wheel", tree, tmp_path / "out", FASTWS_EXT="require")
    assert wheel is not None, output
    # clang and GCC 14 treat these warnings as errors.
    assert "-Wincompatible-pointer-types" not in output
    assert "-Wint-conversion" not in output
    assert "-Wimplicit-function-declaration" not in output
    assert wheel.name.startswith(f"fastws_codec-{fastws.__version__}-")
    names = set(zipfile.ZipFile(wheel).namelist())
    for module in MODULES:
        assert f"fastws/_c/{module}{SUFFIX}" in names
        assert f"fastws/_c/{module}.pyi" in names
    assert f"fastws/capi{SUFFIX}" in names
    assert {"fastws/py.typed", "fastws/capi.pyi"} <= names
    # The whole page.
    assert {name for name in names if name.startswith("fastws/demo/")} == {
        f"fastws/demo/{path.name}" for path in (tree / "src" / "fastws" / "demo").iterdir()
    }
    assert "fastws/__pyinstaller/hook-fastws.cli.py" in names
    # What other projects compile against, and nothing else.
    assert [name for name in names if name.endswith(".pxd")] == ["fastws/capi.pxd"]
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx"))]
    assert not [name for name in names if not name.startswith("fastws")]
    assert installed(wheel, tmp_path / "site") == "c"


def test_without_the_extension_the_wheel_is_for_every_python(tree: Path, tmp_path: Path) -> None:
    wheel, output = build("build_wheel", tree, tmp_path / "out", FASTWS_EXT="no")
    assert wheel is not None, output
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(SUFFIX)]
    assert installed(wheel, tmp_path / "site") == "py"


@pytest.mark.skipif(sys.platform == "win32", reason="CC chooses no compiler there")
def test_without_a_compiler_auto_falls_back_and_says_so(tree: Path, tmp_path: Path) -> None:
    wheel, output = build("build_wheel", tree, tmp_path / "out", FASTWS_EXT="auto", CC="false")
    assert wheel is not None, output
    assert "fastws will run in pure Python" in output
    assert installed(wheel, tmp_path / "site") == "py"


@pytest.mark.skipif(sys.platform == "win32", reason="CC chooses no compiler there")
def test_without_a_compiler_require_fails(tree: Path, tmp_path: Path) -> None:
    wheel, _ = build("build_wheel", tree, tmp_path / "out", FASTWS_EXT="require", CC="false")
    assert wheel is None


def test_an_unknown_choice_is_refused(tree: Path, tmp_path: Path) -> None:
    wheel, output = build("build_wheel", tree, tmp_path / "out", FASTWS_EXT="maybe")
    assert wheel is None
    assert "FASTWS_EXT must be auto, require or no, not 'maybe'" in output
