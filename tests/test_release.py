"""tools/release.py: what makes a release is checked, and what is missing is named."""

from __future__ import annotations

import re
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .tools import from_checkout, run

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
release, sbom = from_checkout("tools", "release", "sbom")

INIT, TOML, LOG = "src/fastws/__init__.py", "pyproject.toml", "CHANGELOG.md"
TODAY = datetime.now(UTC).date()
PYPROJECT = """\
[project]
name = "fastws-codec"
dynamic = ["version"]
classifiers = [
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Programming Language :: Python :: 3.14",
    "Programming Language :: Python :: 3.15",
    "Typing :: Typed",
]

[project.urls]
Documentation = "https://example.org/docs/"
Source = "https://example.org/"
Changelog = "https://example.org/changelog"
Issues = "https://example.org/issues"
"""
FILES = {
    "src/fastws/__init__.py": '__version__ = "1.2.0"\n',
    "pyproject.toml": PYPROJECT,
    "CHANGELOG.md": f"# Changelog\n\n## [1.2.0] - {TODAY}\n\n### Added\n\n- More.\n",
    "README.md": "# fastws\n\n[Source](https://example.org/) and [below](#fastws).\n",
    "tools/constraints.txt": "# why\ncython==3.3.1\nsetuptools==84.2.1\n",
    "tools/release.txt": "# why\nnot-installed==1\n",
    "Makefile": "docs:\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A checkout that is ready."""
    for name in ("GITHUB_REF_TYPE", "GITHUB_REF_NAME"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "fastws"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return release.Release(root=root, log=tmp_path / "log")


CHEAP = ["tree", "version", "changelog", "metadata", "readme", "tools", "docs"]


def test_what_is_ready_passes(tree: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.perform(tree, CHEAP) == 0
    lines = capsys.readouterr().out.splitlines()
    # One line for each, and a summary.
    assert [line.split()[0] for line in lines[:-2]] == CHEAP
    assert {line.split()[1] for line in lines[:-2]} == {"ok", "skipped"}
    assert re.fullmatch(r"All checks passed, 1 skipped: 1\.2\.0 is ready, .* s\.", lines[-1])


@pytest.mark.parametrize(
    ("check", "file", "old", "new", "message"),
    [
        ("version", INIT, "1.2.0", "1.2.0-rc1", "should be written 1.2.0rc1"),
        ("version", INIT, "1.2.0", "next", "'next' is not a version"),
        ("version", INIT, "__version__", "version", "sets __version__ 0 times"),
        ("version", TOML, "dynamic", "version = '1.2.0'\nmore", "must get the version from"),
        ("changelog", LOG, f"[1.2.0] - {TODAY}", "[Unreleased]", "begins with [Unreleased]"),
        ("changelog", LOG, "[1.2.0]", "[1.1.0]", "not with [1.2.0] - DATE"),
        ("changelog", LOG, f"{TODAY}", "2026-13-01", "2026-13-01 is not a date"),
        ("changelog", LOG, f"{TODAY}", f"{TODAY + timedelta(9)}", "is in the future"),
        ("changelog", LOG, "- More.", "", "says nothing under [1.2.0]"),
        ("metadata", TOML, "Typing :: Typed", "Typing :: Maybe", "Typing :: Maybe"),
        ("metadata", TOML, "Python :: 3.15", "Python :: 3.14", "is listed twice"),
        ("metadata", TOML, "Python :: 3.15", "Python :: 3.10", "classifiers are for"),
        ("metadata", TOML, "Issues", "Bugs", "[project.urls] has no Issues"),
        ("metadata", TOML, "https://example.org/issues", "issues", "https:// address: issues"),
        ("metadata", TOML, "fastws-codec", "fastws", "the name is fastws, not fastws-codec"),
        ("readme", "README.md", "https://example.org/", "a/b.md", "not absolute: a/b.md"),
        ("tools", "tools/release.txt", "not-installed==1", "pytest==1.0", "not 1.0"),
    ],
)
def test_what_is_not_ready_is_named(
    tree: Any,
    check: str,
    file: str,
    old: str,
    new: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tree.root / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    assert release.perform(tree, [check]) == 1
    line, _, verdict, *_ = capsys.readouterr().out.splitlines()
    assert re.match(rf"{check} +FAILED +", line)
    assert message in line
    assert verdict.startswith(f"NOT READY: {check} failed")


def test_a_draft_may_be_unreleased(tree: Any) -> None:
    path = tree.root / "CHANGELOG.md"
    path.write_text(path.read_text("utf-8").replace(f"[1.2.0] - {TODAY}", "[Unreleased]"), "utf-8")
    tree.draft = True
    assert release.changelog(tree) == "1 entries, still under [Unreleased]"


def test_the_tag_is_the_version(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert release.version_and_tag(tree) == "1.2.0, tag v1.2.0 (not set yet)"
    monkeypatch.setenv("GITHUB_REF_TYPE", "tag")
    monkeypatch.setenv("GITHUB_REF_NAME", "v1.2.0")
    assert release.version_and_tag(tree) == "1.2.0, tag v1.2.0"
    monkeypatch.setenv("GITHUB_REF_NAME", "v1.2.1")
    with pytest.raises(release.Failed, match=r"the version is 1\.2\.0, and the tag is v1\.2\.1"):
        release.version_and_tag(tree)


def test_what_is_not_committed_is_not_released(tree: Any) -> None:
    def git(*args: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        assert run("git", *who, *args, cwd=tree.root).returncode == 0

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    assert release.tree(tree).endswith(", and nothing else")
    git("tag", "v1.2.0")
    assert release.version_and_tag(tree) == "1.2.0, tag v1.2.0"
    (tree.root / "README.md").write_text("other")
    with pytest.raises(release.Failed, match=r"1 changes are not committed, README\.md"):
        release.tree(tree)
    git("commit", "-q", "-a", "-m", "y")
    with pytest.raises(release.Failed, match=r"the tag v1\.2\.0 is on another commit"):
        release.version_and_tag(tree)


def wheel(tree: Any, platform: str, cython: str | None) -> Path:
    """Write a wheel that contains no more than a bill of materials."""
    import json

    path = tree.directory / f"fastws_codec-1.2.0-{platform}.whl"
    path.parent.mkdir(exist_ok=True)
    bill = sbom.bill_of_materials("fastws-codec", "1.2.0", cython=cython)
    with zipfile.ZipFile(path, "w") as archive:
        name = "fastws_codec-1.2.0.dist-info/sboms/fastws-codec.cdx.json"
        archive.writestr(name, json.dumps(bill))
    return path


@pytest.mark.parametrize(
    ("platform", "cython", "message"),
    [
        ("py3-none-any", None, None),
        ("cp311-cp311-win_amd64", "3.3.1", None),
        ("cp311-cp311-win_amd64", None, r"has \[\], not \[\('Cython', '3\.3\.1'\)\]"),
        ("cp311-cp311-win_amd64", "3.3.2", r"has \[\('Cython', '3\.3\.2'\)\]"),
        ("py3-none-any", "3.3.1", r"not \[\]"),
    ],
)
def test_bills_of_materials_name_what_others_wrote(
    tree: Any, platform: str, cython: str | None, message: str | None
) -> None:
    wheel(tree, platform, cython)
    if message is None:
        assert release.bills(tree).startswith("1 bills")
    else:
        with pytest.raises(release.Failed, match=message):
            release.bills(tree)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line, None),
        (lambda line: f"0{line[1:]}" if line[0] != "0" else f"1{line[1:]}", "not have the hash of"),
        (lambda line: f"{line}{line[:64]}  more.whl\n", r"not there: more\.whl"),
        (lambda _: "", "not have the hash of"),
    ],
)
def test_hashes_are_those_of_the_files(
    tree: Any, change: Callable[[str], str], message: str | None
) -> None:
    path = wheel(tree, "py3-none-any", None)
    with pytest.raises(release.Skipped):
        release.hashes(tree)
    line = f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    (tree.directory / "SHA256SUMS").write_text(change(line))
    if message is None:
        assert release.hashes(tree) == "SHA256SUMS has those of 1 files"
    else:
        with pytest.raises(release.Failed, match=message):
            release.hashes(tree)


def test_the_documentation_must_be_built(tree: Any) -> None:
    (tree.root / "Makefile").write_text("docs:\n\t@echo warning: x; false\n")
    with pytest.raises(release.Failed, match=r"make ended with 2:\nwarning: x"):
        release.docs(tree)
    assert "warning: x" in tree.log.read_text()


def test_the_metadata_is_ready() -> None:
    assert "4 addresses" in release.metadata(release.Release())


def test_an_unknown_check_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        release.main(["--only", "metadata,everything"])
    assert "unknown: everything (choose from tree, " in capsys.readouterr().err


def test_the_files_that_are_given_may_be_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert release.Release(given=Path("dist")).directory == tmp_path / "dist"


def test_the_smoke_test_runs_with_either_twin() -> None:
    result = run(sys.executable, "-X", "dev", "-W", "error", str(ROOT / "tools" / "smoke.py"))
    assert result.returncode == 0, result.stderr
    assert "20 messages were echoed" in result.stdout
