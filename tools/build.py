"""Build what is published, on this machine: an sdist, a pure wheel, and a wheel for each CPython.

    python tools/build.py [--out dist] [--python python3.12 ...]

All wheels are built from the sdist, not from the checkout. The same source gives the same bytes at
any place and time (tools/reproduce.py checks that): the versions of the tools are those in
constraints.txt, and the only date is SOURCE_DATE_EPOCH, which defaults to that of the last commit.

This script knows how to build and repair wheels; check.py knows what a finished file must be like.
It runs on Linux only. For macOS, Windows and other architectures, cibuildwheel does the same, as
configured in pyproject.toml.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import check

ROOT: Final = Path(__file__).resolve().parents[1]
CONSTRAINTS: Final = ROOT / "tools" / "constraints.txt"
VERSIONS: Final = ("3.11", "3.12", "3.13")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument(
        "--python", action="append", help=f"a CPython to build for (default: {', '.join(VERSIONS)})"
    )
    parser.add_argument(
        "--no-binary", action="store_true", help="build only the sdist and the pure wheel"
    )
    args = parser.parse_args()
    pythons = [] if args.no_binary else args.python or find_pythons()
    shutil.rmtree(args.out, ignore_errors=True)
    made = build(ROOT, args.out, pythons)
    check.check(made)
    (args.out / "SHA256SUMS").write_text(check.describe(made))
    return 0


def find_pythons() -> list[str]:
    """Return the installed interpreters of the wanted versions, from PATH or from pyenv."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = []
    for version in VERSIONS:
        candidates = [f"python{version}", *map(str, root.glob(f"versions/{version}.*/bin/python"))]
        python = next((name for name in candidates if runs(name, version)), None)
        if python is None:
            print(f"Python {version} is not installed")
        else:
            found.append(python)
    if not found:
        sys.exit(f"no Python to build for: none of {', '.join(VERSIONS)} is installed")
    return found


def runs(python: str, version: str) -> bool:
    # pyenv puts commands on PATH that exist but do not run.
    code = f"import sys; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
    try:
        return (
            subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        return False


def tag_of(python: str) -> str:
    """Return the interpreter's tag in the name of a wheel, such as cp312."""
    code = "import sys; print('cp%d%d' % sys.version_info[:2])"
    command = [python, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build(source: Path, out: Path, pythons: list[str]) -> list[Path]:
    """Build everything from the tree or the sdist `source`; return the files."""
    out.mkdir(parents=True, exist_ok=True)
    # The modes of the files end up in the archives.
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="fastws-") as name:
        work = Path(name)
        sdist = build_sdist(source, work) if source.is_dir() else source
        shutil.copy(sdist, out)
        with tarfile.open(sdist) as archive:
            epoch = str(int(next(iter(archive)).mtime))
            archive.extractall(work, filter="data")
        tree = work / sdist.name.removesuffix(".tar.gz")
        env = {"SOURCE_DATE_EPOCH": epoch}
        pure = uv_build(sys.executable, "--wheel", tree, out, env | {"FASTWS_EXT": "no"})
        # A build uses one core.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            build_one = partial(build_binary, tree=tree, work=work, out=out, env=env)
            binary = list(pool.map(build_one, pythons))
    return [out / sdist.name, pure, *binary]


def date_of(source: Path) -> str:
    """Return the date that files get, in seconds since 1970.

    It is SOURCE_DATE_EPOCH if that is set, otherwise the date of the last commit, or of an
    unpacked sdist.
    """
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        return epoch
    if not (source / ".git").exists():
        return str(int((source / "PKG-INFO").stat().st_mtime))
    command = ["git", "-C", source, "log", "-1", "--format=%ct"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build_sdist(source: Path, work: Path) -> Path:
    """Build an sdist, and repack it without the user's name, the modes and the time."""
    epoch = int(date_of(source))
    made = uv_build(sys.executable, "--sdist", source, work / "made", {})
    packed = work / made.name
    with (
        tarfile.open(made) as old,
        packed.open("wb") as file,
        # The header of gzip contains a name and a time too.
        gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            content = io.BytesIO(old.extractfile(member).read()) if member.isfile() else None
            member.mtime = epoch
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.pax_headers = {}
            new.addfile(member, content)
    return packed


def build_binary(python: str, tree: Path, work: Path, out: Path, env: dict[str, str]) -> Path:
    """Build a wheel with the extension that fits manylinux2014."""
    compiler = os.environ.get("CC", "gcc")
    env = env | {
        "FASTWS_EXT": "require",
        "CC": compiler,
        # The linker command with which the Python was built may add a search path for libraries,
        # which must not get into the wheel.
        "LDSHARED": f"{compiler} -shared",
    }
    # Each Python gets its own copy: files that it leaves in build/ would get into the next wheel.
    tag = f"manylinux2014_{platform.machine()}"
    with tempfile.TemporaryDirectory(dir=work) as name:
        copy = shutil.copytree(tree, Path(name) / "tree")
        wheel = uv_build(python, "--wheel", copy, Path(name) / "made", env)
        repaired = Path(name) / "repaired"
        command = [sys.executable, "-m", "auditwheel", "repair", "--strip", "--plat", tag]
        subprocess.run([*command, "-w", repaired, wheel], env=os.environ | env, check=True)
        (finished,) = repaired.iterdir()
        return Path(shutil.copy(finished, out))


def uv_build(python: str, kind: str, tree: Path, out: Path, env: dict[str, str]) -> Path:
    """Build in an isolated environment, with this interpreter and the tools of constraints.txt."""
    before = set(out.glob("*"))
    command = ["uv", "build", "--quiet", kind, "--python", python, "--build-constraints"]
    subprocess.run(
        [*command, CONSTRAINTS, "--out-dir", out, tree], env=os.environ | env, check=True
    )
    (made,) = {path for path in out.glob("*") if path.name[0] != "."} - before
    return made


if __name__ == "__main__":
    sys.exit(main())
