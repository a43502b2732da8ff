"""Putting fastws into a host, and taking it out again.

This module knows what is patched, by whom, and how to undo it. It does not know any host.
"""

from __future__ import annotations

import re
import sys
import threading
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Self

from fastws.exceptions import WebSocketError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Host", "Installation", "IntegrationError", "UntestedHostWarning", "installed"]


class IntegrationError(WebSocketError):
    """fastws could not be put into a host; the host is as it was before."""


class UntestedHostWarning(UserWarning):
    """This version of a host was not tested with fastws."""


class Host:
    """A distribution that fastws can be put into.

    Args:
        name: the distribution, as on PyPI; `installed` lists it.
        tested: the versions tested: from the first, up to but not including the second.
        module: the name of the integration, if it is not that of the distribution.
        package: the name of what to import, if it is not that of the integration.
    """

    def __init__(
        self,
        name: str,
        tested: tuple[str, str],
        module: str | None = None,
        package: str | None = None,
    ) -> None:
        self.name = name
        self.tested = tested
        self.module = module or name
        self.package = package or self.module

    def missing(self) -> ImportError:
        """Return what to raise if the host cannot be imported."""
        return ImportError(
            f"fastws.integrations.{self.module} needs {self.name}, which is not installed",
            name=self.module,
        )

    def version(self) -> str:
        """Return which version of the host is installed.

        Raises:
            ImportError: if none is.
        """
        try:
            return version(self.name)
        except PackageNotFoundError:
            raise self.missing() from None

    def covers(self, version: str) -> bool:
        """Return whether a version of the host was tested."""
        first, end = self.tested
        return _release(first) <= _release(version) < _release(end)

    def is_tested(self) -> bool:
        """Return whether that version was tested; warn if it was not.

        Raises:
            ImportError: if the host is not installed.
        """
        found = self.version()
        if self.covers(found):
            return True
        first, end = self.tested
        warnings.warn(
            f"fastws was not tested with {self.name} {found}, "
            f"but with {first} and later up to, not including, {end}",
            UntestedHostWarning,
            stacklevel=4,  # the caller of an integration's install()
        )
        return False

    def install(
        self,
        patch: Callable[[Installation], None],
        check: Callable[[], None],
        *,
        untested: bool = False,
    ) -> Installation:
        """Patch the host, unless that was done already: then whoever did it is not disturbed
        by what is done with the installation from here on.

        Args:
            patch: replaces what is to be replaced, by `Installation.replace`.
            check: uses the patched host; raises if the result is wrong.
            untested: whether to patch a version that was not tested.

        Returns:
            what undoes it; if the version is not tested and that is not wanted, it is one
            that is not `active`, after a warning.

        Raises:
            ImportError: if the host is not installed.
            IntegrationError: if the host cannot be patched or the check fails.
        """
        with _lock:
            found = _installations.get(self.name)
            if found is not None:
                found._held += 1
                return found
            installation = Installation(self.name, self.version(), tested=self.is_tested())
            if not installation.tested and not untested:
                return installation
            try:
                patch(installation)
                check()
            except BaseException as exc:
                installation._undo()
                if not isinstance(exc, Exception):
                    raise
                raise IntegrationError(
                    f"fastws does not work in {self.name} {installation.version}: {exc!r}"
                ) from exc
            _installations[self.name] = installation
            return installation


class Installation:
    """What an integration's `install` returns.

    There is one for a host as long as it runs with fastws: `install` returns it again, and each
    call of `uninstall` takes back one call of `install`; the last one sets the host right.
    As a context manager it leaves the host at the end as it was before: blocks may be nested, may
    overlap in several threads, and do not take out what was installed before them.

    Attributes:
        name: the host's distribution.
        version: its version.
        tested: whether this version was tested.
    """

    def __init__(self, name: str, version: str, *, tested: bool = True) -> None:
        self.name = name
        self.version = version
        self.tested = tested
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        # How many calls of `install` were not taken back, those apart that became blocks; how
        # many were there when the first of the open blocks began; how many blocks are open.
        self._held = 1
        self._held_before = 0
        self._blocks = 0

    @property
    def active(self) -> bool:
        """Whether the host runs with fastws."""
        return _installations.get(self.name) is self

    def uninstall(self) -> None:
        """Take back one `install`. If it was the only one left, set the host right again.

        Does nothing if that was done already. What somebody else replaced after us stays as it
        is, with a RuntimeWarning.
        """
        with _lock:
            if self._held:
                self._held -= 1
            elif self._blocks == 1:
                self._blocks = 0
            self._undo_unless_held()

    def __enter__(self) -> Self:
        with _lock:
            self._held = max(self._held - 1, 0)
            self._held_before = min(self._held, self._held_before if self._blocks else self._held)
            self._blocks += 1
        return self

    def __exit__(self, *_: object) -> None:
        with _lock:
            self._blocks = max(self._blocks - 1, 0)
            if not self._blocks:
                self._held = min(self._held, self._held_before)
            self._undo_unless_held()

    def __repr__(self) -> str:
        state = "active" if self.active else "not active"
        return f"<fastws in {self.name} {self.version}, {state}>"

    # For the integrations ------------------------------------------------------------

    def replace(self, owner: Any, name: str, value: Any) -> Any:
        """Replace an attribute of a module or class until `uninstall`.

        Returns:
            what it was: as in the owner's `__dict__`, that is a descriptor if it is one.

        Raises:
            AttributeError: if the owner itself has no such attribute.
        """
        try:
            old = vars(owner)[name]
        except KeyError:
            raise AttributeError(f"{owner!r} has no {name}") from None
        setattr(owner, name, value)
        self._replaced.append((owner, name, old, value))
        return old

    def release(self) -> None:
        """Hold it no longer, and leave it in the host: whoever calls `install` next may take
        it out."""
        with _lock:
            self._held = 0

    @property
    def replaced(self) -> list[str]:
        """The full names of what is replaced, in the order in which it was."""
        return [
            f"{owner.__module__}.{owner.__qualname__}.{name}"
            if isinstance(owner, type)
            else f"{owner.__name__}.{name}"
            for owner, name, _, _ in self._replaced
        ]

    def _undo_unless_held(self) -> None:
        if self.active and not self._held and not self._blocks:
            del _installations[self.name]
            self._undo()

    def _undo(self) -> None:
        while self._replaced:
            owner, name, old, value = self._replaced.pop()
            if vars(owner).get(name) is value:
                setattr(owner, name, old)
            else:
                warnings.warn(
                    f"{owner!r}.{name} is not what fastws made it, and is left alone",
                    RuntimeWarning,
                    stacklevel=3,
                )


_lock = threading.RLock()
_installations: dict[str, Installation] = {}


def installed() -> list[str]:
    """Return the names of the hosts that run with fastws, in the order of installation.

    In a program that `fastws run` started, these are also the hosts that will run with it when
    they are imported.
    """
    pending = [
        host
        for finder in sys.meta_path
        for host in getattr(finder, "hosts_for_fastws", ())
        if host not in _installations
    ]
    return [*_installations, *pending]


def _release(text: str) -> tuple[int, ...]:
    """Read the numbers at the beginning of a version; what comes after does not matter here."""
    match = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(number) for number in match[0].split(".")] if match else []
    while numbers and not numbers[-1]:  # 2 is 2.0
        del numbers[-1]
    return tuple(numbers)
