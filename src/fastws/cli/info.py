"""`fastws info`: what a bug report should say about the place where fastws runs.

This module knows how to find that out, on every Python and whatever is missing, and how to print
it. It does not print secrets: only environment variables named FASTWS_*, and paths without home
directories.
"""

from __future__ import annotations

import json
import os
import platform
import re
import ssl
import struct
import sys
import sysconfig
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastws import __version__
from fastws.codec import implementation, kernel
from fastws.deflate import LIBRARIES
from fastws.integrations._hosts import HOSTS

from ._shared import DISTRIBUTION, print_line

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

__all__ = ["DEPENDENCIES", "EPILOG", "SUMMARY", "add_arguments", "collect", "run"]

SUMMARY = "show what runs here, and on what, for bug reports"

EPILOG = """\
The keys of the JSON are stable; the documentation lists them under "Reporting a bug". Home
directories are written as ~.

example:
  fastws info --json"""

# The distributions that fastws uses if they are installed.
DEPENDENCIES = (
    "h11",
    "uvloop",
    "aiofastnet",
    "zlib-ng",
    "isal",
    "python-socks",
    "idna",
    "prompt-toolkit",
    "rich",
    "shtab",
    "redis",
    "nats-py",
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: Namespace) -> int:
    """Print the information."""
    info = collect(__version__)
    if args.json:
        print_line(json.dumps(info, indent=2))
        return 0
    for name, text in _readable(info):
        print_line(f"{name:<12} {text}")
    return 0


def collect(fastws: str) -> dict[str, Any]:
    """Return all information, ready for JSON. docs/reference/bug-reports.md has the keys.

    Args:
        fastws: the version of fastws.
    """
    reason, error = _twin()
    found: dict[str, Any] = {
        "fastws": fastws,
        "installation": _installation(),
        "warnings": _conflicts(),
        "twin": implementation,
        "twin_reason": reason,
        "extension_error": error,
        "extension": _extension(),
        "kernel": kernel,
        "kernels": _kernels(),
        "python": _python(),
        "platform": _platform(),
        "deflate": {name: _constant(*library.version) for name, library in LIBRARIES.items()},
        "openssl": ssl.OPENSSL_VERSION,
        "dependencies": {name: version_of(name) for name in DEPENDENCIES},
        "integrations": _integrations(),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith("FASTWS_")
        },
    }
    without_home: dict[str, Any] = _without_home(found)
    return without_home


def version_of(distribution: str) -> str | None:
    """Return the version of a distribution; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


# As text -------------------------------------------------------------------------------


def _readable(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what `collect` returns as lines, each with its label."""

    def known(versions: dict[str, str | None]) -> str:
        return ", ".join(f"{name} {number or 'not installed'}" for name, number in versions.items())

    installation, python, system = info["installation"], info["python"], info["platform"]
    if installation["editable"]:
        how = "editable"
    elif installation["version"] is None:
        how = "not installed"
    else:
        how = " ".join(installation["wheel"]) or "from no wheel"
    if installation["version"] not in (None, info["fastws"]):
        how += f", of {installation['version']}"
    yield "fastws", f"{info['fastws']} ({how})"
    yield "location", installation["location"]
    for sentence in info["warnings"]:
        yield "warning", sentence
    error = info["extension_error"]
    yield "twin", f"{info['twin']}: {info['twin_reason']}{f' ({error})' if error else ''}"
    others = ", ".join(name for name in info["kernels"] if name != info["kernel"])
    yield "kernel", info["kernel"] + (f" (available: {others})" if others else "")
    if info["extension"] is not None:
        yield "built with", "Cython {cython}, {compiler}".format(**info["extension"])
    yield "python", f"{python['implementation']} {python['version']} ({python['build']})"
    gil = "GIL" if python["gil_enabled"] else "no GIL"
    if python["free_threaded"]:
        gil += ", free-threaded"
    yield "", f"{python['compiler'] or 'unknown compiler'}, {gil}"
    yield "platform", f"{system['name']}"
    libc = f", {system['libc']}" if system["libc"] else ""
    order = f"{system['bits']}-bit, {system['byte_order']}-endian"
    yield "", f"{system['machine']}, {order}{libc}"
    yield "deflate", known(info["deflate"])
    yield "tls", info["openssl"]
    yield "with", known(info["dependencies"])
    found = [
        f"{name} {host['version']}" + ("" if host["tested"] else " (not tested)")
        for name, host in info["integrations"].items()
    ]
    yield "hosts", ", ".join(found) or "none"
    settings = [f"{name}={value}" for name, value in info["environment"].items()]
    yield "environment", ", ".join(settings) or "nothing set"


