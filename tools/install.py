"""Create a virtual environment and install fastws or tools into it, saying what happens.

    python3 tools/install.py --venv DIRECTORY
    DIRECTORY/bin/python tools/install.py PIP-OPTIONS... [-e .[EXTRA,...]]

The second form runs `pip install` with these options, shows its steps while they run and how long
they took, and keeps pip's whole output in DIRECTORY/install.log. If something is missing, such as
a C compiler, it says what to do about that.

This module knows pip's output. It does not know which environments there are and what is installed
into them: the Makefile does. It must also run on a Python that is too old, to say so.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OLDEST = (3, 11)
NO_COMPILER = """\
fastws is compiled from C, and this machine has no C compiler ({compiler} was not found). Either
  - install one:         apt install gcc libc6-dev     (Debian, Ubuntu)
                         dnf install gcc               (Fedora)
                         xcode-select --install        (macOS)
  - or use pure Python:  make run EXT=auto             (the same results, but slower)"""
NO_HEADERS = """\
The headers of this Python are missing. Either
  - install them:        apt install python3-dev       (Debian, Ubuntu)
                         dnf install python3-devel     (Fedora)
  - or use pure Python:  make run EXT=auto             (the same results, but slower)"""
PURE = """\
This is pure Python: the same results, but slower. To compile fastws, install a C compiler, then run
`make clean` and the same command without EXT={choice}."""


def main(args: list[str]) -> int:
    if sys.version_info < OLDEST:
        oldest, mine = (".".join(map(str, version[:2])) for version in (OLDEST, sys.version_info))
        return fail(
            f"fastws needs Python {oldest} or newer, and {sys.executable} is {mine}. "
            f"If you have a newer one: make run PYTHON=python{oldest}"
        )
    choice = os.environ.get("FASTWS_EXT", "auto")
    compiler = compiler_name()
    # Say so before anything else, not after half a minute.
    if choice == "require" and {"-e", "--venv"} & {*args} and not shutil.which(compiler):
        return fail(NO_COMPILER.format(compiler=compiler))
    try:
        return create(args[1]) if args[:1] == ["--venv"] else install(args, choice)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        return 130


def fail(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def compiler_name() -> str:
    """Return the name of the C compiler that the build will use."""
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    return command[0]


def create(directory: str) -> int:
    version = ".".join(map(str, sys.version_info[:3]))
    steps = Steps()
    steps.start(f"Creating {directory} with Python {version}")
    command = [sys.executable, "-m", "venv", directory]
    python = os.path.join(directory, "bin", "python")
    pip = [python, "-m", "pip", "install", "-qq", "--upgrade", "pip"]
    status = 1
    try:
        status = run(command) or run(pip)
    finally:
        if status:
            # make would take what is there for an environment that is complete.
            shutil.rmtree(directory, ignore_errors=True)
    steps.end()
    return status


def run(command: list[str]) -> int:
    return subprocess.run(command, check=False).returncode


def install(args: list[str], choice: str) -> int:
    """Run pip, and show what it does."""
    began = time.monotonic()
    log = Path(sys.prefix) / "install.log"
    steps = Steps()
    reader = Reader(steps)
    steps.start("Installing the build tools" if "-e" in args else "Installing tools")
    process = subprocess.Popen(
        [sys.executable, "-m", "pip", "install", "--verbose", *args],
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="backslashreplace",
    )
    assert process.stdout is not None
    with process, log.open("w", encoding="utf-8") as file:
        for line in process.stdout:
            file.write(line)
            reader.read(line)
    steps.end()
    if process.returncode:
        lines = log.read_text(encoding="utf-8").splitlines()
        print(explain(lines), file=sys.stderr)
        print(f"The installation failed. Its whole output: {log}", file=sys.stderr)
        return process.returncode
    took = f"Ready after {seconds(time.monotonic() - began)}"
    if "-e" not in args:
        print(f"{took}.", flush=True)
        return 0
    implementation, kernel = which_twin()
    if implementation == "py":
        print(f"{took}.\n{PURE.format(choice=choice)}", flush=True)
    else:
        print(f"{took}: compiled, with the kernels for {kernel}.", flush=True)
    return 0


def which_twin() -> list[str]:
    code = "import fastws; print(fastws.implementation, fastws.kernel)"
    env = {name: value for name, value in os.environ.items() if not name.startswith("FASTWS_")}
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return result.stdout.split()


def explain(lines: list[str]) -> str:
    """Return what to do about a failure, or the end of pip's output."""
    text = "\n".join(lines)
    if re.search(r"Python\.h: No such file|'Python\.h' file not found", text):
        return NO_HEADERS
    if match := re.search(r"(?:command|unable to execute) '([^']+)'.*No such file", text):
        return NO_COMPILER.format(compiler=match[1])
    return "\n".join(lines[-30:])


class Steps:
    """Lines on standard output, one for each step, with the time that it took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: float | None = None

    def start(self, text: str) -> None:
        """End the current step, and begin another."""
        self.end()
        print(f"{text} … ", end="", flush=True)
        self._began = self._clock()

    def end(self) -> None:
        if self._began is not None:
            print(seconds(self._clock() - self._began), flush=True)
            self._began = None


class Reader:
    """Finds the steps in the output of `pip install --verbose`."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._fetching = False
        self._is_cython = False

    def read(self, line: str) -> None:
        text = line.strip()
        if match := re.match(r"Compiling src/(\S+)\.pyx because ", text):
            self._steps.start(f"Compiling {match[1].replace('/', '.')}")
            self._is_cython = True
        elif match := re.match(r"building '([\w.]+)' extension", text):
            # Usually, the C compiler goes on with what Cython has just made.
            if not self._is_cython:
                self._steps.start(f"Compiling {match[1]}")
            self._is_cython = False
        elif re.match(r"Collecting |Processing |Requirement already satisfied: ", text):
            # The first ones are the build tools; pip runs itself to install them.
            if not line.startswith(" ") and not self._fetching:
                self._fetching = True
                self._steps.start("Finding and downloading the dependencies")
        elif re.match(r"Building editable for .*: started", text):
            self._steps.start("Preparing to compile")
        elif not line.startswith(" ") and (
            match := re.match(r"Installing collected packages: (.*)", text)
        ):
            self._steps.start(f"Installing {counted(match[1].split(', '))}")


def counted(names: Iterable[str]) -> str:
    """Return these names, or how many there are if that would be long."""
    names = list(names)
    return " and ".join(names) if len(names) < 3 else f"{len(names)} packages"


def seconds(value: float) -> str:
    """Return a duration for people.

    Args:
        value: seconds.
    """
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted.")
