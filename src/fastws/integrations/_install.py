"""Putting fastws into a host, and taking it out again.

This module knows what is patched, by whom, and how to undo it. It does not know any host.
"""

from __future__ import annotations

import re
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
        module: the name of what to import, if it is not that of the distribution.
    """

    def __init__(self, name: str, tested: tuple[str, str], module: str | None = None) -> None:
        self.name = name
        self.tested = tested
        self.module = module or name

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
        """Patch the host, unless that was done already.

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
                return found
            installation = Installation(self.name, self.version())
            if not self.is_tested() and not untested:
                return installation
            try:
                patch(installation)
                check()
            except Exception as exc:
                installation._undo()
                raise IntegrationError(
                    f"fastws does not work in {self.name} {installation.version}: {exc!r}"
                ) from exc
            _installations[self.name] = installation
            return installation


class Installation:
    """What an integration's `install` returns. As a context manager it uninstalls at the end.

    Attributes:
        name: the host's distribution.
        version: its version.
    """

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    @property
    def active(self) -> bool:
        """Whether the host runs with fastws."""
        return _installations.get(self.name) is self

    def uninstall(self) -> None:
        """Set the host right again; does nothing if that was done already.

        What somebody else replaced after us stays as it is, with a RuntimeWarning.
        """
        with _lock:
            if self.active:
                del _installations[self.name]
                self._undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstall()

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
    """Return the names of the hosts that run with fastws, in the order of installation."""
    return list(_installations)


def _release(text: str) -> tuple[int, ...]:
    """Read the numbers at the beginning of a version; what comes after does not matter here."""
    match = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(number) for number in match[0].split(".")] if match else []
    while numbers and not numbers[-1]:  # 2 is 2.0
        del numbers[-1]
    return tuple(numbers)
