"""An echo server with a thread for each client: `python examples/threaded_server.py`.

For TLS, wrap the socket with `ssl.SSLContext.wrap_socket`, and pass `half_close=False`.
"""

import signal
import socket
import socketserver
from contextlib import suppress

from fastws import HalfClose, Read, Session, Write


def serve_client(sock, *_):
    session = Session.server(deflate=True)
    with suppress(OSError):
        for event in session:
            match event:
                case str() | bytes():
                    session.send(event)
                case Write(timeout):
                    sock.settimeout(timeout)
                    sock.sendall(session.data_to_send())
                case Read(timeout):
                    sock.settimeout(timeout)
                    with suppress(TimeoutError):
                        session.receive_data(sock.recv(65536))
                case HalfClose():
                    sock.shutdown(socket.SHUT_WR)


signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C ends the program at once
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("localhost", 8080), serve_client).serve_forever()
