"""What `fastws probe` runs, under the name by which programs import it.

This module defines nothing: the probe is in `fastws.cli`, beside its command.
"""

from fastws.cli._probing import CHECKS, MANNERS, MAX_RECEIVED, OUT_OF_TIME, Check, Result, probe

__all__ = ["CHECKS", "MANNERS", "MAX_RECEIVED", "OUT_OF_TIME", "Check", "Result", "probe"]
