"""The hosts: the distributions that fastws can be put into, one line each.

This table says what a host is called and which versions of it are tested. It imports no host. To
add one, enter it here, write the integration of that name, and add the host to the extra `hosts`
in pyproject.toml.
"""

from __future__ import annotations

from typing import Final

from ._install import Host

__all__ = ["HOSTS"]

# By the name of the integration. Versions are tested from the first up to, but not including, the
# second.
HOSTS: Final[dict[str, Host]] = {
    host.module: host
    for host in (
        Host("aiohttp", ("3.13.2", "3.15")),
        Host("autobahn", ("23.1", "27")),
        Host("gunicorn", ("24", "28")),
        Host("tornado", ("6.3", "6.7")),
        # It takes a class of ours as an option; nothing is replaced.
        Host("uvicorn", ("0.36", "0.55"), installable=False),
        Host("websocket-client", ("1.7", "1.10"), module="websocket_client", package="websocket"),
        Host("websockets", ("16.0", "18")),
        Host("wsproto", ("1.2", "1.4")),
    )
}
