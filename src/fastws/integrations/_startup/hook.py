"""Installing fastws in a host when the host is imported, in a process that `fastws run` started.

This module knows imports, and what the environment asks for. It imports nothing of fastws until a
host is imported, so that a process that uses no host starts as fast as without fastws. Whatever
goes wrong here, the program runs as it would without fastws.
"""

from __future__ import annotations

import atexit
import os
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["ADVICE", "NAMES", "PID", "PREFIX", "SEEN", "never_imported", "start", "warning"]

# Packages and the integrations to install when they are imported, such as
# "websocket=websocket_client", separated by commas; a final "!" allows untested versions.
NAMES = "FASTWS_INTEGRATIONS"
# The sys.prefix of the interpreter they are for. Others may lack fastws or the hosts.
PREFIX = "FASTWS_INTEGRATIONS_PREFIX"
# The id of the program's main process. Others print nothing.
PID = "FASTWS_RUN_PID"
# The start of the names of files by which other processes report what they imported; not set if
# the program need not know.
SEEN = "FASTWS_RUN_SEEN"
# What to print besides the warning if a host was never imported.
ADVICE = "FASTWS_RUN_ADVICE"


def start() -> None:
    """Start to watch what is imported."""
    wanted = dict(entry.split("=", 1) for entry in os.environ[NAMES].split(","))
    finder = _Finder(wanted)
    sys.meta_path.insert(0, finder)
    for package in [*wanted]:
        if package in sys.modules:
            finder.imported(package)
    if _is_program() and SEEN in os.environ:
        atexit.register(_warn, [*wanted], finder, os.environ[SEEN], os.environ.get(ADVICE, ""))


def never_imported(packages: Iterable[str], seen: str) -> list[str]:
    """Return the packages that no other process reported, and delete the reports."""
    missing = []
    for package in packages:
        try:
            os.unlink(f"{seen}.{package}")
        except FileNotFoundError:
            missing.append(package)
        except OSError:
            pass
    return missing


def warning(packages: Sequence[str], advice: str) -> str:
    """Return the warning about packages that were never imported."""
    verb = "were" if len(packages) > 1 else "was"
    text = (
        f"fastws run: {' and '.join(packages)} {verb} never imported, so fastws did nothing there"
    )
    return f"{text}; {advice}\n" if advice else f"{text}\n"


def _is_program() -> bool:
    # A forked child has the same environment.
    return os.environ.get(PID) == str(os.getpid())


def _warn(packages: list[str], finder: _Finder, seen: str, advice: str) -> None:
    if not _is_program():
        return
    missing = [name for name in never_imported(packages, seen) if name not in sys.modules]
    missing = [name for name in missing if name in finder.wanted]
    if missing:
        _say(warning(missing, advice))


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # closed, or None
        sys.stderr.write(text)
        sys.stderr.flush()


class _Finder:
    """Finds hosts as the other finders do, and installs fastws when they are imported.

    Args:
        wanted: the integrations to install, by package.
    """

    def __init__(self, wanted: dict[str, str]) -> None:
        self.wanted = wanted

    @property
    def hosts_for_fastws(self) -> list[str]:
        """The names of the hosts; `fastws.integrations.installed` looks for this attribute."""
        return [name.removesuffix("!").replace("_", "-") for name in self.wanted.values()]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.wanted:
            return None
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if hasattr(spec.loader, "exec_module"):
                        spec.loader = _Loader(spec.loader, self.imported)  # type: ignore[assignment]
                    return spec
        return None

    def imported(self, package: str) -> None:
        """Install fastws in a package that has just been imported."""
        name = self.wanted.pop(package, None)
        if name is None:
            return
        try:
            _install(name)
        except Exception as exc:
            if _is_program():
                _say(f"fastws run: {package} runs without fastws: {exc}\n")
        if _is_program():
            if not self.wanted:
                os.environ.pop(SEEN, None)  # there is nothing more to report
        elif SEEN in os.environ:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            with suppress(OSError):
                os.close(os.open(f"{os.environ[SEEN]}.{package}", flags, 0o600))


class _Loader:
    """A loader that lets another one load the module, and then calls back."""

    def __init__(self, loader: Any, then: Callable[[str], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._then(module.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _install(name: str) -> None:
    integrations = import_module("fastws.integrations")
    integration = import_module(f"fastws.integrations.{name.removesuffix('!')}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", integrations.UntestedHostWarning)
        installation = integration.install(untested=name.endswith("!"))
    if not installation.active:
        raise integrations.IntegrationError(str(caught[0].message))
