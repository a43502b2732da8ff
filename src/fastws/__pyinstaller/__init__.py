"""What PyInstaller is told of fastws: the data and the metadata that are read at run time.

PyInstaller finds its way here by the entry point `pyinstaller40`. This package does not know
modules: those are imported by statements, which every tool of that kind finds by itself.
"""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path

__all__ = ["get_hook_dirs", "metadata_of"]


def get_hook_dirs() -> list[str]:
    """Return the directory that has the hooks, each of them named after a module."""
    return [str(Path(__file__).parent)]


def metadata_of(*distributions: str) -> list[tuple[str, str]]:
    """Return the metadata of those of the distributions that are installed, as hooks need it."""
    from PyInstaller.utils.hooks import copy_metadata  # type: ignore[import-untyped]

    found: list[tuple[str, str]] = []
    for name in distributions:
        with suppress(PackageNotFoundError):
            found += copy_metadata(name)
    return found
