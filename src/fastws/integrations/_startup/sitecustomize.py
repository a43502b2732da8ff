"""What Python runs first in a program that `fastws run` started, and in its child processes.

If this module hides another sitecustomize, it runs that one as if this one did not exist. Every
Python that the program starts reads this file, even one that is older than fastws supports or
does not have fastws: the file must work in all of them, and disturb none.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
if os.environ.get("FASTWS_INTEGRATIONS_PREFIX") == sys.prefix and sys.version_info >= (3, 11):
    try:
        from importlib.util import module_from_spec, spec_from_file_location

        # Not as a module of fastws: importing the package takes too long.
        spec = spec_from_file_location("_fastws_hook", os.path.join(here, "hook.py"))
        if spec is not None and spec.loader is not None:
            hook = module_from_spec(spec)
            spec.loader.exec_module(hook)
            hook.start()
    except Exception:  # noqa: S110
        pass
ours = sys.modules.pop("sitecustomize", None)
try:
    __import__("sitecustomize")
except ImportError:
    # Python itself ignores a sitecustomize that is missing, but not one that fails.
    if getattr(sys.exc_info()[1], "name", "sitecustomize") != "sitecustomize":
        raise
finally:
    if ours is not None:
        sys.modules.setdefault("sitecustomize", ours)
