"""What pyproject.toml cannot say: which modules are compiled, and what to do if they cannot be.

FASTWS_EXT=auto     compile; without a working compiler install pure Python, and say so (default)
FASTWS_EXT=require  compile or fail
FASTWS_EXT=no       pure Python
"""

import json
import os
import sys
import uuid

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

WANTED = os.environ.get("FASTWS_EXT", "auto")
if WANTED not in ("auto", "require", "no"):
    sys.exit(f"FASTWS_EXT must be auto, require or no, not {WANTED!r}")

HEADERS = ["cpu.h", "kernels.h", "mask.h", "scalar.h", "sets.h", "simd.h", "utf8.h"]


class BuildExt(build_ext):
    """build_ext that leaves out debugging information, and says loudly what it means that an
    optional extension failed."""

    def build_extensions(self):
        # Many a Python asks for that information, which is three quarters of a wheel. (CFLAGS is
        # for who wants it; as wheels are built, it would also take the place of all that the
        # Python was compiled with, -O3 included.)
        if self.compiler.compiler_type == "unix" and "CFLAGS" not in os.environ:
            for ext in self.extensions:
                ext.extra_compile_args.append("-g0")
        super().build_extensions()

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


class BdistWheel(bdist_wheel):
    """bdist_wheel that adds a bill of materials (PEP 770): what is in a wheel that others wrote."""

    def write_wheelfile(self, wheelfile_base, *args, **kwargs):
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        os.makedirs(os.path.join(wheelfile_base, "sboms"), exist_ok=True)
        name = f"{self.distribution.get_name()}.cdx.json"
        with open(os.path.join(wheelfile_base, "sboms", name), "w") as file:
            json.dump(self.bill_of_materials(), file, indent=2)
            file.write("\n")

    def bill_of_materials(self):
        name, version = self.distribution.get_name(), self.distribution.get_version()
        purl = f"pkg:pypi/{name}@{version}"
        components = []
        if self.distribution.ext_modules:
            from Cython import __version__ as cython

            components.append(
                {
                    "type": "library",
                    "bom-ref": f"pkg:pypi/cython@{cython}",
                    "name": "Cython",
                    "version": cython,
                    "description": "The helpers that it writes into the C of extension modules.",
                    "licenses": [{"license": {"id": "Apache-2.0"}}],
                    "purl": f"pkg:pypi/cython@{cython}",
                }
            )
        return {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            # The same wheel has the same bill, down to its number.
            "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{purl}#{components}").urn,
            "version": 1,
            "metadata": {
                "component": {
                    "type": "library",
                    "bom-ref": purl,
                    "name": name,
                    "version": version,
                    "licenses": [{"license": {"id": "MIT"}}],
                    "purl": purl,
                }
            },
            "components": components,
            "dependencies": [
                {"ref": purl, "dependsOn": [component["bom-ref"] for component in components]}
            ],
        }


# One source makes both twins of connection: the extension is named after where Cython finds
# the C types.
SOURCES = {
    "_c.kernel": "_c/kernel.pyx",
    "_c.masking": "_c/masking.pyx",
    "_c.utf8": "_c/utf8.pyx",
    "_c.frames": "_c/frames.pyx",
    "_c.messages": "_c/messages.pyx",
    "_c.connection": "_py/connection.py",
    "_c.hot": "_c/hot.pyx",
    "capi": "capi.pyx",
}

# No cythonize(): it resets `optional`, so that a broken compiler would fail the build.
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
    # Generated C stays out of src/.
    options={"build_ext": {"cython_c_in_temp": True}},
)
