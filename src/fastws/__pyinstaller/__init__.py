"""Hooks for PyInstaller: the data and the metadata that fastws reads at run time.

PyInstaller finds this package by the entry point `pyinstaller40`. The hooks do not list modules:
these are imported by statements, which PyInstaller and similar tools find by themselves.
"""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path

__all__ = ["get_hook_dirs", "metadata_of"]


def get_hook_dirs() -> list[str]:
    """Return the directory of the hooks, each of which is named after a module."""
    return [str(Path(__file__).parent)]


def metadata_of(*distributions: str) -> list[tuple[str, str]]:
    """Return the metadata of the distributions that are installed, in the form of hooks."""
    from PyInstaller.utils.hooks import copy_metadata  # type: ignore[import-untyped]

    found: list[tuple[str, str]] = []
    for name in distributions:
        with suppress(PackageNotFoundError):
            found += copy_metadata(name)
    return found
