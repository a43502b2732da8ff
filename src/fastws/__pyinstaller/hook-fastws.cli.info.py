"""The metadata that `fastws info` reads."""

from fastws.__pyinstaller import metadata_of

# Of the distributions that this module's program includes, too.
datas = metadata_of("fastws-codec", "h11", "uvloop", "zlib-ng", "isal")
