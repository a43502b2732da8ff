"""The promises about versions: in the changelog, the dependencies' bounds and the documents."""

from __future__ import annotations

import re
from datetime import date
from importlib import import_module
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.version import Version

import fastws
from fastws.cli import info
from fastws.integrations._hosts import HOSTS

from . import lowest

ROOT = Path(__file__).parents[1]
PACKAGE = Path(fastws.__file__).parent
CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
STABILITY = (ROOT / "docs" / "reference" / "stability.md").read_text("utf-8")

# The version --------------------------------------------------------------------------


def test_the_version_is_that_of_the_installation() -> None:
    assert fastws.__version__ == version("fastws-codec")


def test_the_version_is_written_in_one_place() -> None:
    assert str(Version(fastws.__version__)) == fastws.__version__
    pyproject = lowest.read()
    assert "version" not in pyproject["project"]
    assert "version" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fastws.__version__"}


# The name -----------------------------------------------------------------------------

# The project named `fastws` on PyPI is another one.
TO_INSTALL = re.compile(
    r"""
    pip\ install\b [^\n`]*? [\s'"] fastws (?![\w-])
    | (?<![\w-]) fastws\[\w
    | pypi/fastws (?![\w-])
    """,
    re.VERBOSE,
)

TEXT = ("", ".in", ".md", ".mjs", ".pxd", ".py", ".pyi", ".pyx", ".sh", ".toml", ".txt", ".yml")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("pip install fastws", True),
        ("pip install -U 'fastws[isal]'", True),
        ("`pip install h11 fastws==1`", True),
        ("with `fastws[aiofastnet]`", True),
        ("pkg:pypi/fastws@1", True),
        ("pip install fastws-codec", False),
        ("`pip install 'fastws-codec[isal]'`, and import `fastws`", False),
        ("pip install dist/fastws_codec-1.0-py3-none-any.whl", False),
    ],
)
def test_what_tells_to_install_another_project_is_found(text: str, wrong: bool) -> None:
    assert bool(TO_INSTALL.search(text)) is wrong


def test_nothing_tells_to_install_another_project() -> None:
    assert lowest.read()["project"]["name"] == info.DISTRIBUTION == "fastws-codec"
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in ("src", "bench", "fuzz", "tools", ".ci", ".github"):
        files += (path for path in (ROOT / folder).rglob("*") if path.is_file())
    told = 0
    for path in files:
        if path.suffix in TEXT and not path.parent.name.endswith(".egg-info"):
            text = path.read_text("utf-8", errors="replace")
            assert not TO_INSTALL.search(text), path
            told += len(re.findall(r"fastws-codec\b", text))
    assert told > 10


@pytest.mark.parametrize("name", ["README.md", "docs/reference/installation.md"])
def test_the_wheel_that_is_named_is_of_this_version(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert set(re.findall(r"fastws_codec-(.+?)-py3", text)) == {fastws.__version__}


# The changelog ------------------------------------------------------------------------

KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def faults(text: str, current: str) -> list[str]:
    """Return what is wrong with a changelog (keepachangelog.com) for this version."""
    found = []
    lines = text.splitlines()
    if lines[0] != "# Changelog":
        found.append("no title")
    headings = [line for line in lines if line.startswith("## ")]
    releases: list[tuple[Version, date]] = []
    for heading in headings:
        match = re.fullmatch(
            r"## \[(\d+\.\d+\.\d+\S*)\] - (\d{4}-\d\d-\d\d)( \[YANKED\])?", heading
        )
        if match:
            releases.append((Version(match[1]), date.fromisoformat(match[2])))
        elif heading != "## [Unreleased]":
            found.append(f"heading: {heading}")
    if "## [Unreleased]" in headings[1:]:
        found.append("what is unreleased is not first")
    for (newer, later), (older, earlier) in pairwise(releases):
        if newer <= older or later < earlier:
            found.append(f"order: {newer}, {older}")
    newest = releases[0][0] if releases else Version("0")
    unreleased = headings[:1] == ["## [Unreleased]"]
    if Version(current) < newest or (Version(current) > newest and not unreleased):
        found.append(f"version: {current}, after {newest}")
    for part in re.split(r"^## .*\n", text, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        if not set(kinds) <= set(KINDS) or len(set(kinds)) < len(kinds):
            found.append(f"kinds: {', '.join(kinds)}")
        found += [
            f"empty: {kind}"
            for kind, content in re.findall(r"^### (.*)\n((?:(?!##).*\n?)*)", part, re.MULTILINE)
            if not re.search(r"^- \S", content, re.MULTILINE)
        ]
    names = [re.sub(r"## \[(.*?)\].*", r"\1", heading) for heading in headings]
    links = re.findall(r"^\[(.*?)\]: (\S+)$", text, re.MULTILINE)
    if links and sorted(name for name, _ in links) != sorted(names):
        found.append("a link for each version, or for none")
    found += [f"link: {url}" for _, url in links if not url.startswith("https://")]
    return found


def test_the_changelog() -> None:
    assert faults(CHANGELOG, fastws.__version__) == []


GOOD = """\
# Changelog

## [Unreleased]

### Added

- More.

## [1.1.0] - 2026-02-03

### Fixed

- What was wrong,
  and more.

### Security

- A bound.

## [1.0.0] - 2026-01-02

[Unreleased]: https://example.org/compare/v1.1.0...main
[1.1.0]: https://example.org/compare/v1.0.0...v1.1.0
[1.0.0]: https://example.org/releases/v1.0.0
"""


@pytest.mark.parametrize("current", ["1.1.0", "1.2.0", "1.2.0.dev1"])
def test_a_changelog_that_is_right(current: str) -> None:
    assert faults(GOOD, current) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("# Changelog\n", "# Changes\n", "no title"),
        ("[1.1.0] - ", "1.1.0 - ", "heading: ## 1.1.0 - 2026-02-03"),
        ("2026-02-03", "soon", "heading: ## [1.1.0] - soon"),
        ("2026-02-03", "2025-02-03", "order: 1.1.0, 1.0.0"),
        ("## [1.0.0]", "## [1.1.1]", "order: 1.1.0, 1.1.1"),
        ("## [1.1.0]", "## [1.3.0]", "version: 1.2.0, after 1.3.0"),
        ("## [Unreleased]\n\n### Added\n\n- More.\n", "", "version: 1.2.0, after 1.1.0"),
        ("## [1.0.0] - 2026-01-02", "## [Unreleased]", "what is unreleased is not first"),
        ("### Fixed", "### Improved", "kinds: Improved, Security"),
        ("### Fixed", "### Security", "kinds: Security, Security"),
        ("- A bound.", "", "empty: Security"),
        ("[1.0.0]: https:", "1.0.0: https:", "a link for each version, or for none"),
        ("https://example.org/releases/v1.0.0", "http://x", "link: http://x"),
    ],
)  # fmt: skip
def test_a_changelog_that_is_wrong(old: str, new: str, fault: str) -> None:
    assert old in GOOD
    assert fault in faults(GOOD.replace(old, new), "1.2.0")


