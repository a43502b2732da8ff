"""A client with blocking sockets: it sends a message, prints the answer, and closes.

    python examples/threaded_client.py ws://localhost:8080 "Hello Server!"

Without a message, it sends back whatever the server sends, as `fastws probe --client` wants it.
`talk` may be called in any thread. For wss://, wrap the socket with
`ssl.create_default_context().wrap_socket`.
"""

import signal
import socket
import sys
from contextlib import suppress

from fastws import Opened, Read, Session, Write


def talk(uri, message=None):
    session = Session.client(uri, deflate=True, half_close=False)
    with socket.create_connection((session.uri.host, session.uri.port)) as sock:
        for event in session:
            match event:
                case Opened() if message:
                    session.send(message)
                case str() | bytes():
                    print("Server:", event)
                    session.close() if message else session.send(event)
                case Write(timeout):
                    sock.settimeout(timeout)
                    sock.sendall(session.data_to_send())
                case Read(timeout):
                    sock.settimeout(timeout)
                    with suppress(TimeoutError):
                        session.receive_data(sock.recv(65536))
    return session.error


signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C ends the program at once
sys.exit(talk(*sys.argv[1:]))
