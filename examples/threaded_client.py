"""A client with blocking sockets: it sends a message, prints the first answer, and closes.

    python examples/threaded_client.py ws://localhost:8080 "Hello Server!"

For wss://, wrap the socket with `ssl.create_default_context().wrap_socket`.
"""

import socket
import sys
from contextlib import suppress
from threading import Thread

from fastws import HalfClose, Opened, Read, Session, Write


def talk(uri, message):
    session = Session.client(uri)
    with socket.create_connection((session.uri.host, session.uri.port)) as sock:
        for event in session:
            match event:
                case Opened():
                    session.send(message)
                case str() | bytes():
                    print("Server:", event)
                    session.close()
                case Write(timeout):
                    sock.settimeout(timeout)
                    sock.sendall(session.data_to_send())
                case Read(timeout):
                    sock.settimeout(timeout)
                    with suppress(TimeoutError):
                        session.receive_data(sock.recv(65536))
                case HalfClose():
                    sock.shutdown(socket.SHUT_WR)


Thread(target=talk, args=sys.argv[1:]).start()
