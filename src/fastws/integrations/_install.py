"""Installing fastws in a host, and removing it again.

This module knows what is patched, by whom, and how to undo it. It does not know any host: the
table of them is in `_hosts`.
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
    """fastws could not be installed in a host; the host is unchanged."""


class UntestedHostWarning(UserWarning):
    """This version of a host has not been tested with fastws."""


class Host:
    """A distribution that fastws can be installed in.

    Args:
        name: the name of the distribution on PyPI, which `installed` returns.
        tested: the tested versions: from the first up to, but not including, the second.
        module: the name of the integration, if it is not that of the distribution.
        package: the name of the package to import, if it is not that of the integration.
        installable: whether the integration has an `install`; if not, the host takes an object of
            the integration as an option.
    """

    def __init__(
        self,
        name: str,
        tested: tuple[str, str],
        module: str | None = None,
        package: str | None = None,
        *,
        installable: bool = True,
    ) -> None:
        self.name = name
        self.tested = tested
        self.module = module or name
        self.package = package or self.module
        self.installable = installable

    def missing(self) -> ImportError:
        """Return the exception to raise if the host cannot be imported."""
        return ImportError(
            f"fastws.integrations.{self.module} needs {self.name}, which is not installed",
            name=self.module,
        )

    def version(self) -> str:
        """Return the version of the host.

        Raises:
            ImportError: if the host is not installed.
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
        """Return whether the installed version was tested; warn if it was not.

        Raises:
            ImportError: if the host is not installed.
        """
        found = self.version()
        if self.covers(found):
            return True
        first, end = self.tested
        warnings.warn(
            f"fastws was not tested with {self.name} {found}, "
            f"but with versions from {first} up to, not including, {end}",
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
        """Patch the host. If it is patched already, return the existing installation, which then
        stays until each `install` has been undone.

        Args:
            patch: replaces attributes of the host, with `Installation.replace`.
            check: uses the patched host, and raises if the result is wrong.
            untested: whether to patch a version that was not tested.

        Returns:
            the installation, which can undo it. If the version is not tested and `untested` is
            false, this warns, and the installation is not `active`.

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

    While a host runs with fastws, it has one installation: `install` returns it again, and each
    call of `uninstall` undoes one call of `install`; the last one restores the host. As a context
    manager it leaves the host at the end as it was at the beginning: blocks may be nested, may
    overlap in several threads, and do not remove what was installed before them.

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
        # How many calls of `install` are not undone, not counting those that became blocks; how
        # many there were when the first of the open blocks began; how many blocks are open.
        self._held = 1
        self._held_before = 0
        self._blocks = 0

    @property
    def active(self) -> bool:
        """Whether the host runs with fastws."""
        return _installations.get(self.name) is self

    def uninstall(self) -> None:
        """Undo one `install`. If it was the last one, restore the host.

        Does nothing if all are undone already. An attribute that other code has replaced in the
        meantime stays as it is, with a RuntimeWarning.
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
            the old value, as in the owner's `__dict__`: a descriptor stays one.

        Raises:
            AttributeError: if the owner itself does not have the attribute.
        """
        try:
            old = vars(owner)[name]
        except KeyError:
            raise AttributeError(f"{owner!r} has no {name}") from None
        setattr(owner, name, value)
        self._replaced.append((owner, name, old, value))
        return old

    def release(self) -> None:
        """Give up the installation, but leave it in the host: the next caller of `install` may
        remove it."""
        with _lock:
            self._held = 0

    @property
    def replaced(self) -> list[str]:
        """The full names of the replaced attributes, in the order of replacement."""
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
                    f"{owner!r}.{name} was replaced after fastws replaced it, and is left alone",
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
    """Return the numbers at the beginning of a version, without final zeros."""
    match = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(number) for number in match[0].split(".")] if match else []
    while numbers and not numbers[-1]:  # 2 is 2.0
        del numbers[-1]
    return tuple(numbers)
