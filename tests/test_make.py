"""What `make run` and `make test` say: tools/install.py and tools/suite.py."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .tools import from_checkout, require, run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
install, suite = from_checkout("tools", "install", "suite")

# Installing -------------------------------------------------------------------------------------

LOG = """\
Obtaining file:///home/me/fastws
  Running command pip subprocess to install build dependencies
  Collecting setuptools>=80
  Installing collected packages: setuptools, cython
  Installing build dependencies: finished with status 'done'
Collecting h11>=0.16 (from fastws-codec==1.0)
Collecting uvloop>=0.21
Building wheels for collected packages: fastws-codec
  Building editable for fastws-codec (pyproject.toml): started
  Compiling src/fastws/_c/kernel.pyx because it changed.
  building 'fastws._c.kernel' extension
  gcc -O3 -c kernel.c
  building 'fastws.capi' extension
  Building editable for fastws-codec (pyproject.toml): finished with status 'done'
Installing collected packages: h11, uvloop, fastws-codec
Successfully installed fastws-codec-1.0
"""


def test_steps_are_shown_with_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    def clock() -> Iterator[float]:
        yield from (0.0, 2.0, 2.0, 3.5, 4.0, 5.0, 5.0, 8.25, 9.0, 80.0, 80.0, 81.0)

    ticks = clock()
    steps = install.Steps(lambda: next(ticks))
    steps.start("Installing the build tools")
    reader = install.Reader(steps)
    for line in LOG.splitlines(keepends=True):
        reader.read(line)
    steps.end()
    assert capsys.readouterr().out.splitlines() == [
        "Installing the build tools … 2.0 s",
        "Finding and downloading the dependencies … 1.5 s",
        "Preparing to compile … 1.0 s",
        "Compiling fastws._c.kernel … 3.2 s",
        "Compiling fastws.capi … 1 min 11 s",
        "Installing 3 packages … 1.0 s",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="CC chooses no compiler there")
def test_without_a_compiler_it_says_so_at_once() -> None:
    env = os.environ | {"FASTWS_EXT": "require", "CC": "no-such-compiler -O2"}
    result = run(sys.executable, str(ROOT / "tools" / "install.py"), "-e", ".", env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert "(no-such-compiler was not found)" in result.stderr
    assert "apt install gcc" in result.stderr
    assert "make run EXT=auto" in result.stderr


def test_an_old_python_is_told_from_a_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "OLDEST", (9, 8))
    assert install.main(["--venv", "unused"]) == 1
    assert "fastws needs Python 9.8 or newer" in capsys.readouterr().err
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    monkeypatch.undo()
    assert 'requires-python = ">={}.{}"'.format(*install.OLDEST) in text


def test_an_environment_that_is_not_complete_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str]) -> int:
        # As `python -m venv` on a Debian without python3-venv: there is an interpreter, but no pip.
        assert command[1:] == ["-m", "venv", str(tmp_path / "venv")]
        (tmp_path / "venv" / "bin").mkdir(parents=True)
        (tmp_path / "venv" / "bin" / "python").touch()
        return 1

    monkeypatch.setattr(install, "run", run)
    assert install.create(str(tmp_path / "venv")) == 1
    # Otherwise, the next `make` would find it, and fail without saying why.
    assert not (tmp_path / "venv").exists()
    assert capsys.readouterr().out.startswith("Creating ")


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("fatal error: Python.h: No such file or directory", "python3-dev"),
        ("error: command 'gcc' failed: No such file or directory", "(gcc was not found)"),
        ("ERROR: No matching distribution found for h11", "No matching distribution"),
    ],
)
def test_failures_are_explained(line: str, advice: str) -> None:
    assert advice in install.explain(["one line", line, "another one"])


def test_make_run_listens_where_it_is_told() -> None:
    make = require("make", install="apt-get install make, or your system's package of that name")
    result = run(make, "-n", "run", "PORT=9000", "HOST=::1", "VENV=no-venv", cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "no-venv/bin/fastws echo --host ::1 --port 9000\n" in result.stdout
    assert "tools/install.py --venv no-venv\n" in result.stdout


def test_an_interrupt_needs_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_args: object) -> None:
        install.Steps().start("Compiling fastws._c.wire")
        raise KeyboardInterrupt

    monkeypatch.setenv("FASTWS_EXT", "auto")
    for name, args in (("create", ["--venv", "x"]), ("install", ["-e", "."])):
        monkeypatch.setattr(install, name, interrupted)
        assert install.main(args) == 130
        assert capsys.readouterr().out == "Compiling fastws._c.wire … interrupted\n"


# Testing ----------------------------------------------------------------------------------------

TESTS = """\
import os
import pytest

