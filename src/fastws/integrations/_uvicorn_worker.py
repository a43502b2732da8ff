"""uvicorn as a gunicorn worker, with fastws for WebSockets.

This module knows which of gunicorn's settings uvicorn understands, and which of the two handles
which signal. It does not build on uvicorn's own worker, which is no longer part of uvicorn.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.sock import ssl_context  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]
from uvicorn.config import Config
from uvicorn.server import Server

from .uvicorn import WebSocketProtocol

__all__ = ["UvicornWorker"]


class UvicornWorker(Worker):  # type: ignore[misc]
    """Runs an ASGI application in uvicorn, under gunicorn.

        gunicorn -k fastws.integrations.gunicorn.UvicornWorker app:app

    Attributes:
        CONFIG_KWARGS: more arguments for `uvicorn.Config`, which a subclass may change:
            `ws_max_size`, `http`, `root_path`, …
    """

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "auto", "http": "auto"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, log in (
            ("uvicorn.error", self.log.error_log),
            ("uvicorn.access", self.log.access_log),
        ):
            logger = logging.getLogger(name)
            logger.handlers = log.handlers
            logger.setLevel(log.level)
            logger.propagate = False
        options: dict[str, Any] = {
            "app": None,
            "log_config": None,
            "ws": WebSocketProtocol,
            "timeout_keep_alive": self.cfg.keepalive,
            "timeout_notify": min(self.timeout, 1),
            "callback_notify": self.callback_notify,
            "limit_max_requests": self.max_requests,
            "forwarded_allow_ips": self.cfg.forwarded_allow_ips,
        }
        if self.cfg.backlog:
            options["backlog"] = self.cfg.backlog
        self.config = Config(**(options | self.CONFIG_KWARGS))
        self._server: Server | None = None

    def init_signals(self) -> None:
        """Leave SIGTERM and SIGINT to uvicorn, which handles them when it runs."""
        # gunicorn's handlers of other signals would end a process that uvicorn runs.
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.siginterrupt(signal.SIGUSR1, False)
        signal.signal(signal.SIGWINCH, self.handle_winch)

    def run(self) -> None:
        """Serve until told to stop."""
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self.config.load()
        if self.cfg.is_ssl:
            self.config.ssl = ssl_context(self.cfg)
        self._server = server = Server(self.config)
        # gunicorn sends SIGQUIT to stop a worker at once.
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, self._quit)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _quit(self) -> None:
        assert self._server is not None
        self._server.should_exit = self._server.force_exit = True

    async def callback_notify(self) -> None:
        """Tell gunicorn that this worker is alive, and stop if it should no longer be."""
        self.notify()
        # The reloader clears `alive`; another parent process means that the master has died.
        if not self.alive or self.ppid != os.getppid():
            assert self._server is not None
            self._server.should_exit = True
