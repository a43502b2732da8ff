"""A warning if the frozen program will run in pure Python."""

from importlib.util import find_spec

from PyInstaller.utils.hooks import logger  # type: ignore[import-untyped]

if find_spec("fastws._c.connection") is None:
    logger.warning(
        "fastws is installed without its extension: "
        "the program will run in pure Python, with the same results but slower"
    )
