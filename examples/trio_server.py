"""An echo server on trio: `pip install trio`, then `python examples/trio_server.py`.

It also works over TLS: with `trio.serve_ssl_over_tcp` instead of `trio.serve_tcp`.
"""

import signal
from contextlib import suppress

import trio

from fastws import HalfClose, Read, Session, Write


async def serve_client(stream):
    session = Session.server(deflate=True, half_close=hasattr(stream, "send_eof"))
    with suppress(trio.BrokenResourceError, trio.TooSlowError):
        for event in session:
            match event:
                case str() | bytes():
                    session.send(event)
                case Write(timeout):
                    with trio.fail_after(timeout):
                        await stream.send_all(session.data_to_send())
                case Read(timeout):
                    with trio.move_on_after(timeout):
                        session.receive_data(await stream.receive_some(65536))
                case HalfClose():
                    await stream.send_eof()


signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C ends the program at once
trio.run(trio.serve_tcp, serve_client, 8080)
