"""What `fastws info` tells of: metadata, and the integrations, which it reads as sources."""

from PyInstaller.utils.hooks import collect_data_files  # type: ignore[import-untyped]

from fastws.__pyinstaller import metadata_of

# Of what a program that has this module has, too.
datas = metadata_of("fastws-codec", "h11", "uvloop", "zlib-ng", "isal")
datas += collect_data_files("fastws.integrations", include_py_files=True, includes=["*.py"])