# The bounds of dependencies -------------------------------------------------------------

EXTRAS = lowest.read()["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_dependency_has_a_lower_bound_and_no_upper(extra: str) -> None:
    found = lowest.requirements(extra)
    assert len(found) > len(lowest.requirements())
    for requirement in found:
        assert lowest.lower_bound(requirement)
        assert {part.operator for part in requirement.specifier} == {">="}


def test_constraints_are_the_lower_bounds() -> None:
    found = lowest.constraints("test", "hosts")
    assert len(found) > 20
    assert "h11==0.16" in found  # of the project itself
    assert any(line.startswith("cython==") for line in found)  # to build it
    assert any(line.startswith("isal==") for line in found)  # of an extra of an extra


def test_hosts_are_installed_in_versions_that_are_tested() -> None:
    known = {host.name: host for host in HOSTS.values()}
    bounds = {
        requirement.name: lowest.lower_bound(requirement)
        for requirement in lowest.requirements("test", "hosts")
    }
    assert "websockets" in known
    assert known.keys() <= bounds.keys()
    for name in known:
        assert known[name].covers(str(bounds[name])), name


# What docs/reference/stability.md promises ----------------------------------------------------


def table() -> dict[str, str]:
    """Return the levels by name."""
    levels = {}
    for row in re.findall(r"^\| (.*) \|$", STABILITY, re.MULTILINE):
        names, level, _ = (cell.strip() for cell in f"{row} ".split(" | ", 2))
        if names != "What":
            assert level in ("public", "provisional", "private"), row
            for name in names.split(", "):
                assert name not in levels, name
                levels[name] = level
    return levels


def modules() -> set[str]:
    """Find all modules of the package without an underscore, in Python or Cython."""
    found = set()
    for path in PACKAGE.rglob("*"):
        if path.suffix in (".py", ".pyx", ".pxd", ".pyi"):
            parts = ["fastws", *path.relative_to(PACKAGE).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            if not any(part.startswith("_") for part in parts):
                found.add(".".join(parts))
    return found


def test_every_public_module_has_a_level_and_no_other() -> None:
    named = {name.strip("`") for name in table() if name.startswith("`fastws")}
    private = {name for name in named if "._" in name}
    assert "fastws._py" in private
    assert named - private == modules()
    for name in private:
        import_module(name)


def test_what_is_public_is_complete() -> None:
    levels = table()
    public = [
        name.strip("`")
        for name, level in levels.items()
        if level == "public" and name.startswith("`fastws") and "integrations" not in name
    ]
    assert "fastws" in public
    for name in public:
        assert import_module(name).__all__, name
    variables = {name.strip("`") for name in levels if name.startswith("`FASTWS_")}
    assert variables == {"FASTWS_IMPL", "FASTWS_KERNEL", "FASTWS_EXT"}
    assert {"the command line", "what goes over the wire", "error messages"} <= levels.keys()


def test_make_targets_that_documents_name_are_there() -> None:
    targets = {
        name: set(
            re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / name).read_text("utf-8"), re.MULTILINE)
        )
        for name in ("Makefile", "tools/Makefile")
    }
    named = set()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("*/*/*.md")):
        if not path.relative_to(ROOT).parts[0].startswith("."):
            named |= set(
                re.findall(r"(?:`|    )make (-C tools )?([a-z][a-z0-9-]*)", path.read_text("utf-8"))
            )
    assert len(named) > 20
    for tools, target in named:
        assert target in targets["tools/Makefile" if tools else "Makefile"], target
