"""What pages take from the code, so that it cannot be out of date.

A page asks for it by a comment: `<!-- generated: commands -->`. A comment such as
`<!-- include: SECURITY.md -->` stands for a file at the root of the repository. This module knows
how to write both as Markdown. Tests use it without Sphinx.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
from collections import Counter
from inspect import cleandoc
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from fastws import cli, exceptions, integrations
from fastws.cli._checks import CHECKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
COMMENT = re.compile(r"^<!-- (generated|include): (\S+) -->$", re.MULTILINE)
# The pages that include these files.
INCLUDED = {name: name.lower() for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}


def fill(text: str) -> str:
    """Replace the comments in a page."""
    return COMMENT.sub(
        lambda match: GENERATED[match[2]]() if match[1] == "generated" else include(match[2]), text
    )


def include(name: str) -> str:
    """Return a file of the root, with links as they must be in docs/reference/."""
    text = (ROOT / name).read_text("utf-8")
    return re.sub(
        r"\]\((?![a-z]+:|#)([^)]+)\)", lambda match: f"]({_seen_from_here(match[1])})", text
    )


def _seen_from_here(link: str) -> str:
    if link in INCLUDED:
        return INCLUDED[link]
    return f"../{link.removeprefix('docs/')}" if link.startswith("docs/") else f"../../{link}"


# The command line ---------------------------------------------------------------------


def commands() -> str:
    """Describe every command and its arguments, from what argparse knows about them."""
    os.environ["COLUMNS"] = "88"
    [subparsers] = [
        action
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return "\n".join(
        "\n".join(_command(name, parser)) for name, parser in subparsers.choices.items()
    )


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## fastws {name}\n"
    yield f"{_escaped(parser.description or '')}\n"
    usage = parser.format_usage().removeprefix("usage: ").rstrip().replace("\n       ", "\n")
    yield f"```text\n{usage}\n```\n"
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction) and action.help != argparse.SUPPRESS:
            yield f"{_names(action)}\n: {_help(action)}\n"
    yield from _epilog(parser.epilog or "")


def _names(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else _metavar(action)
    if not action.option_strings:
        return f"`{value}`"
    names = ", ".join(action.option_strings)
    return f"`{f'{names} {value}'.strip()}`"


def _metavar(action: argparse.Action) -> str:
    if action.metavar:
        return action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    if action.choices:
        return f"{{{','.join(map(str, action.choices))}}}"
    return action.dest.upper() if action.option_strings else action.dest


def _help(action: argparse.Action) -> str:
    # As argparse does it.
    values: dict[str, Any] = {name: getattr(action, name) for name in vars(action)}
    text = (action.help or "") % values
    return _escaped(f"{text[:1].upper()}{text[1:]}.")


def _epilog(text: str) -> Iterator[str]:
    """Paragraphs are text, and indented lines are code."""
    for block in filter(None, re.split(r"\n\n|(?<=example:)\n", text)):
        if block.startswith("  "):
            code = "\n".join(line.removeprefix("  ") for line in block.split("\n"))
            yield f"```{'sh' if 'fastws ' in code else 'text'}\n{code}\n```\n"
        elif block == "example:":
            yield "Example:\n"
        else:
            yield f"{_escaped(block)}\n"


def _escaped(text: str) -> str:
    """Escape what Markdown would take for markup, and write options as code."""
    parts = re.split(r"(`[^`]*`)", text)  # what is in backticks is code already
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([\\*_<>\[\]])", r"\\\1", parts[i])
        parts[i] = re.sub(r"(?<![\w-])(--[a-z][a-z-]+)", r"`\1`", parts[i])
    return "".join(parts)


# The checks of `fastws probe` --------------------------------------------------------------


def checks() -> str:
    """A table of the sections of RFCs, and of what is sent to check each of them."""
    rows = ["| Section | Checks | What is sent |", "|---|---:|---|"]
    names: dict[str, list[str]] = {}
    for check in CHECKS:
        names.setdefault(check.section, []).append(check.name)
    count = Counter(check.section for check in CHECKS)
    for section in sorted(names, key=_order):
        sent = "; ".join(names[section]).replace("|", "\\|")
        rows.append(f"| RFC {section} | {count[section]} | {_escaped(sent)} |")
    rows.append(f"| together | {len(CHECKS)} | |")
    return "\n".join(rows)


def _order(section: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", section)]


# Integrations -------------------------------------------------------------------------


def hosts() -> str:
    """What each integration exports. Its source is read: to import it, its host would be needed."""
    from docstrings import mark
    from sphinx.ext.napoleon import Config, GoogleDocstring

    folder = Path(integrations.__file__).parent
    trees = {path.stem: ast.parse(path.read_text("utf-8")) for path in folder.glob("*.py")}
    definitions = {
        node.name: node
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    }
    parts = []
    for name in sorted(name for name in trees if not name.startswith("_")):
        local = {getattr(node, "name", ""): node for node in trees[name].body}
        parts.append(f"## {name}\n\n```{{eval-rst}}\n.. py:module:: fastws.integrations.{name}")
        for exported in sorted(_exported(trees[name]), key=str.lower):
            node = local.get(exported, definitions[exported])
            is_function = isinstance(node, ast.FunctionDef)
            arguments = f"({ast.unparse(node.args)})" if isinstance(node, ast.FunctionDef) else ""
            docstring = [*mark(cleandoc(ast.get_docstring(node) or "").split("\n"))]
            text = str(GoogleDocstring(docstring, Config(napoleon_use_rtype=False)))
            kind = "function" if is_function else "class"
            parts.append(
                f".. py:{kind}:: {exported}{arguments}\n   :no-index:\n\n{indent(text, '   ')}"
            )
        parts.append("```\n")
    return "\n\n".join(parts)


def _exported(tree: ast.Module) -> list[str]:
    """Return a module's `__all__`."""
    [names] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return names


# Exceptions ---------------------------------------------------------------------------


def tree() -> str:
    """How the exceptions derive from each other: the drawing in the module's docstring."""
    lines = [line for line in (exceptions.__doc__ or "").split("\n") if line.startswith("    ")]
    return "\n".join(["```text", *(line.removeprefix("    ") for line in lines), "```"])


GENERATED = {"checks": checks, "commands": commands, "hosts": hosts, "tree": tree}


def setup(app: Sphinx) -> dict[str, bool]:
    def on_source_read(app: Sphinx, name: str, content: list[str]) -> None:
        content[0] = fill(content[0])

    app.connect("source-read", on_source_read)
    return {"parallel_read_safe": True}
