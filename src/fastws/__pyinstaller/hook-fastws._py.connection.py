"""Tells PyInstaller that this source, which is also compiled, does not need Cython."""

excludedimports = ["cython"]