def test_passes(): pass

def test_fails_with_one_twin():
    assert os.environ["FASTWS_IMPL"] == "py"

def test_is_skipped(): pytest.skip("for a reason")
"""


def test_a_failure_of_one_twin_does_not_hide_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setattr(suite, "DIRECTORY", tmp_path)
    monkeypatch.setattr(suite, "is_compiled", lambda: True)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # it starts faster
    options = ["-q", "-p", "no:cacheprovider", "-c", str(tmp_path / "pytest.ini"), str(tmp_path)]
    assert suite.main(["c", "py", "--", *options]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert "5 to 15 minutes for each" in lines[0]
    table = lines[-8:]
    assert table[0].split() == ["passed", "failed", "skipped", "time"]
    assert table[1].split()[:4] == ["compiled", "1", "1", "1"]
    assert table[2].split()[:5] == ["pure", "Python", "2", "0", "1"]
    assert table[4:6] == ["failed, compiled:", "  test_it::test_fails_with_one_twin"]
    assert table[7].startswith("FAILED after ")
    assert table[7].endswith(": compiled (status 1).")
    # How long the one that passed took is known now.
    known = suite.remembered()
    assert known[shlex.join(options)].keys() == {"py"}
    assert "as the last time" in suite.announcement(["py"], known[shlex.join(options)])
    # It says nothing about how long other tests take.
    assert known.keys() == {shlex.join(options)}


@pytest.mark.parametrize(("choice", "status"), [("require", 1), ("auto", 0)])
def test_a_missing_extension_is_not_passed_over(
    choice: str,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FASTWS_EXT", choice)
    monkeypatch.setattr(suite, "DIRECTORY", tmp_path)
    monkeypatch.setattr(suite, "is_compiled", lambda: False)
    monkeypatch.setattr(suite, "run", lambda twin, _: suite.Outcome(twin, 0, 61.0, (7, 0, 0)))
    assert suite.main(["c", "py"]) == status
    output = capsys.readouterr()
    assert [" ".join(line.split()) for line in output.out.splitlines()[-5:]] == [
        "passed failed skipped time",
        "pure Python 7 0 0 1 min 1 s",
        "compiled not run",
        "",
        "All tests passed, in 1 min 1 s.",
    ]
    assert ("not compiled" in output.err) is bool(status)


def test_an_interrupt_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(suite, "DIRECTORY", tmp_path)
    monkeypatch.setattr(suite, "is_compiled", lambda: True)
    monkeypatch.setattr(suite, "run", lambda twin, _: suite.Outcome(twin, None, 2.0))
    assert suite.main(["c", "py"]) == 1
    text = capsys.readouterr().out
    assert text.endswith("Interrupted after 2.0 s.\n")
    assert "not run" in text


def test_a_second_interrupt_is_for_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = iter([signal.default_int_handler, signal.SIG_IGN])

    class Interrupted:
        def __init__(self, *_args: object, **_options: object) -> None:
            pass

        def wait(self) -> None:
            handler = next(waits)
            assert signal.getsignal(signal.SIGINT) is handler
            if handler is not signal.SIG_IGN:
                raise KeyboardInterrupt

    monkeypatch.setattr(suite, "DIRECTORY", tmp_path)
    monkeypatch.setattr("subprocess.Popen", Interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert suite.run("py", []).status is None
    finally:
        signal.signal(signal.SIGINT, before)
    assert next(waits, None) is None
