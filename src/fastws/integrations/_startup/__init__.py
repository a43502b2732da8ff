"""Installing integrations where a program starts that knows nothing of them.

`fastws run` starts the program with this package's directory in PYTHONPATH, so that every Python
started with it, workers included, runs the `sitecustomize` in there before anything else.

This package knows which integrations there are, by reading them: it imports only those wanted.
"""

from __future__ import annotations

import ast
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fastws.integrations._install import Host, IntegrationError, UntestedHostWarning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["environment", "hosts", "install_from_environment"]

# Names with commas between; those that may be in any version have a "!".
NAMES = "FASTWS_INTEGRATIONS"
# The sys.prefix of the interpreter they are for. Others may not have fastws, or not those hosts.
PREFIX = "FASTWS_INTEGRATIONS_PREFIX"


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
    names: Iterable[str], environ: Mapping[str, str], *, untested: bool = False
) -> dict[str, str]:
    """Return an environment in which Python programs run with integrations installed.

    Args:
        names: of the integrations.
        environ: the environment otherwise.
        untested: whether to install them in versions of the hosts that were not tested.
    """
    here = str(Path(__file__).parent)
    path = environ.get("PYTHONPATH")
    return {
        **environ,
        "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here,
        NAMES: ",".join(f"{name}!" if untested else name for name in names),
        PREFIX: sys.prefix,
    }


def install_from_environment() -> None:
    """Install what `environment` asks for.

    If that cannot be, the process ends with status 2, since nobody could catch an exception.
    """
    for name in filter(None, os.environ.get(NAMES, "").split(",")):
        untested = name.endswith("!")
        try:
            module = import_module(f"fastws.integrations.{name.removesuffix('!')}")
            with warnings.catch_warnings():
                if not untested:
                    warnings.simplefilter("error", UntestedHostWarning)
                module.install(untested=untested)
        except UntestedHostWarning as exc:
            _fail(f"{exc}; --untested installs it all the same")
        except (ImportError, IntegrationError) as exc:
            _fail(str(exc))
        except Exception as exc:
            _fail(f"{name}: {exc!r}")


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"fastws run: {message}\n")
    sys.stderr.flush()
    os._exit(2)  # Python would go on after an exception here, and complain about SystemExit
