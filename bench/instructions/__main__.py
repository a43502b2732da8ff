"""Count the instructions of the main operations, and compare them with the baseline.

The exit status is 1 if an operation takes over 2 % more than the baseline says, and 2 if
instructions cannot be counted here.

python -m bench.instructions [--accept] [-k WORD] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from . import callgrind
from .baselines import FOLDER, Baseline, Comparison, describe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .operations import Operation

# valgrind does not know AVX-512. On other machines, the best kernels are used.
KERNELS = {"x86_64": "avx2", "AMD64": "avx2"}


def settings() -> dict[str, str]:
    """The environment variables of fastws for what is counted."""
    kernel = KERNELS.get(platform.machine())
    return {"FASTWS_IMPL": "c"} | ({"FASTWS_KERNEL": kernel} if kernel else {})


def measure(operations: Iterable[Operation], keep: Path | None = None) -> dict[str, float]:
    """Count the instructions for one message of each operation."""
    with tempfile.TemporaryDirectory(prefix="fastws-") as folder:
        library = callgrind.build(Path(folder))

        def figure(operation: Operation) -> float:
            program = [sys.executable, "-m", "bench.instructions.operations", operation.name]
            place = None if keep is None else keep / operation.name.replace(" ", "-")
            counted = callgrind.count(program, library, environment=settings(), keep=place)
            return operation.figure(counted)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            wanted = list(operations)
            figures = pool.map(figure, wanted)
            return {
                operation.name: round(value, 1)
                for operation, value in zip(wanted, figures, strict=True)
            }


def measured(word: str, keep: Path | None) -> Baseline:
    """Measure the operations whose names contain a word, and say what with.

    Raises:
        CannotCountError: if that is impossible.
    """
    valgrind = callgrind.version()
    os.environ.update(settings())
    try:
        from fastws._c.kernel import built_with
        from fastws.codec import kernel

        from .operations import OPERATIONS
    except ImportError as exc:
        raise callgrind.CannotCountError(f"fastws cannot run with {settings()}: {exc}") from None
    environment = describe(built_with(), kernel=kernel, valgrind=valgrind)
    wanted = [operation for name, operation in OPERATIONS.items() if word in name]
    if not wanted:
        raise callgrind.CannotCountError(f"{word!r} is in none of: {', '.join(OPERATIONS)}")
    return Baseline(environment, measure(wanted, keep))


def main(argv: list[str] | None = None, folder: Path = FOLDER) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__)
    parser.add_argument("--accept", action="store_true", help="make these figures the baseline")
    parser.add_argument("-k", default="", metavar="WORD", help="only operations with this in them")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the files for callgrind_annotate there"
    )
    args = parser.parse_args(argv)
    if args.accept and args.k:
        parser.error("a baseline contains all operations: --accept goes without -k")
    try:
        after = measured(args.k, args.keep)
    except callgrind.CannotCountError as exc:
        print(exc, file=sys.stderr)
        return 2
    path = after.path(folder)
    before = Baseline.load(path) if path.exists() else None
    if before is not None and args.k:
        instructions = {
            name: value for name, value in before.instructions.items() if args.k in name
        }
        before = Baseline(before.environment, instructions)
    comparison = Comparison(before, after)
    print(", ".join(f"{key} {value}" for key, value in after.environment.items()), end="\n\n")
    print(comparison.table(), end="\n\n")
    if args.accept:
        print(f"Written to {after.save(folder)}")
        return 0
    print(comparison.verdict())
    return 0 if comparison.passes else 1


if __name__ == "__main__":
    sys.exit(main())
