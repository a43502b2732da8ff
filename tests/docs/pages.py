"""The pages of the documentation and the code that they show.

A comment above a block of code says what becomes of it:

    <!-- run: script-NAME -->   test_blocks.py runs it: it must succeed and write no errors
    <!-- run: NAME -->          a test in this directory runs it, and gets it from `code`
    <!-- file: PATH -->         it is that file, from the root of the project
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

# Examples need it. Where it cannot be installed, this does.
ORJSON = """
import json


def loads(data):
    assert type(data) in (bytes, str)
    return json.loads(data)


def dumps(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
"""

BLOCK = re.compile(r"^<!-- (run|file): (\S+) -->\n```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text(page: str) -> str:
    """Return the text of a page, which is named by its path in docs/ ("howto/tls.md")."""
    return (ROOT / page if page == "README.md" else DOCS / page).read_text("utf-8")


def blocks(page: str) -> list[tuple[str, str, str, str]]:
    """Return the kind ("run" or "file"), name, language and text of each marked block."""
    return BLOCK.findall(text(page))


def code(page: str, name: str) -> str:
    """Return the text of the block with this name."""
    (found,) = [text for kind, label, _, text in blocks(page) if (kind, label) == ("run", name)]
    return found
