"""Runs all fuzz targets, one after the other, and reports what they found.

    python fuzz/run.py [target ...]

FUZZ_SECONDS   the total time of all targets (default 600)
CI             makes a missing atheris or clang an error
CLANG          the clang that builds the kernels' target

The corpora, logs and findings are in .cache/fuzz. The exit status is 1 if there is a finding. To
reproduce one, pass its file to its target, as printed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import make_corpus
from common import NO_ATHERIS, TWINS, atheris

FUZZ = Path(__file__).resolve().parent
ROOT = FUZZ.parent
CACHE = ROOT / ".cache" / "fuzz"
KERNELS = ROOT / "src" / "fastws" / "_c" / "kernels"
TARGETS = (
    *("decoder", "differential", "deflate", "streams", "frames", "kernels"),
    *("handshake", "session", "preambles", "addresses", "captures"),
)

OPTIONS = ("-print_final_stats=1", "-timeout=30", "-rss_limit_mb=2048", "-max_len=8192")


def find_clang() -> str | None:
    names = [os.environ.get("CLANG", "clang"), *(f"clang-{n}" for n in range(22, 10, -1))]
    return next(filter(None, map(shutil.which, names)), None)


def build_kernels() -> tuple[str, ...] | str:
    """Build the C target; return the command that runs it, or what is missing."""
    clang = find_clang()
    if clang is None:
        return "there is no clang here (Debian: apt install clang libclang-rt-dev)"
    program = CACHE / "kernels"
    sanitizers = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined")
    command = [clang, "-g", "-O1", *sanitizers, f"-I{KERNELS}", FUZZ / "kernels.c", "-o", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        if "libclang_rt" in done.stderr:
            return f"{clang} has no libFuzzer (Debian: apt install libclang-rt-dev)"
        sys.exit(f"the kernels do not compile:\n{done.stderr}")
    return (str(program),)


def command(target: str) -> tuple[str, ...] | str:
    """Return the command that runs a target, or what is missing for it."""
    if target == "kernels":
        return build_kernels()
    if atheris is None:
        return NO_ATHERIS
    if target == "differential" and "c" not in TWINS:
        return "fastws._c is not compiled"
    return sys.executable, str(FUZZ / f"{target}.py")


def run(target: str, argv: tuple[str, ...], seconds: int) -> tuple[int, bool]:
    """Run a target; return the number of executions and whether nothing was found."""
    log = CACHE / f"{target}.log"
    findings = CACHE / "findings"
    findings.mkdir(exist_ok=True)
    options = (
        *OPTIONS,
        f"-max_total_time={seconds}",
        f"-artifact_prefix={findings / target}-",
        str(CACHE / "corpus" / target),
    )
    start = time.monotonic()
    with log.open("wb") as output:
        status = subprocess.run([*argv, *options], stdout=output, stderr=output, check=False)
    text = log.read_text(errors="replace")
    match = re.search(r"^stat::number_of_executed_units:\s*(\d+)", text, re.MULTILINE)
    executions = int(match[1]) if match else 0
    good = status.returncode == 0 and executions > 0
    print(
        f"{target:<14}{executions:>12,} executions in {time.monotonic() - start:.0f} s", flush=True
    )
    if not good:
        reproducer = re.search(r"Test unit written to (\S+)", text)
        print(f"  FOUND something; the end of {log}:")
        print("".join(f"    {line}\n" for line in text.splitlines()[-40:]))
        if reproducer:
            print(f"  to see it again: {' '.join(argv)} {reproducer[1]}", flush=True)
    return executions, good


def main() -> int:
    targets = sys.argv[1:] or list(TARGETS)
    unknown = set(targets) - set(TARGETS)
    if unknown:
        sys.exit(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    seconds = max(1, int(os.environ.get("FUZZ_SECONDS", "600")) // len(targets))
    make_corpus.write(CACHE / "corpus")

    total, findings, missing = 0, [], []
    for target in targets:
        argv = command(target)
        if isinstance(argv, str):
            print(f"{target:<14} NOT RUN: {argv}", flush=True)
            missing.append(target)
            continue
        executions, good = run(target, argv, seconds)
        total += executions
        if not good:
            findings.append(target)

    summary = f"{total:,} executions of {len(targets) - len(missing)} targets"
    summary += f", findings in {', '.join(findings)}" if findings else ", no findings"
    if missing:
        summary += f"; not run: {', '.join(missing)}"
    print(summary)
    return 1 if findings or (missing and os.environ.get("CI")) else 0


if __name__ == "__main__":
    sys.exit(main())
