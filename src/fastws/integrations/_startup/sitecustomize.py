"""What Python runs first in a program that `fastws run` started.

There may be another sitecustomize, which this one hides: it is run as if this were not here.
Other interpreters run this too; they are let go on as they would.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

here = os.path.dirname(__file__)
sys.path[:] = [entry for entry in sys.path if entry != here]
spec = PathFinder.find_spec("sitecustomize")
try:
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)
finally:
    if os.environ.get("FASTWS_INTEGRATIONS_PREFIX") == sys.prefix:
        from fastws.integrations._startup import install_from_environment

        install_from_environment()
