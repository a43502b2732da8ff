"""Check everything that a release needs, except whether it can be uploaded.

    python tools/release.py [--draft] [--only NAME,...] [--given DIRECTORY]

Each check prints one line; at the end stands whether all of them passed. `--draft` accepts what is
still open until the day of the release: a changelog without a date, changes that are not committed.
`--given` checks the files of a whole release, from machines of every kind, instead of building
those for this machine.

This module knows what makes a release, and in which order to check it. build.py knows how files are
built, check.py what they must be like, reproduce.py how they are compared, smoke.py what an
installed wheel must do. The whole output of programs is in .cache/release.log.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import build
import check
from install import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT: Final = Path(__file__).resolve().parents[1]
LOG: Final = ROOT / ".cache" / "release.log"
URLS: Final = {"Documentation", "Source", "Changelog", "Issues"}
TAIL: Final = 15  # lines of a program that failed


class Failed(Exception):
    """A check failed; the message says why."""


class Skipped(Exception):
    """A check does not apply; the message says why."""


@dataclass
class Release:
    """What is checked.

    Attributes:
        root: the checkout.
        draft: whether the release may still be incomplete.
        given: the directory of a whole release; None to build what this machine can build.
    """

    root: Path = ROOT
    draft: bool = False
    given: Path | None = None
    log: Path = field(default=LOG, repr=False)

    @cached_property
    def version(self) -> str:
        text = (self.root / "src" / "fastws" / "__init__.py").read_text("utf-8")
        found = re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE)
        if len(found) != 1:
            raise Failed(f"src/fastws/__init__.py sets __version__ {len(found)} times")
        return str(found[0])

    @cached_property
    def project(self) -> dict[str, Any]:
        text = (self.root / "pyproject.toml").read_text("utf-8")
        project: dict[str, Any] = tomllib.loads(text)["project"]
        return project

    @property
    def directory(self) -> Path:
        """Where the files are: absolute, as programs run in the checkout."""
        return self.given.absolute() if self.given else self.root / "dist"

    @property
    def files(self) -> list[Path]:
        found = [*sorted(self.directory.glob("*.tar.gz")), *sorted(self.directory.glob("*.whl"))]
        if not found:
            raise Failed(f"no files in {self.directory}")
        return found

    @property
    def wheels(self) -> list[Path]:
        return [path for path in self.files if path.suffix == ".whl"]

    def run(
        self, *command: object, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> str:
        """Run a program, write its output to the log, and return it.

        Args:
            cwd: where; the checkout by default.
            env: its whole environment; this one by default.

        Raises:
            Failed: with the end of the output.
        """
        argv = [str(part) for part in command]
        result = subprocess.run(
            argv,
            cwd=cwd or self.root,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
            check=False,
        )
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(argv)}\n{result.stdout}\n")
        if result.returncode:
            lines = result.stdout.rstrip().splitlines()[-TAIL:]
            raise Failed("\n".join([f"{argv[0]} ended with {result.returncode}:", *lines]))
        return result.stdout

    def script(self, name: str, *arguments: object) -> str:
        """Run a script of this directory."""
        return self.run(sys.executable, ROOT / "tools" / name, *arguments)


# The checks -------------------------------------------------------------------------------------


def tree(release: Release) -> str:
    """Everything is committed."""
    if not (release.root / ".git").exists():
        raise Skipped("not a git checkout")
    changes = release.run("git", "status", "--porcelain").splitlines()
    commit = release.run("git", "rev-parse", "--short=12", "HEAD").strip()
    if not changes:
        return f"commit {commit}, and nothing else"
    text = f"{len(changes)} changes are not committed, {changes[0][3:]} for example"
    if release.draft:
        return f"commit {commit}; {text}"
    raise Failed(text)


def version_and_tag(release: Release) -> str:
    """The version is well-formed, written in one place, and that of the tag."""
    from packaging.version import InvalidVersion, Version

    number = release.version
    try:
        if str(Version(number)) != number:
            raise Failed(f"the version should be written {Version(number)}, not {number}")
    except InvalidVersion as exc:
        raise Failed(f"{number!r} is not a version (PEP 440)") from exc
    if "version" in release.project or "version" not in release.project.get("dynamic", []):
        raise Failed("pyproject.toml must get the version from src/fastws/__init__.py")
    tags = tags_here(release)
    if tags and tags != [f"v{number}"]:
        raise Failed(f"the version is {number}, and the tag is {', '.join(tags)}")
    return f"{number}, tag v{number}{'' if tags else ' (not set yet)'}"


def tags_here(release: Release) -> list[str]:
    """Return the tag that this is built for, or the tags of the commit."""
    if os.environ.get("GITHUB_REF_TYPE") == "tag":
        return [os.environ["GITHUB_REF_NAME"]]
    if not (release.root / ".git").exists():
        return []
    number = f"v{release.version}"
    tags = release.run("git", "tag", "--points-at", "HEAD", "--list", "v*").split()
    if number not in tags and release.run("git", "tag", "--list", number).strip():
        raise Failed(f"the tag {number} is on another commit: {release.version} is released")
    return tags


def changelog(release: Release) -> str:
    """The changelog says what is new in this version, and when it was released."""
    text = (release.root / "CHANGELOG.md").read_text("utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    if not sections:
        raise Failed("CHANGELOG.md has no sections")
    title, _, body = sections[0].partition("\n")
    entries = len(re.findall(r"^- \S", body, re.MULTILINE))
    if not entries:
        raise Failed(f"CHANGELOG.md says nothing under {title}")
    if title == "[Unreleased]":
        wanted = f"## [{release.version}] - {datetime.now(UTC).date()}"
        if not release.draft:
            raise Failed(f"CHANGELOG.md begins with [Unreleased]; rename it: {wanted}")
        return f"{entries} entries, still under [Unreleased]"
    match = re.fullmatch(r"\[(\S+)\] - (\d{4}-\d\d-\d\d)", title)
    if match is None or match[1] != release.version:
        raise Failed(f"CHANGELOG.md begins with {title}, not with [{release.version}] - DATE")
    try:
        day = date.fromisoformat(match[2])
    except ValueError as exc:
        raise Failed(f"CHANGELOG.md: {match[2]} is not a date") from exc
    # (It may be tomorrow where the maintainer lives.)
    if (day - datetime.now(UTC).date()).days > 1:
        raise Failed(f"CHANGELOG.md: {day} is in the future")
    return f"{title}, {entries} entries"


def metadata(release: Release) -> str:
    """The index accepts what pyproject.toml says, and readers find what they look for."""
    from trove_classifiers import classifiers as known

    project = release.project
    listed = project["classifiers"]
    if project["name"] != check.NAME:
        raise Failed(f"the name is {project['name']}, not {check.NAME}")
    if len(set(listed)) < len(listed):
        raise Failed("a classifier is listed twice")
    if unknown := sorted(set(listed) - known):
        raise Failed(f"the index does not know the classifiers {', '.join(unknown)}")
    built = {f"3.{name[3:]}" for name in check.PYTHONS if not name.endswith("t")}
    said = set(re.findall(r"Python :: (3\.\d+)", "\n".join(listed)))
    if said != built:
        raise Failed(f"classifiers are for {sorted(said)}, wheels for {sorted(built)}")
    urls = project.get("urls", {})
    if missing := URLS - urls.keys():
        raise Failed(f"[project.urls] has no {', '.join(sorted(missing))}")
    if bad := [url for url in urls.values() if not url.startswith("https://")]:
        raise Failed(f"not an https:// address: {', '.join(bad)}")
    return f"{len(listed)} classifiers, {len(urls)} addresses"


def readme(release: Release) -> str:
    """The README is rendered without warnings, and its links lead somewhere from elsewhere."""
    from readme_renderer import markdown

    text = (release.root / "README.md").read_text("utf-8")
    warnings = io.StringIO()
    html = markdown.render(text, stream=warnings)
    if html is None or warnings.getvalue():
        raise Failed(f"README.md is not rendered: {warnings.getvalue() or 'no cmarkgfm'}")
    links = re.findall(r'(?:href|src|srcset)="([^"]*)"', html)
    # Anchors within the page work on the index as well.
    bad = [link for link in links if not re.match(r"https://|#|mailto:|http://localhost", link)]
    if bad:
        raise Failed(f"README.md has {len(bad)} links that are not absolute: {', '.join(bad[:3])}")
    return f"{len(text.encode()) / 1024:.1f} KiB, {len(links)} links, all absolute"


def tools(release: Release) -> str:
    """The tools are those of tools/release.txt, with which the workflow works, too."""
    text = (release.root / "tools" / "release.txt").read_text("utf-8")
    pins = dict(line.split("==") for line in text.splitlines() if line and line[0] != "#")
    wrong = []
    there = 0
    for name, pinned in pins.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        there += 1
        if installed != pinned:
            wrong.append(f"{name} is {installed}, not {pinned}")
    if wrong and not release.draft:
        raise Failed("; ".join(wrong))
    return "; ".join(wrong) or f"{there} tools, in the versions of tools/release.txt"


def files(release: Release) -> str:
    """Build the sdist, the pure wheel, and a wheel for each Python of this machine."""
    if release.given is None:
        release.script("build.py", "--out", release.directory)
    count = len(release.wheels)
    size = sum(path.stat().st_size for path in release.files)
    return f"an sdist and {count} wheels, {size / (1 << 20):.1f} MiB, in {shown(release.directory)}"


def contents(release: Release) -> str:
    """Each file has the name, tags, size, contents and metadata that it must have."""
    whole = ["--release"] if release.given else []
    release.script("check.py", *whole, *release.files)
    if {check.version_of(path) for path in release.files} != {release.version}:
        raise Failed(f"the files are not of version {release.version}")
    largest = max(path.stat().st_size for path in release.wheels)
    said = "all files of a release" if whole else "those of this machine"
    return f"{said}; the largest wheel has {largest >> 10} of {check.MAX_SIZE >> 10} KiB"


def bills(release: Release) -> str:
    """The bill of materials of each wheel names what others wrote, in the pinned version."""
    text = (release.root / "tools" / "constraints.txt").read_text("utf-8")
    pins = dict(line.split("==") for line in text.splitlines() if line and line[0] != "#")
    for path in release.wheels:
        info = f"{check.NAME.replace('-', '_')}-{release.version}.dist-info"
        with zipfile.ZipFile(path) as archive:
            bill = json.loads(archive.read(f"{info}/sboms/{check.NAME}.cdx.json"))
        found = [(part["name"], part["version"]) for part in bill["components"]]
        wanted = [] if "-none-any" in path.name else [("Cython", pins["cython"])]
        if found != wanted:
            raise Failed(f"{path.name}: the bill of materials has {found}, not {wanted}")
        component = bill["metadata"]["component"]
        if component["purl"] != f"pkg:pypi/{check.NAME}@{release.version}":
            raise Failed(f"{path.name}: the bill of materials is of {component['purl']}")
    return f"{len(release.wheels)} bills of materials; Cython {pins['cython']} is all they name"


def hashes(release: Release) -> str:
    """SHA256SUMS is that of the files."""
    path = release.directory / "SHA256SUMS"
    if not path.exists():
        raise Skipped(f"no SHA256SUMS in {shown(release.directory)}")
    said = dict(reversed(line.split("  ", 1)) for line in path.read_text().splitlines())
    for file in release.files:
        if said.pop(file.name, None) != hashlib.sha256(file.read_bytes()).hexdigest():
            raise Failed(f"SHA256SUMS does not have the hash of {file.name}")
    if said:
        raise Failed(f"SHA256SUMS has files that are not there: {', '.join(said)}")
    return f"SHA256SUMS has those of {len(release.files)} files"


def installed(release: Release) -> str:
    """Each wheel that fits a Python here is installed in a new environment, and works."""
    with redirect_stdout(io.StringIO()):  # which says which Pythons are missing
        pythons = {build.tag_of(python): python for python in build.find_pythons()}
    pairs = []
    for wheel in release.wheels:
        python_tag, _, platform = wheel.stem.split("-")[2:5]
        if platform == "any":
            pairs += [(wheel, python) for python in pythons.values()]
        elif python_tag in pythons and fits(platform):
            pairs.append((wheel, pythons[python_tag]))
    if not pairs:
        raise Failed("no wheel fits a Python of this machine")
    for wheel, python in pairs:
        install(release, wheel, python)
    return f"{len(pairs)} new environments, an echo in each ({', '.join(pythons)})"


def fits(platform: str) -> bool:
    """Return whether a wheel for this platform can be installed here."""
    import packaging.tags

    return any(tag in platform.split(".") for tag in packaging.tags.platform_tags())


def install(release: Release, wheel: Path, python: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fastws-") as name:
        place = Path(name)
        release.run("uv", "venv", "-q", "--python", python, place / "venv")
        there = place / "venv" / "bin" / "python"
        release.run("uv", "pip", "install", "-q", "--python", there, wheel.resolve())
        shutil.copy(ROOT / "tools" / "smoke.py", place)
        twin = "py" if "-none-any" in wheel.name else "c"
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FASTWS_", "PYTHON"))
        }
        command = [there, "-P", "-X", "dev", "-W", "error", "smoke.py"]
        command += ["--version", release.version]
        release.run(*command, cwd=place, env=env | {"FASTWS_IMPL": twin})


def reproducible(release: Release) -> str:
    """Building all files again, elsewhere and later, gives the same bytes."""
    if release.given is not None:
        raise Skipped("the wheels of other machines cannot be built again here")
    release.script("reproduce.py", release.directory)
    return f"{len(release.files)} files were built again, with the same bytes"


def docs(release: Release) -> str:
    """The documentation is built, with warnings as errors."""
    release.run("make", "--no-print-directory", "docs")
    return "`make docs` found nothing wrong"


CHECKS: Final[dict[str, Callable[[Release], str]]] = {
    "tree": tree,
    "version": version_and_tag,
    "changelog": changelog,
    "metadata": metadata,
    "readme": readme,
    "tools": tools,
    "docs": docs,
    "files": files,
    "contents": contents,
    "bills": bills,
    "hashes": hashes,
    "installed": installed,
    "reproducible": reproducible,
}


# Running them -----------------------------------------------------------------------------------


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def perform(release: Release, names: Sequence[str]) -> int:
    """Run these checks and print a line for each; return how many failed."""
    began = time.monotonic()
    failed = []
    skipped = 0
    for name in names:
        print(f"{name:<14}", end="", flush=True)
        started = time.monotonic()
        try:
            verdict, text = "ok", CHECKS[name](release)
        except Skipped as exc:
            skipped += 1
            verdict, text = "skipped", str(exc)
        except Failed as exc:
            failed.append(name)
            verdict, text = "FAILED", str(exc).replace("\n", f"\n{'':<23}")
        except Exception as exc:
            failed.append(name)
            verdict, text = "FAILED", f"{type(exc).__name__}: {exc}"
        took = time.monotonic() - started
        print(f"{verdict:<9}{text}{f' ({seconds(took)})' if took > 1 else ''}", flush=True)
    total = seconds(time.monotonic() - began)
    if failed:
        print(f"\nNOT READY: {', '.join(failed)} failed, {total}. Details: {shown(release.log)}")
    else:
        rest = f", {skipped} skipped" if skipped else ""
        what = "a draft of " if release.draft else ""
        print(f"\nAll checks passed{rest}: {what}{release.version} is ready, {total}.")
    return len(failed)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--draft", action="store_true", help="accept a changelog without a date, and other versions"
    )
    parser.add_argument("--only", metavar="NAME,…", help=f"some of: {', '.join(CHECKS)}")
    parser.add_argument("--given", type=Path, metavar="DIRECTORY", help="check a whole release")
    args = parser.parse_args(argv)
    names = args.only.split(",") if args.only else list(CHECKS)
    if unknown := set(names) - CHECKS.keys():
        parser.error(f"unknown: {', '.join(unknown)} (choose from {', '.join(CHECKS)})")
    release = Release(draft=args.draft, given=args.given)
    release.log.unlink(missing_ok=True)
    return int(bool(perform(release, names)))


if __name__ == "__main__":
    sys.exit(main())
