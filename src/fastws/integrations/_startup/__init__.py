"""Installing integrations in a program that knows nothing of them.

`fastws run` starts the program with this package's directory in PYTHONPATH, so that every Python
process of the program, workers included, first runs the `sitecustomize` in that directory. It
installs an integration when its host is imported, and not before.

This package knows how a program is started with integrations. It does not know which programs
there are.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastws.integrations._hosts import HOSTS
from fastws.integrations._install import IntegrationError, UntestedHostWarning

from .hook import ADVICE, NAMES, PID, PREFIX, SEEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastws.integrations._install import Installation

__all__ = ["environment", "try_out"]


def environment(
    names: Iterable[str],
    environ: Mapping[str, str],
    *,
    untested: bool = False,
    advice: str | None = None,
) -> dict[str, str]:
    """Return an environment in which Python programs run with integrations installed.

    Args:
        names: the names of the integrations.
        environ: the environment to extend.
        untested: whether to install them in versions of the hosts that were not tested.
        advice: what to print besides the warning if a host is never imported; None to print
            nothing at all.
    """
    here = str(Path(__file__).parent)
    path = environ.get("PYTHONPATH")
    mark = "!" if untested else ""
    added = {
        "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here,
        NAMES: ",".join(f"{HOSTS[name].package}={name}{mark}" for name in names),
        PREFIX: sys.prefix,
    }
    if os.name == "posix":  # elsewhere the program runs in a process of its own
        added[PID] = str(os.getpid())
    if advice is not None:
        name = f"fastws-run-{secrets.token_hex(8)}"
        added |= {SEEN: os.path.join(tempfile.gettempdir(), name), ADVICE: advice}
    kept = {name: value for name, value in environ.items() if name not in (PID, SEEN, ADVICE)}
    return kept | added


def try_out(name: str, *, untested: bool = False) -> Installation:
    """Install an integration in this process, to see whether it works.

    Args:
        name: the name of the integration.
        untested: whether to install it in a version of the host that was not tested.

    Raises:
        ImportError: if the host is not installed.
        IntegrationError: if it does not work.
    """
    try:
        module: Any = import_module(f"fastws.integrations.{name}")
        with warnings.catch_warnings():
            if not untested:
                warnings.simplefilter("error", UntestedHostWarning)
            installation: Installation = module.install(untested=untested)
    except UntestedHostWarning as exc:
        raise IntegrationError(f"{exc}; use --untested to install it anyway") from None
    except (ImportError, IntegrationError):
        raise
    except Exception as exc:
        raise IntegrationError(f"{name}: {exc!r}") from exc
    return installation
