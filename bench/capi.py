"""What another Cython project gains from fastws.capi: python -m bench.capi

This compiles capi.pyx, which needs Cython, setuptools and a C compiler, and runs each of its
loops alternately with the one that calls Python methods. Echoes answer each read.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from time import perf_counter
from typing import Any

import fastws

KEY = b"\x37\xfa\x21\x3d"
READ = 65536
SECONDS, ROUNDS = 0.1, 7
SETUP = """
from setuptools import Extension, setup

setup(name="capi", py_modules=[], ext_modules=[Extension("capi", ["capi.pyx"])])
"""


def compiled() -> Any:
    """Compile capi.pyx in a temporary directory, and import it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        shutil.copy(Path(__file__).with_suffix(".pyx"), folder)
        Path(folder, "setup.py").write_text(SETUP)
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        result = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if result.returncode:
            sys.exit(f"{result.stdout}\nIt takes Cython, setuptools and a C compiler.")
        (path,) = (path for path in Path(folder).glob("capi.*") if path.suffix in (".so", ".pyd"))
        spec = spec_from_file_location("capi", path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def cases() -> list[tuple[str, str, int, list[Any]]]:
    """The cases: a description, the loop's name, messages per turn, and its arguments."""

    def frames(size: int, count: int) -> bytes:
        return fastws.encode_frame(fastws.Opcode.TEXT, b"x" * size, key=KEY) * count

    def decoder() -> fastws.MessageDecoder:
        return fastws.MessageDecoder(masked=True)

    found: list[tuple[str, str, int, list[Any]]] = []
    for size in (16, 1024):
        many = READ // (size + 8)
        for count, how in ((1, "one in a read"), (many, "reads of 64 KiB")):
            read = frames(size, count)
            encoder = fastws.MessageEncoder()
            connection = fastws.Connection(fastws.Role.SERVER)
            what = f"{size} B, {how}"
            found += [
                (f"decode {what}", "decode", count, [decoder(), read]),
                (f"echo {what}", "echo", count, [decoder(), encoder, read]),
                (f"echo by Connection {what}", "connection", count, [connection, read]),
            ]
    return [
        *found,
        ("mask in place 8 B", "mask", 1, [bytearray(8), KEY]),
        ("mask in place 1 KiB", "mask", 1, [bytearray(1024), KEY]),
        ("validate UTF-8 16 B", "validate", 1, ["héllo wörld €".encode()]),
        ("validate UTF-8 1 KiB", "validate", 1, ["héllo wörld €".encode() * 60]),
    ]


def seconds(loop: Any, arguments: list[Any], times: int) -> float:
    begin = perf_counter()
    loop(*arguments, times)
    return perf_counter() - begin


def main() -> None:
    if fastws.implementation != "c":
        sys.exit("fastws runs in pure Python here: there is no fastws.capi to measure")
    module = compiled()
    print(f"ns for a message, the best of {ROUNDS} rounds; Python {sys.version.split()[0]}\n")
    print(f"{'':42} {'capi':>8} {'methods':>8} {'gain':>7}")
    for words, name, count, arguments in cases():
        loops = [getattr(module, f"{name}_{how}") for how in ("capi", "python")]
        assert loops[0](*arguments, 3) == loops[1](*arguments, 3) == 3 * count
        times = 1
        while seconds(loops[1], arguments, times) < SECONDS:
            times *= 2
        best = [float("inf")] * 2
        for _ in range(ROUNDS):
            for i, loop in enumerate(loops):
                best[i] = min(best[i], seconds(loop, arguments, times) / times / count)
        fast, slow = best
        print(f"{words:42} {fast * 1e9:8.1f} {slow * 1e9:8.1f} {slow / fast:6.2f}x", flush=True)


if __name__ == "__main__":
    main()
