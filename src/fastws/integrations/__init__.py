"""fastws under servers and clients that people already run: one module for each host.

    import fastws.integrations.websockets

    fastws.integrations.websockets.install()

This package knows how a host is patched and set right again. It does not know any host:
that is for the modules in it, each of which imports its host and is imported by nobody.
`import fastws` patches nothing and imports none of them.
"""

from ._install import Installation, IntegrationError, UntestedHostWarning, installed

__all__ = ["Installation", "IntegrationError", "UntestedHostWarning", "installed"]
