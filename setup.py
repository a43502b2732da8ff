"""What pyproject.toml cannot say: which modules are compiled, and what to do if they cannot be.

FASTWS_EXT=auto     compile; without a working compiler install pure Python, and say so (default)
FASTWS_EXT=require  compile or fail
FASTWS_EXT=no       pure Python
"""

import os
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WANTED = os.environ.get("FASTWS_EXT", "auto")
if WANTED not in ("auto", "require", "no"):
    sys.exit(f"FASTWS_EXT must be auto, require or no, not {WANTED!r}")

HEADERS = ["cpu.h", "kernels.h", "mask.h", "scalar.h", "sets.h", "simd.h", "utf8.h"]


class BuildExt(build_ext):
    """build_ext that says loudly what it means that an optional extension failed."""

    def run(self):
        super().run()
        missing = [
            ext.name
            for ext in self.extensions
            if not os.path.exists(self.get_ext_fullpath(ext.name))
        ]
        if missing:
            self.warn(
                f"could not compile {', '.join(missing)}: fastws will run in pure Python, "
                "with the same results but slower. FASTWS_EXT=require makes this an error."
            )


# No cythonize(): it resets `optional`, so that a broken compiler would fail the build.
extensions = [
    Extension(
        f"fastws._c.{name}",
        [f"src/fastws/_c/{name}.pyx"],
        depends=[f"src/fastws/_c/kernels/{header}" for header in HEADERS],
        optional=WANTED == "auto",
    )
    for name in ("kernel", "masking", "utf8", "frames", "messages", "hot")
]

setup(
    ext_modules=[] if WANTED == "no" else extensions,
    cmdclass={"build_ext": BuildExt},
    # Generated C stays out of src/.
    options={"build_ext": {"cython_c_in_temp": True}},
)
