"""The setuptools commands that setup.py uses: how the extension and a wheel are built.

This module does not know which modules are compiled: setup.py does.
"""

from __future__ import annotations

import json
import os
from typing import Any

from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

from .sbom import bill_of_materials


class BuildExt(build_ext):
    """build_ext without debugging information, which warns when an optional extension failed."""

    def build_extensions(self) -> None:
        # Many Pythons are configured with -g, and the debugging information is three quarters of a
        # wheel. (If CFLAGS is set, the user decides. We cannot use CFLAGS ourselves: in a build of
        # wheels it would replace all flags that the Python was compiled with, including -O3.)
        if self.compiler.compiler_type == "unix" and "CFLAGS" not in os.environ:
            for ext in self.extensions:
                ext.extra_compile_args.append("-g0")
        super().build_extensions()

    def run(self) -> None:
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
    """bdist_wheel that adds a bill of materials to the wheel."""

    def write_wheelfile(self, wheelfile_base: str, *args: Any, **kwargs: Any) -> None:
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        cython = None
        if self.distribution.ext_modules:
            from Cython import __version__ as cython
        name, version = self.distribution.get_name(), self.distribution.get_version()
        folder = os.path.join(wheelfile_base, "sboms")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{name}.cdx.json"), "w") as file:
            json.dump(bill_of_materials(name, version, cython=cython), file, indent=2)
            file.write("\n")
