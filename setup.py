"""Says what pyproject.toml cannot: which modules are compiled, and what to do if that fails.

FASTWS_EXT=auto     compile; without a working compiler, install pure Python and warn (default)
FASTWS_EXT=require  compile or fail
FASTWS_EXT=no       pure Python
"""

import os
import sys

from setuptools import Extension, setup

# Build backends run this file without its folder on the path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from tools.commands import BdistWheel, BuildExt

WANTED = os.environ.get("FASTWS_EXT", "auto")
if WANTED not in ("auto", "require", "no"):
    sys.exit(f"FASTWS_EXT must be auto, require or no, not {WANTED!r}")

HEADERS = ["avx512.h", "cpu.h", "kernels.h", "mask.h", "scalar.h", "sets.h", "simd.h", "utf8.h"]

# Some sources make both twins: the extension is named after where Cython finds the C types.
SOURCES = {
    "_c.kernel": "_c/kernel.pyx",
    "_c.masking": "_c/masking.pyx",
    "_c.utf8": "_c/utf8.pyx",
    "_c.frames": "_c/frames.pyx",
    "_c.messages": "_c/messages.pyx",
    "_c.connection": "_py/connection.py",
    "_c.wire": "aio/wire.py",
    "_c.sinks": "aio/sinks.py",
    "capi": "capi.pyx",
}

# Not cythonize(): it resets `optional`, so a broken compiler would fail the build.
extensions = [
    Extension(
        f"fastws.{name}",
        [f"src/fastws/{source}"],
        include_dirs=["src/fastws/_c"],
        depends=[f"src/fastws/_c/kernels/{header}" for header in HEADERS],
        optional=WANTED == "auto",
    )
    for name, source in SOURCES.items()
]

setup(
    ext_modules=[] if WANTED == "no" else extensions,
    cmdclass={"bdist_wheel": BdistWheel, "build_ext": BuildExt},
    # Keep the generated C out of src/.
    options={"build_ext": {"cython_c_in_temp": True}},
)
