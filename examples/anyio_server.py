"""An echo server on anyio: `pip install anyio`, then `python examples/anyio_server.py`.

It also works over TLS, with an `anyio.streams.tls.TLSListener` around the listener. Give that
`standard_compatible=False`: otherwise closing waits for the client without a timeout.
"""

import signal
from contextlib import suppress

import anyio
from anyio.abc import SocketStream

from fastws import HalfClose, Read, Session, Write


async def serve_client(stream):
    session = Session.server(deflate=True, half_close=isinstance(stream, SocketStream))
    async with stream:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, TimeoutError):
            for event in session:
                match event:
                    case str() | bytes():
                        session.send(event)
                    case Write(timeout):
                        with anyio.fail_after(timeout):
                            await stream.send(session.data_to_send())
                    case Read(timeout):
                        with anyio.move_on_after(timeout):
                            session.receive_data(await stream.receive())
                    case HalfClose():
                        await stream.send_eof()


async def main():
    await (await anyio.create_tcp_listener(local_port=8080)).serve(serve_client)


signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C ends the program at once
anyio.run(main)
