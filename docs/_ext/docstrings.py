"""Docstrings as they are written here, turned into what Sphinx's extension `napoleon` reads.

In a docstring, an indented paragraph is code, and lines such as `OPEN: messages can be sent` are
a list. reStructuredText wants both to be marked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
ITEM = re.compile(r"([A-Z][A-Z_]+): ")
# Modules of the standard library whose names are linked.
MODULES = ("asyncio", "collections.abc", "contextlib", "datetime", "enum", "re", "socket", "ssl")


def mark(lines: list[str]) -> Iterator[str]:
    """Mark code and lists in the lines of a docstring."""
    in_section = in_code = in_list = False
    previous = ""
    for line in lines:
        indented = line.startswith("    ")
        if line and not indented:
            in_section = bool(SECTION.match(line))
            in_code = False
            item = ITEM.match(line)
            if item:
                if not in_list and previous:
                    yield ""
                line = f"- **{item[1]}**: {line[item.end() :]}"
            in_list = bool(item)
        elif indented and in_list:
            line = f"  {line.lstrip()}"
        elif indented and not (in_section or in_code or previous):
            in_code = True
            yield from (".. code-block:: python", "")
        yield line
        previous = line


def process(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    lines[:] = mark(lines)


def unresolved(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Find what the standard library documents; nothing is looked up in the network."""
    target = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py":
        return None
    module, _, name = target.rpartition(".")
    if module in MODULES and name:
        url = f"https://docs.python.org/3/library/{module}.html#{target}"
        return nodes.reference("", "", content, refuri=url, internal=False)
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    app.connect("missing-reference", unresolved)
    return {"parallel_read_safe": True}