# fastws -------------------------------------------------------------------------------


def _installation() -> dict[str, Any]:
    location = Path(__file__).parents[1]
    found: dict[str, Any] = {
        "location": str(location),
        "version": None,
        "editable": False,
        "wheel": [],
        "installer": None,
    }
    try:
        distribution = Distribution.from_name(DISTRIBUTION)
    except PackageNotFoundError:
        return found
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    found["editable"] = bool(origin.get("dir_info", {}).get("editable"))
    found["version"] = distribution.version
    found["installer"] = (distribution.read_text("INSTALLER") or "").strip() or None
    if not found["editable"]:  # whose tag is not that of a wheel
        found["wheel"] = re.findall(
            r"^Tag: *(\S+)", distribution.read_text("WHEEL") or "", re.MULTILINE
        )
    return found


def _conflicts() -> list[str]:
    """Warn of the other project that is imported as `fastws`, if it is installed, too."""
    versions = {
        other.version
        for other in Distribution.discover(name="fastws")
        # (After it was removed, an empty folder may be left.)
        if (other.read_text("METADATA") or other.read_text("PKG-INFO"))
        # This project had that name before it was published, and may have left its metadata.
        and not any(script.value == "fastws.cli:main" for script in other.entry_points)
    }
    return [
        f"the distribution fastws {number} is installed too, which is another project: it and "
        f"{DISTRIBUTION} both use the import name fastws, and overwrite each other's files; "
        "uninstall both, then install the one that you want"
        for number in sorted(versions)
    ]


def _twin() -> tuple[str, str | None]:
    """Return why this twin runs; and why the extension cannot be imported, or None."""
    wanted = os.environ.get("FASTWS_IMPL")
    if wanted:
        return f"FASTWS_IMPL is {wanted}", None
    if implementation == "c":
        return "the extension can be imported", None
    try:
        import_module("fastws._c.connection")
    except ImportError as exc:
        return "the extension cannot be imported", f"{type(exc).__name__}: {exc}"
    return "the extension could not be imported, but now it can", None


def _extension() -> dict[str, str] | None:
    if implementation != "c":
        return None
    built: dict[str, str] = import_module("fastws._c.kernel").built_with()
    return built


def _kernels() -> list[str]:
    if implementation != "c":
        return [kernel]
    return list(import_module("fastws._c.kernel").available())


# Where it runs ------------------------------------------------------------------------


def _python() -> dict[str, Any]:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "build": " ".join(platform.python_build()),
        "compiler": platform.python_compiler(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "gil_enabled": bool(gil()),
    }


def _platform() -> dict[str, Any]:
    return {
        "name": platform.platform(),
        "machine": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "byte_order": sys.byteorder,
        "libc": _libc(),
    }


def _libc() -> str | None:
    name, number = platform.libc_ver()
    if name:
        return f"{name} {number}"
    # Older Pythons do not recognize musl.
    triplet = f"{sysconfig.get_config_var('HOST_GNU_TYPE')} {sysconfig.get_config_var('SOABI')}"
    return "musl" if "musl" in triplet else None


def _constant(module: str, name: str) -> str | None:
    """Return a constant of a module; None if it is not installed or does not have it."""
    try:
        return str(getattr(import_module(module), name))
    except (ImportError, AttributeError):
        return None


def _integrations() -> dict[str, Any]:
    return {
        name: {"host": host.name, "version": number, "tested": host.covers(number)}
        for name, host in HOSTS.items()
        if (number := version_of(host.name)) is not None
    }


# Privacy --------------------------------------------------------------------------------


def _without_home(value: Any) -> Any:
    """Replace the home directory, which contains the user's name, by ~."""
    homes = {os.path.expanduser("~")}
    homes |= {os.path.realpath(home) for home in homes}
    # If the home directory is the root of the file system or unknown, there is nothing to hide.
    homes = {home for home in homes if os.path.dirname(home) != home and home != "~"}
    if not homes:
        return value
    pattern = re.compile(
        r"(?<![\w.~-])"
        f"(?:{'|'.join(re.escape(home) for home in sorted(homes, key=len, reverse=True))})"
        r"(?![\w.-])"
    )

    def clean(value: Any) -> Any:
        match value:
            case str():
                return pattern.sub("~", value)
            case dict():
                return {key: clean(member) for key, member in value.items()}
            case list():
                return [clean(member) for member in value]
            case _:
                return value

    return clean(value)
