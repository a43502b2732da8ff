"""Install wheels as users do, each in a new virtual environment, and run the suite there.

    python tools/test.py [--quick] WHEEL ... [-- PYTEST OPTIONS]

A wheel with the extension is tested on its Python with FASTWS_IMPL=c, the pure wheel on each
installed Python with FASTWS_IMPL=py: the whole suite on the newest, the codec on the others. The
tests are copied and run outside the checkout, so they import the installed package. `--quick`
tests only the codec.

This script knows how a wheel is installed and tested; build.py knows how it is built.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import build

ROOT: Final = Path(__file__).resolve().parents[1]
# The tests, and what they read. (cibuildwheel copies the same: test-sources in pyproject.toml.)
SOURCES: Final = ("tests", "docs", "examples", "pyproject.toml", "README.md")
CODEC: Final = tuple(
    f"tests/test_{name}.py"
    for name in ("masking", "utf8", "kernels", "frames", "messages", "differential", "connection")
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    parser.add_argument("--quick", action="store_true", help="test only the codec")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, options = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    pythons = {build.tag_of(python): python for python in build.find_pythons()}
    newest = [*pythons.values()][-1]
    for wheel in args.wheels:
        tag = wheel.name.split("-")[2]
        if tag != "py3" and tag not in pythons:
            return f"{wheel.name}: no Python to test it with is installed"
        for python in pythons.values() if tag == "py3" else [pythons[tag]]:
            # The bytes of the pure wheel are the same everywhere, and its suite takes minutes.
            quick = args.quick or (tag == "py3" and python != newest)
            if not test(wheel.resolve(), python, quick, options):
                return f"{wheel.name}: failed with {python}"
    return 0


def test(wheel: Path, python: str, quick: bool, options: list[str]) -> bool:
    """Install a wheel and run the suite against it; return whether it passed."""
    pure = "-none-any" in wheel.name
    print(f"\n=== {wheel.name}, with {python}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fastws-") as name:
        place = Path(name)
        ignored = shutil.ignore_patterns("node_modules", "__pycache__", ".*")
        for source in SOURCES:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place / source, ignore=ignored)
            else:
                shutil.copy(ROOT / source, place)
        venv = place / "venv"
        subprocess.run(["uv", "venv", "-q", "--python", python, venv], check=True)
        installed = venv / "bin" / "python"
        pip = ["uv", "pip", "install", "-q", "--python", installed]
        subprocess.run([*pip, f"fastws-codec[test] @ {wheel.as_uri()}"], cwd=place, check=True)
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FASTWS_", "PYTHON"))
        }
        env["FASTWS_IMPL"] = "py" if pure else "c"
        what = CODEC if quick else ("tests", "--installed")
        if quick and pure:
            what = tuple(
                path for path in CODEC if "differential" not in path and "kern" not in path
            )
        # -P: do not import from the current directory.
        command = [installed, "-P", "-X", "dev", "-m", "pytest", "-p", "no:cacheprovider", *what]
        return subprocess.run([*command, *options], cwd=place, env=env, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
