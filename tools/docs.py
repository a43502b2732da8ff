"""Build the documentation in build/site/ and check it.

    python tools/docs.py [--open]

Warnings are errors, among them names and links that lead nowhere. Then the examples that look
like a session of the interpreter are run, and every link in the finished pages that leads to
another page, a picture or an anchor of this site is followed.

This script knows Sphinx's command line and HTML. docs/conf.py knows the rest.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import webbrowser
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
SITE: Final = ROOT / "build" / "site"
# What Sphinx keeps between two runs.
DOCTREES: Final = ROOT / "build" / "doctrees"
# Pages without a text of their own.
MADE: Final = frozenset({"genindex.html", "py-modindex.html", "search.html"})


class Page(HTMLParser):
    """The anchors of a page, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "top"}
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value and tag != "base":
                self.links.add(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--open", action="store_true", help="show the result in a browser")
    args = parser.parse_args()
    shutil.rmtree(SITE, ignore_errors=True)
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", DOCTREES]
    # -E: what it kept from the last run may be wrong, such as that a page is missing.
    print("Building the pages, which takes half a minute …", flush=True)
    for builder, place, *options in (("html", SITE, "-E"), ("doctest", ROOT / "build" / "doctest")):
        command = [*sphinx, *options, "-b", builder, ROOT / "docs", place]
        if status := subprocess.run(command, check=False).returncode:
            return status
    problems = list(broken_links(SITE))
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    pages = sum(1 for path in SITE.rglob("*.html") if path.name not in MADE)
    print(f"{pages} pages, {len(problems)} broken links: {(SITE / 'index.html').as_uri()}")
    if args.open:
        webbrowser.open((SITE / "index.html").as_uri())
    return min(len(problems), 1)


def broken_links(site: Path) -> Iterator[str]:
    """Describe each link inside the site that leads nowhere."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            where = f"{path.relative_to(site)}: {link}"
            if not target.is_file():
                yield f"{where}: no such file"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{where}: no such anchor"


if __name__ == "__main__":
    sys.exit(main())
