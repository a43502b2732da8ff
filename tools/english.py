"""Find the worst patterns of odd English in comments, docstrings, messages and documents.

    python tools/english.py [--all] [FILE ...]

Without files, it checks what PATHS lists (`--all`: the whole project). Each finding comes with an
example of how to say it better; CONTRIBUTING.md has the rules behind them.

It knows phrases, not grammar: text that passes may still be odd. A phrase is also found if it
continues on the next line of a comment. Documents can exclude a part, such as a table of bad
examples, with the lines `<!-- english: off -->` and `<!-- english: on -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT: Final = Path(__file__).resolve().parents[1]
PATHS: Final = (
    *("*.md", "Makefile", "pyproject.toml", "setup.py", ".pre-commit-config.yaml"),
    *(".ci", ".github", "tools", "bench/*/*.md", "tests/*/*.md"),
)
ALL: Final = (*PATHS, "src", "tests", "docs", "bench", "fuzz", "examples")

SUFFIXES: Final = {
    *("", ".c", ".cpp", ".h", ".html", ".js", ".md", ".mjs", ".pxd", ".py", ".pyi", ".pyx"),
    *(".sh", ".toml", ".txt", ".yaml", ".yml"),
}
NOT_OURS: Final = re.compile(r"node_modules|__pycache__|\.egg-info|bench.results|package-lock")


class Rule(NamedTuple):
    """A phrase to avoid.

    Attributes:
        pattern: a regular expression; a space in it also matches the start of the next line.
        bad: an example of the phrase.
        good: the same in plain English.
    """

    pattern: str
    bad: str
    good: str


RULES: Final = (
    # Possession and existence
    Rule(r"\b(has|have|had) not (an?|\d+)\b", "has not 4 bytes", "is not 4 bytes long"),
    Rule(r"\bwhat (is|was) there (of|to)\b", "what is there of it", "the part that has arrived"),
    Rule(r"\bwhat there (is|are|was|were)\b", "show what there is", "show everything"),
    Rule(r"\b(be|is|are) had\b", "it cannot be had here", "it is not available here"),
    Rule(r"\bof which an?\b", "of which an instance is made", "fastws creates an instance"),
    Rule(r"\bmany an? ", "many a Python", "many Pythons"),
    # Clauses without a subject
    Rule(r"\bwhoever\b", "whoever closes", "the caller of close()"),
    Rule(r"\bfor who (?!in\b)", "for who waits", "for coroutines waiting in recv()"),
    Rule(
        r"(?-i:\bWho) (has|wants|waits|needs|uses|asks|reads)\b(?![^.]*\?)",
        "Who waits",
        "If you wait",
    ),
    Rule(r"\bwhat of (the|an?|it|its)\b", "what of the table changed", "the changed rows"),
    Rule(r"\bso it is with\b", "so it is with others", "the same is true of others"),
    # Obligation
    Rule(
        r"\b(is|are|was|were) not to (?!say\b|blame\b|[a-z]+body)",
        "it is not to wait",
        "it must not wait",
    ),
    Rule(r"\bas (it|they) (is|are|was|were) told\b", "as it is told", "as the caller asks"),
    # Words
    Rule(r"\bfor ever\b", "waits for ever", "waits forever, or: no timeout"),
    Rule(r"\bin earnest\b", "random in earnest", "unpredictable in real use"),
    Rule(r"\bfor want of\b", "for want of memory", "because memory ran out"),
    Rule(r"\bsuch that\b", "closed such that it reads", "closed so that it can read"),
    Rule(r"\bthus\b", "thus it ends", "so it ends"),
    Rule(r"\b(whence|hence|thereof|whereof|wherein|therein|hereby|whereby)\b", "hence", "so"),
    Rule(r"\bmended\b", "a bug is mended", "a bug is fixed"),
    Rule(r"\ball else\b", "forgets all else", "forgets everything else"),
    Rule(r"\bin (its|their) turn\b(?! to)", "libraries need in their turn", "libraries need"),
    Rule(
        r"\bas (many|much|large|small|well) as may be\b",
        "as large as may be",
        "as large as possible",
    ),
    Rule(r"\bh(eld|olds?|olding) \w+ against\b", "holds them against it", "compares them with it"),
)

# Where a phrase may be broken: what follows may be the next line of a comment.
GAP: Final = r"(?:[ \t]+|[ \t]*\n[ \t]*(?:(?:#|//|\*|>)[ \t]*)?)"
OFF: Final = re.compile(r"<!-- english: off -->.*?<!-- english: on -->", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--all", action="store_true", help="check the whole project")
    args = parser.parse_args()
    count = 0
    for path in args.files or walk(ALL if args.all else PATHS):
        if path.suffix in SUFFIXES and path.resolve() != Path(__file__).resolve():
            for line, text, rule in find(path.read_text("utf-8")):
                print(f"{shown(path)}:{line}: {text!r} (not {rule.bad!r} but {rule.good!r})")
                count += 1
    if count:
        print(f"{count} phrases to say more plainly", file=sys.stderr)
    return min(count, 1)


def walk(names: Iterable[str]) -> Iterator[Path]:
    """Find the text files that we wrote under these names."""
    for name in names:
        for start in sorted(ROOT.glob(name)):
            for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
                # Cython writes a .c for a .pyx.
                generated = path.suffix == ".c" and path.with_suffix(".pyx").exists()
                if path.is_file() and not generated and not NOT_OURS.search(str(path)):
                    yield path


def shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def find(text: str) -> Iterator[tuple[int, str, Rule]]:
    """Find phrases; return for each its line, itself and the rule."""
    # Keep the newlines, so that the lines can be counted.
    text = OFF.sub(lambda match: "\n" * match[0].count("\n"), text)
    found = [
        (match.start(), match[0], rule)
        for rule in RULES
        for match in re.finditer(rule.pattern.replace(" ", GAP), text, re.IGNORECASE)
    ]
    for start, phrase, rule in sorted(found, key=lambda item: item[0]):
        yield text.count("\n", 0, start) + 1, re.sub(GAP, " ", phrase), rule


if __name__ == "__main__":
    sys.exit(main())
