"""Checks the files of a release: their names, sizes, tags and contents.

    python tools/check.py [--release] FILE ...

With `--release`, the files must be complete: the sdist, the pure wheel, and one wheel for each
target of cibuildwheel (pyproject.toml).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME: Final = "fastws-codec"  # of the distribution; `fastws` is what is imported
MODULES: Final = (
    "_c/kernel",
    "_c/masking",
    "_c/utf8",
    "_c/frames",
    "_c/messages",
    "_c/connection",
    "_c/sinks",
    "_c/wire",
    "capi",
)
# The sources of both twins.
SHARED: Final = {
    "_c/connection": "_py/connection.py",
    "_c/sinks": "aio/sinks.py",
    "_c/wire": "aio/wire.py",
}
MAX_SIZE: Final = 848 << 10  # bytes, of a wheel
PYTHONS: Final = ("cp311", "cp312", "cp313", "cp314", "cp314t", "cp315", "cp315t")
# Where the whole suite is run with each wheel.
TESTED: Final = (
    "manylinux_x86_64",
    "manylinux_aarch64",
    "musllinux_x86_64",
    "musllinux_aarch64",
    "macosx_x86_64",
    "macosx_arm64",
    "win_amd64",
    "win_arm64",
)
# CPUs for which many test dependencies have no wheels: the codec's tests and tools/smoke.py are
# run, most of them in an emulator.
OTHER_CPUS: Final = ("i686", "armv7l", "ppc64le", "s390x", "riscv64")
OTHERS: Final = tuple(f"{libc}linux_{cpu}" for libc in ("many", "musl") for cpu in OTHER_CPUS)
PLATFORMS: Final = (*TESTED, *OTHERS)
# The glibc that a wheel may need at most: 2.17, except where there is no build image with that.
GLIBC: Final = {"armv7l": 31, "riscv64": 39}
# Old names of manylinux tags, and the glibc that they stand for (PEP 600).
OLD_NAMES: Final = {"1": 5, "2010": 12, "2014": 17}


class BadFile(Exception):
    """A file cannot be published."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--release", action="store_true", help="require all files of a release")
    args = parser.parse_args()
    try:
        check(args.files)
        if args.release:
            check_complete(args.files)
    except BadFile as exc:
        return f"{exc}"
    describe(args.files)
    return 0


