"""What Python runs first in a program that `fastws run` started, and in what that starts.

There may be another sitecustomize, which this one hides: it is run as if this were not here.
Every Python may come by here, older than fastws and without it: this file is read by all of
them, and none is kept from going on as it would.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
if os.environ.get("FASTWS_INTEGRATIONS_PREFIX") == sys.prefix and sys.version_info >= (3, 11):
    try:
        from importlib.util import module_from_spec, spec_from_file_location

        # Not as a part of fastws, which takes its time to be imported.
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
    # Python itself passes over one that is not there, but not over one that fails.
    if getattr(sys.exc_info()[1], "name", "sitecustomize") != "sitecustomize":
        raise
finally:
    if ours is not None:
        sys.modules.setdefault("sitecustomize", ours)
