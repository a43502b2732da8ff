"""Links from pages to files of the repository that are not pages.

On GitHub, a relative link leads there. Sphinx does not know these files; here, the link leads to
the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]*)")


def link(app: Sphinx, name: str, content: list[str]) -> None:
    pages = Path(app.srcdir)
    place = (pages / name).parent

    def to_repository(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(place / match[1]))
        if target.is_relative_to(pages):
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        path = target.relative_to(pages.parent).as_posix()
        return f"]({app.config.html_theme_options['source_repository']}/{kind}/main/{path}"

    content[0] = LINK.sub(to_repository, content[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", link, priority=600)  # after what is generated
    return {"parallel_read_safe": True}
