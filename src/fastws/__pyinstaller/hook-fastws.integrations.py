"""The metadata of the hosts whose integrations are in the program; it contains their versions."""

from typing import Any

from fastws.__pyinstaller import metadata_of
from fastws.integrations._hosts import HOSTS


def hook(hook_api: Any) -> None:
    """Add the metadata; PyInstaller calls this when it has found all imported modules."""
    for name, host in HOSTS.items():
        if hook_api.graph.find_node(f"fastws.integrations.{name}") is not None:
            hook_api.add_datas(metadata_of(host.name))
