"""bench/instructions: what callgrind wrote is read, compared and accepted, and the gate fails.

valgrind is not needed for this: `make bench-instructions` runs it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .tools import from_checkout, run

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
baselines, callgrind, operations, program = from_checkout(
    "",
    *("bench.instructions.baselines", "bench.instructions.callgrind"),
    *("bench.instructions.operations", "bench.instructions.__main__"),
)

ENVIRONMENT = {
    "compiler": "GCC 12.2.0",
    "python": "CPython 3.11.7",
    "machine": "x86_64",
    "cython": "3.3.1",
}
NAME = "gcc-12.2.0-cpython-3.11.7-x86_64"
FIGURES = {"mask 8 B": 500.0, "handshake": 100_000.0}


def baseline(figures: dict[str, float] = FIGURES, **environment: str) -> Any:
    return baselines.Baseline(ENVIRONMENT | environment, figures)


def compare(before: Any, after: Any) -> Any:
    return baselines.Comparison(before, after)


# What callgrind writes ------------------------------------------------------------------------

DUMP = """\
# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 4242
cmd:  python -m something
part: 1


desc: I1 cache:
desc: Timerange: Basic block 0 - 1001
desc: Trigger: Client Request: 500

positions: line
events: Ir
summary: 1234


fn=(1) malloc
0 1000
calls=1 0
0 234

