"""Links from pages to files of the repository that are not pages.

On GitHub, a relative link leads there. Sphinx would copy the file into the site, without the
others that it belongs to; here, the link leads to the repository.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.addnodes import download_reference

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def link(app: Sphinx, tree: nodes.document) -> None:
    pages = Path(app.srcdir)
    for node in [*tree.findall(download_reference)]:
        place = pages / app.env.docname
        target = Path(os.path.normpath(place.parent / node["reftarget"]))
        if target.is_relative_to(pages):
            continue
        path = target.relative_to(pages.parent)
        kind = "tree" if target.is_dir() else "blob"
        url = f"{app.config.html_theme_options['source_repository']}/{kind}/main/{path.as_posix()}"
        node.replace_self(nodes.reference("", "", *node.children, refuri=url))


def setup(app: Sphinx) -> dict[str, bool]:
    # Before Sphinx collects what it has to copy.
    app.connect("doctree-read", link, priority=100)
    return {"parallel_read_safe": True}
