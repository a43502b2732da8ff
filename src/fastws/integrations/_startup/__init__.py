"""Installing integrations where a program starts that knows nothing of them.

`fastws run` starts the program with this package's directory in PYTHONPATH, so that every Python
started with it, workers included, runs the `sitecustomize` in there before anything else. That
installs an integration when its host is imported, and not before.

This package knows which integrations there are, by reading them: it imports only those wanted.
"""

from __future__ import annotations

import ast
import os
import secrets
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastws.integrations._install import Host, IntegrationError, UntestedHostWarning

from .hook import ADVICE, NAMES, PID, PREFIX, SEEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastws.integrations._install import Installation

__all__ = ["environment", "hosts", "try_out"]


def hosts(*, installable: bool = True) -> dict[str, Host]:
    """Return the integrations by name, and what they are for.

    Args:
        installable: whether to leave out those that are not installed, but named to the host.
    """
    found = {}
    for path in sorted(Path(__file__).parents[1].glob("[!_]*.py")):
        host = None
        installs = False
        for node in ast.parse(path.read_text("utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Name("HOST")], value=ast.Call() as call):
                    args = map(ast.literal_eval, call.args)
                    keywords = {str(key.arg): ast.literal_eval(key.value) for key in call.keywords}
                    host = Host(*args, **keywords)
                case ast.FunctionDef(name="install"):
                    installs = True
        if host is not None and (installs or not installable):
            found[path.stem] = host
    return found


def environment(
    names: Iterable[str],
    environ: Mapping[str, str],
    *,
    untested: bool = False,
    advice: str | None = None,
) -> dict[str, str]:
    """Return an environment in which Python programs run with integrations installed.

    Args:
        names: of the integrations.
        environ: the environment otherwise.
        untested: whether to install them in versions of the hosts that were not tested.
        advice: what to say besides if a host is never imported; None to say nothing at all.
    """
    here = str(Path(__file__).parent)
    path = environ.get("PYTHONPATH")
    known = hosts()
    mark = "!" if untested else ""
    added = {
        "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here,
        NAMES: ",".join(f"{known[name].package}={name}{mark}" for name in names),
        PREFIX: sys.prefix,
    }
    if os.name == "posix":  # elsewhere the program does not get our process
        added[PID] = str(os.getpid())
    if advice is not None:
        name = f"fastws-run-{secrets.token_hex(8)}"
        added |= {SEEN: os.path.join(tempfile.gettempdir(), name), ADVICE: advice}
    kept = {name: value for name, value in environ.items() if name not in (PID, SEEN, ADVICE)}
    return kept | added


def try_out(name: str, *, untested: bool = False) -> Installation:
    """Install an integration in this process, to see that it works.

    Args:
        name: of the integration.
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
        raise IntegrationError(f"{exc}; --untested installs it all the same") from None
    except (ImportError, IntegrationError):
        raise
    except Exception as exc:
        raise IntegrationError(f"{name}: {exc!r}") from exc
    return installation
