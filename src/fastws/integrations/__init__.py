"""fastws in servers and clients that people already run: one module for each host.

    import fastws.integrations.websockets

    fastws.integrations.websockets.install()

This package knows how to patch a host and how to undo that, and its table `_hosts` lists the hosts.
The modules in it know one host each: a module imports its host, and is imported by users only.
`import fastws` patches nothing and imports none of them.
"""

from ._install import Installation, IntegrationError, UntestedHostWarning, installed

__all__ = ["Installation", "IntegrationError", "UntestedHostWarning", "installed"]
