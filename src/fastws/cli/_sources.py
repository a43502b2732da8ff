"""Whether the sources of a program have changed, for `fastws serve --reload`.

This module knows files and their times. It does not know which of them a process has imported.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Sources"]

# Directories with a file of this name are virtual environments.
_ENVIRONMENT = "pyvenv.cfg"


class Sources:
    """All Python files below a directory, without hidden directories and virtual environments.

    Args:
        root: the directory.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._seen = dict(self._look())

    def changed(self) -> bool:
        """Return whether a file was added, removed or written since the last call."""
        before, self._seen = self._seen, dict(self._look())
        return self._seen != before

    def _look(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for folder, folders, files in os.walk(self._root):
            folders[:] = [
                name
                for name in folders
                if name[0] != "."
                and name not in ("__pycache__", "node_modules")
                and not os.path.exists(os.path.join(folder, name, _ENVIRONMENT))
            ]
            for name in files:
                if name.endswith(".py"):
                    path = os.path.join(folder, name)
                    try:
                        status = os.stat(path)
                    except OSError:
                        continue  # removed meanwhile
                    yield path, (status.st_mtime_ns, status.st_size)
