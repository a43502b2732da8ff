"""The metadata of the host, which says the version."""

from fastws.__pyinstaller import metadata_of

datas = metadata_of("wsproto")
