"""Every page of the documentation, and README.md: what can be said of all of them.

Each block of Python has a mark, and is run, or is a file; pages.py says how. Command lines that
pages show are those that `fastws` and the Makefiles take. Links lead somewhere.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from fastws import cli

from .pages import BLOCK, DOCS, ROOT, blocks, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = [
    "README.md",
    *sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")),
]
FENCE = re.compile(r"^( *)(`{3,})(\S*).*?\n(.*?)^\1\2$", re.DOTALL | re.MULTILINE)
SHELLS = ("sh", "shell", "bash", "console")


def path_of(page: str) -> Path:
    return ROOT / page if page == "README.md" else DOCS / page


# Code ---------------------------------------------------------------------------------


def of_all(kind: str) -> list[tuple[str, str, str]]:
    """Find the marked blocks of one kind: the page, the name and the text."""
    return [
        (page, name, code)
        for page in PAGES
        for found, name, _, code in blocks(page)
        if found == kind
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_python_has_a_mark(page: str) -> None:
    marked = [language for _, _, language, _ in BLOCK.findall(text(page))].count("python")
    assert (
        len(re.findall(r"^ *`{3,} *(?:python|py|\{code-block\} python)\b", text(page), re.M))
        == marked
    )


def test_names_are_unique_on_each_page() -> None:
    names = [(page, name) for page, name, _ in of_all("run")]
    assert len(names) == len({*names})


SCRIPTS = [
    pytest.param(code, id=f"{page}-{name}")
    for page, name, code in of_all("run")
    if name.startswith("script-")
]


@pytest.mark.parametrize("code", SCRIPTS)
def test_a_script_runs(code: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert (result.returncode, result.stderr) == (0, "")


FILES = [pytest.param(name, code, id=f"{page}-{name}") for page, name, code in of_all("file")]


@pytest.mark.parametrize(("name", "code"), FILES)
def test_a_file_is_that_file(name: str, code: str) -> None:
    assert code == (ROOT / name).read_text("utf-8")


def test_every_other_block_is_fetched_by_a_test() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    fetched = set(re.findall(r'"([\w./-]+\.md)",\s*"([\w.-]+)"', sources))
    named = {(page, name) for page, name, _ in of_all("run") if not name.startswith("script-")}
    assert named - fetched == set()


# Command lines ------------------------------------------------------------------------


def command_lines(page: str) -> Iterator[list[str]]:
    """Find the commands in the blocks that a shell would read, split into words."""
    for _, _, language, block in FENCE.findall(text(page)):
        if language not in SHELLS:
            continue
        joined = re.sub(r"\\\n\s*", " ", block)
        for line in joined.splitlines():
            if language == "console" and not line.startswith("$ "):
                continue  # what a command printed
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="();<>|&")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("();<>|&"):
                    yield words
                    words = []
                else:
                    words.append(word)


def fastws_arguments(words: list[str]) -> list[str] | None:
    """Return the arguments of `fastws` if that is what is run, also by sudo or exec."""
    while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] in ("sudo", "exec", "time")):
        words = words[1:]
    if words and words[0].rpartition("/")[2] == "fastws":
        return words[1:]
    if [word.rpartition("/")[2] for word in words[:3]] == ["python", "-m", "fastws"]:
        return words[3:]
    return None


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_of_fastws_are_understood(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in command_lines(page):
        arguments = fastws_arguments(words)
        if arguments is not None:
            try:
                cli._parser().parse_args(arguments)
            except SystemExit as exc:
                assert not exc.code, (shlex.join(words), capsys.readouterr().err)  # noqa: PT017


def targets(name: str) -> set[str]:
    text = (ROOT / name).read_text("utf-8")
    return set(re.findall(r"^([a-z][a-z0-9-]*):", text, re.MULTILINE))


MAKE = {False: targets("Makefile"), True: targets("Makefile") | targets("tools/Makefile")}


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_are_there(page: str) -> None:
    lines = [shlex.join(words) for words in command_lines(page)]
    lines += re.findall(r"`(make .*?)`", text(page))
    for line in lines:
        if match := re.match(r"make (-C tools )?((?:[a-z][a-z0-9-]*\s*)+)", line):
            assert {*match[2].split()} <= MAKE[bool(match[1])], line


# Links --------------------------------------------------------------------------------

LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)|(?:src|srcset|href)=\"([^\"]+)\"")
with (ROOT / "pyproject.toml").open("rb") as _file:
    URLS = tomllib.load(_file)["project"]["urls"]
# Addresses of files and of pages.
REPOSITORY = re.compile(re.escape(URLS["Source"]) + r"/(?:blob|tree|raw)/main/([^#\s]+)(#.*)?")
SITE = re.compile(re.escape(URLS["Documentation"]) + r"(?:([\w/-]+)\.html)?(#.*)?")


def without_code(page: str) -> str:
    return re.sub(r"`[^`\n]+`", "``", FENCE.sub("", text(page)))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    content = FENCE.sub("", path.read_text("utf-8"))
    found = {f"#{name}" for name in re.findall(r"^\(([\w-]+)\)=$", content, re.MULTILINE)}
    for heading in re.findall(r"^#+ (.*)$", content, re.MULTILINE):
        words = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).lower()
        found.add("#" + re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = path_of(page)
    for pair in LINK.findall(without_code(page)):
        link = "".join(pair)
        path, hash_, anchor = link.partition("#")
        if match := SITE.fullmatch(link):
            target, anchor = DOCS / f"{match[1] or 'index'}.md", match[2]
        elif match := REPOSITORY.fullmatch(link):
            target, anchor = ROOT / match[1], match[2]
        elif re.match(r"[a-z]+:", link):
            continue
        else:
            # On PyPI, a relative link leads nowhere.
            assert page != "README.md", link
            target, anchor = (here.parent / path if path else here), f"{hash_}{anchor}"
        assert target.exists(), link
        if anchor and target.suffix == ".md" and "generated:" not in target.read_text("utf-8"):
            assert anchor in anchors(target), link
