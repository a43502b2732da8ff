"""Docstrings as they are written here, turned into what Sphinx's extension `napoleon` reads.

In a docstring, an indented paragraph is code, and lines such as `OPEN: messages can be sent` are
a list. reStructuredText wants both to be marked.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.domains.python import PyObject
from sphinx.ext.napoleon import GoogleDocstring

from fastws import spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

# The docstrings of attributes, until `restore` has seen them.
marked: dict[str, list[str]] = {}
SCHEME = re.compile(r"(?<![\w`])((?:http|ws)s?://)(?=[\s,;.)]|$)")
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
DEFAULT = re.compile(r"(?:spec\.)?\b(DEFAULT_\w+)")
ITEM = re.compile(r"([A-Z][A-Z_]+): ")
# What annotations say, and what it is called in the documentation.
ALIASES = {
    "Buffer": "collections.abc.Buffer",
    "asyncio.transports.BaseTransport": "asyncio.BaseTransport",
}
# fastws makes objects of these classes, and nobody else.
OURS = (
    "fastws.PreparedMessage",
    "fastws.Published",
    "fastws.Server",
    "fastws.WebSocket",
    "fastws.integrations.Installation",
)
# Modules of the standard library whose names are linked.
MODULES = (
    "asyncio",
    "collections.abc",
    "contextlib",
    "datetime",
    "enum",
    "re",
    "signal",
    "socket",
    "ssl",
)


def mark(lines: list[str]) -> Iterator[str]:
    """Mark code and lists in the lines of a docstring."""
    in_section = in_code = in_list = False
    previous = ""
    for line in lines:
        line = SCHEME.sub(r"``\1``", line)  # it is no link
        indented = line.startswith("    ")
        if previous == "Returns:":
            # napoleon would take what comes before a colon for a type.
            line = f":returns: {line.lstrip()}"
            indented = True
        elif line == "Returns:":
            previous, in_section = line, True
            continue
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
    if what in ("attribute", "data", "property"):
        marked[name] = [*lines]


def restore(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Undo what napoleon does to attributes: to take what comes before a colon for a type."""
    if name in marked:
        lines[:] = GoogleDocstring(marked.pop(name), app.config).lines()


def sign(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returned: str | None,
) -> tuple[str, str | None] | None:
    """Hide the arguments of classes that only fastws makes objects of, and name what exists."""
    if what == "class" and name in OURS:
        return "", None
    if not signature:
        return None
    # The numbers are of more use than their names.
    names = vars(sys.modules[getattr(obj, "__module__", "fastws")]) | vars(spec)
    signature = DEFAULT.sub(lambda match: repr(names[match[1]]), signature)
    return signature.replace("ssl_module.", "ssl."), returned


def unresolved(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Find what the standard library documents; nothing is looked up in the network."""
    target = str(node.get("reftarget", ""))
    target = ALIASES.get(target, target)
    module = target.rpartition(".")[0]
    if node.get("refdomain") != "py" or module not in MODULES:
        return None
    url = f"https://docs.python.org/3/library/{module}.html#{target}"
    return nodes.reference("", "", content, refuri=url, internal=False)


def setup(app: Sphinx) -> dict[str, bool]:
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", restore, priority=600)  # after it
    app.connect("autodoc-process-signature", sign)
    app.connect("missing-reference", unresolved)
    return {"parallel_read_safe": True}