totals: 1234
"""
AT_THE_END = DUMP.replace("Client Request: 500", "Program termination").replace("1234", "0")


def test_a_file_is_read() -> None:
    assert callgrind.read(DUMP) == ("500", 1234)
    assert callgrind.read(AT_THE_END) is None


def test_a_file_without_a_total_is_an_error() -> None:
    with pytest.raises(callgrind.CannotCountError, match="no total for 500"):
        callgrind.read(DUMP.replace("totals:", "total:"))


def test_start_up_is_not_part_of_a_figure() -> None:
    operation = operations.Operation("x", 100, lambda: print, messages=4)
    assert operation.figure({"100": 50_000, "200": 90_000}) == 100.0


# A program that takes valgrind's place writes these files, or fails.
VALGRIND = f"""\
#!/bin/sh
case $1 in --version) echo valgrind-9.8.7; exit;; esac
for argument; do case $argument in
    --callgrind-out-file=*) out=${{argument#*=}};;
    fail) echo "no luck with $PYTHONHASHSEED $COLOUR" >&2; exit 7;;
esac; done
cat > "$out.1" <<'END'
{DUMP}END
cat > "$out.2" <<'END'
{DUMP.replace("500", "1000").replace("1234", "2345")}END
cat > "$out" <<'END'
{AT_THE_END}END
"""


@pytest.fixture
def valgrind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("valgrind does not run on Windows")
    path = tmp_path / "bin" / "valgrind"
    path.parent.mkdir()
    path.write_text(VALGRIND)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("valgrind")
def test_a_program_is_counted(tmp_path: Path) -> None:
    assert callgrind.version() == "9.8.7"
    counted = callgrind.count(["echo"], Path("none"), environment={}, keep=tmp_path / "it")
    assert counted == {"500": 1234, "1000": 2345}
    assert (tmp_path / "it" / "callgrind.out.500").read_text() == DUMP


@pytest.mark.usefixtures("valgrind")
def test_a_program_that_fails_is_an_error() -> None:
    # The order of sets must not differ between runs.
    with pytest.raises(callgrind.CannotCountError, match=r"fail failed:\n[^$]*no luck with 0 blue"):
        callgrind.count(["fail"], Path("none"), environment={"COLOUR": "blue"})


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(callgrind.CannotCountError, match=r"valgrind is missing: install .*apt-get"):
        callgrind.version()
    monkeypatch.setenv("CC", "ccc -m99")
    with pytest.raises(callgrind.CannotCountError, match=r"ccc is missing: install .*apt-get"):
        callgrind.build(tmp_path)


# Baselines ------------------------------------------------------------------------------------


def test_a_baseline_is_written_and_read(tmp_path: Path) -> None:
    path = baseline().save(tmp_path)
    assert path == tmp_path / f"{NAME}.toml"
    assert baselines.Baseline.load(path) == baseline()


def test_this_environment_is_described() -> None:
    built_with = {"compiler": "clang 17.0.6", "cython": "3.3.1"}
    described = baselines.describe(built_with, kernel="sse", valgrind="3.19.0")
    assert described.keys() > ENVIRONMENT.keys()
    assert "h11 " in described["packages"]
    assert baselines.Baseline(described, {}).name.startswith("clang-17.0.6-")


def test_committed_baselines_have_all_operations() -> None:
    paths = list(baselines.FOLDER.iterdir())
    assert paths
    for path in paths:
        committed = baselines.Baseline.load(path)
        assert committed.path() == path
        assert list(committed.instructions) == list(operations.OPERATIONS)


# Comparing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "passes", "words"),
    [
        (500.0, True, "All operations are within 2 % of the baseline."),
        (510.0, True, "All operations are within 2 % of the baseline."),
        (490.0, True, "All operations are within 2 % of the baseline."),
        (510.5, False, "FAILED: over 2 % more instructions for mask 8 B (+2.1 %).\n"),
        (480.0, True, "Over 2 % fewer instructions for mask 8 B (-4.0 %).\n"),
    ],
)
def test_figures_are_compared(figure: float, passes: bool, words: str) -> None:
    comparison = compare(baseline(), baseline(FIGURES | {"mask 8 B": figure}))
    assert comparison.passes is passes
    assert comparison.verdict().startswith(words)
    assert ("make bench-instructions-accept" in comparison.verdict()) is ("All" not in words)


def test_the_table_shows_what_changed() -> None:
    after = baseline({"mask 8 B": 600.0, "handshake": 90_000.0})
    assert compare(baseline(), after).table().splitlines() == [
        "instructions for one          before       after    change",
        "mask 8 B                       500.0       600.0   +20.0 %  MORE",
        "handshake                  100,000.0    90,000.0   -10.0 %  less",
    ]


def test_operations_come_and_go() -> None:
    comparison = compare(baseline(), baseline({"mask 8 B": 500.0, "mask 9 B": 700.0}))
    assert comparison.passes
    assert comparison.table().splitlines()[2:] == [
        "handshake                  100,000.0           -",
        "mask 9 B                           -       700.0",
    ]


def test_an_unknown_compiler_passes() -> None:
    after = baseline(dict.fromkeys(FIGURES, 1e6), compiler="clang 17.0.6")
    comparison = compare(None, after)
    assert comparison.passes
    assert "There is no baseline for clang-17.0.6-cpython" in comparison.verdict()
    assert comparison.table().count(" - ") == 2


def test_another_cython_passes_and_is_named() -> None:
    after = baseline(dict.fromkeys(FIGURES, 1e6), cython="3.4.0", libc="glibc 2.41")
    comparison = compare(baseline(), after)
    assert comparison.passes
    assert "  cython: 3.3.1 -> 3.4.0\n  libc: none -> glibc 2.41\n" in comparison.verdict()
    # The figures are shown all the same.
    assert comparison.table().count("MORE") == 2


# The program ----------------------------------------------------------------------------------


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the program as if these were the figures."""

    def call(after: Any, *arguments: str) -> int:
        def measured(word: str, keep: Path | None) -> Any:
            if isinstance(after, Exception):
                raise after
            found = {name: value for name, value in after.instructions.items() if word in name}
            return dataclasses.replace(after, instructions=found)

        monkeypatch.setattr(program, "measured", measured)
        status: int = program.main(list(arguments), tmp_path)
        return status

    return call


def test_a_baseline_is_accepted_and_holds(
    main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    slower = baseline(FIGURES | {"handshake": 103_000.0})
    assert main(baseline()) == 0
    assert f"There is no baseline for {NAME}" in capsys.readouterr().out
    assert main(baseline(), "--accept") == 0
    assert main(baseline()) == 0
    assert "All operations are within 2 %" in capsys.readouterr().out
    assert main(slower) == 1
    assert "FAILED: over 2 % more instructions for handshake (+3.0 %)" in capsys.readouterr().out
    assert main(slower, "-k", "mask") == 0
    assert "handshake" not in capsys.readouterr().out
    assert main(slower, "--accept") == 0
    assert "+3.0 %" in capsys.readouterr().out
    assert main(slower) == 0


def test_a_baseline_must_be_complete(main: Callable[..., int]) -> None:
    with pytest.raises(SystemExit):
        main(baseline(), "--accept", "-k", "mask")


def test_nothing_is_skipped_in_silence(
    main: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(callgrind.CannotCountError("valgrind is missing")) == 2
    assert capsys.readouterr().err == "valgrind is missing\n"


def test_operations_can_be_performed() -> None:
    code = """
import os
from bench.instructions.operations import OPERATIONS

kept = []  # or a task that waits would be collected
for name, operation in OPERATIONS.items():
    kept.append(operation.make())
    kept[-1](3)
    print(name)
os._exit(print(end="", flush=True) or 0)  # connections are open
"""
    done = run(sys.executable, "-c", code, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.splitlines() == list(operations.OPERATIONS)
