"""What `fastws info` tells: all that a bug report should say of where fastws runs.

This module knows how to find that out, on every Python and whatever is missing. It does not
know how it is printed. No secrets are told: of the environment only what is named FASTWS_*, and
of paths no home directory.
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
from typing import Any

from .codec import implementation, kernel
from .integrations._hosts import HOSTS

__all__ = ["DEPENDENCIES", "DISTRIBUTION", "collect"]

# What is installed under this name is imported as `fastws`.
DISTRIBUTION = "fastws-codec"

# What fastws uses if it is there.
DEPENDENCIES = ("h11", "uvloop", "aiofastnet", "zlib-ng", "isal")

# Where a library for DEFLATE says which one it is.
_DEFLATE = {
    "zlib": ("zlib", "ZLIB_RUNTIME_VERSION"),
    "zlib-ng": ("zlib_ng.zlib_ng", "ZLIBNG_RUNTIME_VERSION"),
    "isal": ("isal", "ISAL_VERSION"),
}


def collect(fastws: str) -> dict[str, Any]:
    """Return what there is to say, as JSON can; README.md documents the keys.

    Args:
        fastws: its version.
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
        "deflate": {name: _constant(*where) for name, where in _DEFLATE.items()},
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


# fastws -------------------------------------------------------------------------------


def _installation() -> dict[str, Any]:
    location = Path(__file__).parent
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
    if not found["editable"]:  # where the tag is of no wheel
        found["wheel"] = re.findall(
            r"^Tag: *(\S+)", distribution.read_text("WHEEL") or "", re.MULTILINE
        )
    return found


def _conflicts() -> list[str]:
    """Tell of the other project that is imported as `fastws`, if it is installed too."""
    versions = {
        other.version
        for other in Distribution.discover(name="fastws")
        # (A folder may be there without any, after it was removed.)
        if (other.read_text("METADATA") or other.read_text("PKG-INFO"))
        # Ours had that name before it was published, and may have left its metadata.
        and not any(script.value == "fastws.cli:main" for script in other.entry_points)
    }
    return [
        f"the distribution fastws {number} is installed too, which is another project: it and "
        f"{DISTRIBUTION} both use the import name fastws, and overwrite each other's files; "
        "uninstall both, then install the one that you want"
        for number in sorted(versions)
    ]


def _twin() -> tuple[str, str | None]:
    """Tell why this twin runs, and why the extension cannot be imported, if it cannot."""
    wanted = os.environ.get("FASTWS_IMPL")
    if wanted:
        return f"FASTWS_IMPL is {wanted}", None
    if implementation == "c":
        return "the extension can be imported", None
    try:
        import_module("fastws._c.hot")
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
    # Older Pythons do not recognize it.
    triplet = f"{sysconfig.get_config_var('HOST_GNU_TYPE')} {sysconfig.get_config_var('SOABI')}"
    return "musl" if "musl" in triplet else None


def _constant(module: str, name: str) -> str | None:
    """Return what a module that may not be there says of itself."""
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


# What is nobody's business --------------------------------------------------------------


def _without_home(value: Any) -> Any:
    """Write ~ for the home directory, which has the user's name in it."""
    homes = {os.path.expanduser("~")}
    homes |= {os.path.realpath(home) for home in homes}
    # A home that is the root of the file system, or not known, tells nothing.
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
