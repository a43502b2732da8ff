"""Copy the docstrings of the reference into the accelerated twin.

    python tools/docstrings.py            write them
    python tools/docstrings.py --check    fail if that would change anything

`help` shows what the module that runs has, so they are written in both: in `src/fastws/_py` by
hand, and from there into `src/fastws/_c` by this. It does not depend on Cython, and a build does
not depend on it.

This tool knows how definitions and docstrings look in Cython. It does not know what they say.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "fastws"
MODULES = ("masking", "utf8", "frames", "messages")

# The parameters may have parentheses of their own, one level deep.
DEFINITION = re.compile(
    r"""
    ^(?P<definition> (?P<indent>[ ]*)
        (?: cdef[ ]class[ ](?P<class>\w+) | def[ ](?P<function>\w+) )
        (?: \( (?: [^()] | \([^()]*\) )* \) )?:\n )
    (?P<docstring> [ ]+\"{3} (?P<text>.*?) \"{3}\n )?
    """,
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
# At the beginning of a class's docstring, for `inspect.signature`.
SIGNATURE = re.compile(r".*?\\n--\\n\n", re.DOTALL)


def docstrings(source: str) -> dict[str, str]:
    """Return the docstrings of Python code, by the names of their functions and classes."""
    found: dict[str, str] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(child)
                if text is not None:
                    found[prefix + child.name] = text
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(source), "")
    return found


def copied(reference: str, source: str) -> str:
    """Return Cython code with the docstrings of Python code that defines the same names."""
    wanted = docstrings(reference)
    prefix = ""

    def replace(match: re.Match[str]) -> str:
        nonlocal prefix
        name = match["class"] or match["function"]
        if match["indent"] == "":
            prefix = f"{name}." if match["class"] else ""
        else:
            name = prefix + name
        if name not in wanted:
            return match[0]
        indent = match["indent"] + 4 * " "
        signature = SIGNATURE.match(match["text"] or "")
        text = written(wanted[name], indent, signature[0] if signature else "")
        return match["definition"] + text

    return DEFINITION.sub(replace, source)


def written(text: str, indent: str, signature: str) -> str:
    assert "\\" not in text, text
    lines = "\n".join(indent + line if line else "" for line in text.split("\n"))
    begin = signature + lines if signature else lines.lstrip()
    end = f"\n{indent}" if "\n" in text else ""
    return f'{indent}"""{begin}{end}"""\n'


def main(*arguments: str) -> int:
    changed = []
    for name in MODULES:
        reference = (PACKAGE / "_py" / f"{name}.py").read_text("utf-8")
        path = PACKAGE / "_c" / f"{name}.pyx"
        source = path.read_text("utf-8")
        result = copied(reference, source)
        if result != source:
            changed.append(path.name)
            if "--check" not in arguments:
                path.write_text(result, "utf-8")
    if changed and "--check" in arguments:
        print(f"run {sys.argv[0]}: docstrings differ in {', '.join(changed)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