def check(files: Iterable[Path]) -> None:
    """Check each file, and that all have the same version.

    Raises:
        BadFile: if a check fails.
    """
    files = list(files)
    for path in files:
        # File names have an underscore where the name has a hyphen (PEP 427, PEP 625).
        if not path.name.startswith(start := f"{NAME.replace('-', '_')}-"):
            raise BadFile(f"{path.name}: not a name that begins with {start}")
    versions = {version_of(path) for path in files}
    if len(versions) != 1:
        raise BadFile(f"there is more than one version: {', '.join(sorted(versions))}")
    for path in files:
        if path.suffix == ".whl":
            check_wheel(path)
        else:
            check_sdist(path)
    for command in (["twine", "check", "--strict"], ["check_wheel_contents"]):
        paths = [path for path in files if command[0] == "twine" or path.suffix == ".whl"]
        result = subprocess.run(
            [sys.executable, "-m", *command, *map(str, paths)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode:
            raise BadFile(result.stdout)


def check_complete(files: Iterable[Path]) -> None:
    """Check that a release has every file that it should have, and no other.

    Raises:
        BadFile: if a file is missing, superfluous or duplicate.
    """
    wanted = {"sdist", "pure", *(f"{python}-{name}" for python in PYTHONS for name in PLATFORMS)}
    found = [identifier(path) for path in files]
    problems = {
        "missing": sorted(wanted.difference(found)),
        "not wanted": sorted(set(found) - wanted),
        "there twice": sorted({name for name in found if found.count(name) > 1}),
    }
    text = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
    if text:
        raise BadFile(text)


def describe(files: Iterable[Path]) -> str:
    """Print a list of the files, and return the content of the file SHA256SUMS."""
    sums = []
    for path in sorted(files):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sums.append(f"{digest}  {path.name}\n")
        print(f"{path.stat().st_size / 1024:6.0f} KiB  {digest[:16]}  {path.name}")
    return "".join(sums)


def identifier(path: Path) -> str:
    """Return cibuildwheel's identifier for a wheel, or "sdist" or "pure".

    Raises:
        BadFile: if it is for a platform for which we do not build.
    """
    if path.name.endswith(".tar.gz"):
        return "sdist"
    _, _, python, abi, tags = path.stem.split("-")
    if (python, abi, tags) == ("py3", "none", "any"):
        return "pure"
    platform = platform_of(tags)
    if platform in PLATFORMS and abi in (python, f"{python}t"):
        return f"{abi}-{platform}"
    raise BadFile(f"{path.name}: not a platform that is built for")


def platform_of(tags: str) -> str | None:
    """Return cibuildwheel's name for the platform of these tags, which dots separate, if any."""
    if match := re.fullmatch(r"musllinux_1_2_(\w+)", tags):
        return f"musllinux_{match[1]}"
    if match := re.fullmatch(r"macosx_\d+_\d+_(x86_64|arm64)", tags):
        return f"macosx_{match[1]}"
    if re.fullmatch(r"win_(amd64|arm64)", tags):
        return tags
    cpus, versions = set(), []
    for tag in tags.split("."):
        match = re.fullmatch(r"manylinux(?:_2_(\d+)|(1|2010|2014))_(\w+)", tag)
        if match is None:
            return None
        versions.append(int(match[1]) if match[1] else OLD_NAMES[match[2]])
        cpus.add(match[3])
    cpu = cpus.pop()
    # One that fits an old glibc fits every later one.
    return None if cpus or min(versions) > GLIBC.get(cpu, 17) else f"manylinux_{cpu}"


def version_of(path: Path) -> str:
    return path.name.removesuffix(".tar.gz").split("-")[1]


def check_sdist(path: Path) -> None:
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {f"src/fastws/{SHARED.get(module, module + '.pyx')}" for module in MODULES}
    wanted |= {f"src/fastws/{module}.pxd" for module in SHARED}
    wanted |= {"pyproject.toml", "setup.py", "tools/commands.py", "LICENSE", "README.md"}
    wanted |= {"tests/conftest.py"}
    if not wanted <= names:
        raise BadFile(f"{path.name}: {', '.join(sorted(wanted - names))} not in it")
    made = re.compile(r"src/.*\.c|.*\.(so|pyd|pyc|o)")
    if found := sorted(filter(made.fullmatch, names)):
        raise BadFile(f"{path.name}: {', '.join(found)} in it")


def check_wheel(path: Path) -> None:
    kind = identifier(path)
    if path.stat().st_size > MAX_SIZE:
        raise BadFile(f"{path.name}: {path.stat().st_size:,} bytes; {MAX_SIZE:,} are allowed")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        info = f"{path.name.split('-')[0]}-{version_of(path)}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        bill = json.loads(archive.read(f"{info}/sboms/{NAME}.cdx.json"))
        extensions = {
            name: archive.read(name) for name in names if name.endswith((".so", ".pyd", ".dylib"))
        }
    wanted = set() if kind == "pure" else {f"fastws/{module}" for module in MODULES}
    if {name.partition(".")[0] for name in extensions} != wanted:
        raise BadFile(f"{path.name}: has {', '.join(extensions) or 'no extension'}")
    if [metadata["Name"], metadata["Version"]] != [NAME, version_of(path)]:
        raise BadFile(f"{path.name}: has the metadata of another")
    if bill["metadata"]["component"]["version"] != version_of(path):
        raise BadFile(f"{path.name}: has the bill of materials of another")
    if not {"fastws/py.typed", f"{info}/licenses/LICENSE"} <= names:
        raise BadFile(f"{path.name}: incomplete")
    for name, content in extensions.items():
        if content.startswith(b"\x7fELF"):
            check_elf(f"{path.name}: {name}", content)


def check_elf(where: str, content: bytes) -> None:
    """Check that a shared library needs only the C library, and shows no traces of its build."""
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(content))
    for section in elf.iter_sections():
        if section.name.startswith(".debug"):
            raise BadFile(f"{where} has debugging information")
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
                    raise BadFile(f"{where} looks for libraries in its own places")
                if tag.entry.d_tag == "DT_NEEDED" and not re.match(
                    # libpthread is part of the C library; until glibc 2.34, it was a separate file.
                    r"lib(c|m|pthread)\.|ld-",
                    tag.needed,
                ):
                    raise BadFile(f"{where} needs {tag.needed}")


if __name__ == "__main__":
    sys.exit(main())
