"""Count instructions with callgrind, a tool of valgrind.

This module knows how to run a program under callgrind and how to read what callgrind writes. It
does not know what the program does.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
INSTALL: Final = "install valgrind and a C compiler (Debian, Ubuntu: apt-get install valgrind gcc)"
TIMEOUT: Final = 300.0  # seconds for one program, which takes two or three

_NAME = re.compile(r"^desc: Trigger: Client Request: (.*)$", re.MULTILINE)
_TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)


class CannotCountError(Exception):
    """Instructions cannot be counted here; the message says why."""


def version() -> str:
    """Return valgrind's version.

    Raises:
        CannotCountError: if it is not installed.
    """
    if shutil.which("valgrind") is None:
        raise CannotCountError(f"valgrind is missing: {INSTALL}")
    return _run(["valgrind", "--version"]).strip().removeprefix("valgrind-")


def build(folder: Path) -> Path:
    """Compile preload.c into a folder; return the library.

    Raises:
        CannotCountError: if there is no compiler, or no header of valgrind's.
    """
    library = folder / "preload.so"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise CannotCountError(f"{compiler[0]} is missing: {INSTALL}")
    # -fno-builtin: a compiler knows that malloc and memset are calloc, which is defined by them.
    command = [*compiler, "-O2", "-fno-builtin", "-shared", "-fPIC", "-o", library]
    _run([*command, HERE / "preload.c"])
    return library


def count(
    command: Sequence[str | Path],
    library: Path,
    *,
    environment: Mapping[str, str],
    keep: Path | None = None,
) -> dict[str, int]:
    """Run a Python program that calls the functions of preload.c; return what it counted, by the
    names that it gave.

    Args:
        command: the program and its arguments.
        library: what `build` returned.
        environment: its environment variables. It gets no others, except PATH.
        keep: a folder for what callgrind writes; by default, nothing is kept.

    Raises:
        CannotCountError: if the program fails.
    """
    with tempfile.TemporaryDirectory(prefix="fastws-") as name:
        folder = Path(name)
        callgrind = [
            *("valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={folder / 'out'}"),
            # fastws_begin and fastws_toggle change that.
            *("--instr-atstart=no", "--collect-atstart=no"),
        ]
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LD_PRELOAD": str(library),
            "PYTHONHASHSEED": "0",
            **environment,
        }
        _run([*callgrind, *command], environment=environment)
        counted = {}
        for path in sorted(folder.iterdir()):
            if (result := read(path.read_text())) is not None:
                counted[result[0]] = result[1]
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, keep / f"callgrind.out.{result[0]}")
    return counted


def read(text: str) -> tuple[str, int] | None:
    """Return the name and the count in a file that fastws_dump wrote.

    None if callgrind wrote it for another reason: at the end of the program, it does.

    Raises:
        CannotCountError: if there is no count in it.
    """
    name, total = _NAME.search(text), _TOTAL.search(text)
    if name is None:
        return None
    if total is None:
        raise CannotCountError(f"callgrind wrote no total for {name[1]}")
    return name[1], int(total[1])


def _run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        line = shlex.join(map(str, command))
        hint = f"\n{INSTALL}" if "callgrind.h" in done.stderr else ""
        raise CannotCountError(f"{line} failed:\n{done.stdout}{done.stderr}{hint}")
    return done.stdout
