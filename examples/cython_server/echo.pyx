# cython: language_level=3, freethreading_compatible=True
"""A connection of an echo server, as a Cython class: `loop.create_server(Echo, …)`.

Messages go from `data_received` to the transport without calls of Python methods in between:
`fastws.capi` has functions that take a pointer and a size. Other things that `fastws.serve` does
are left out: keepalive, timeouts for clients that do not send or read, and closing connections
with 1001 when the server ends.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from fastws cimport capi
from libc.stdint cimport uint8_t

import asyncio

from fastws import Connection, RequestError, Role, ServerHandshake, State


cdef class Echo:
    cdef object handshake, transport
    cdef capi.Connection connection

    def connection_made(self, transport):
        self.transport = transport
        self.handshake = ServerHandshake()

    def data_received(self, bytes data):
        if self.connection is None:
            data = self.shake_hands(data)
        if self.connection is not None and self.connection.state is not State.CLOSED:
            self.answer(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def eof_received(self):
        if self.connection is not None:
            self.connection.receive_eof()

    def connection_lost(self, exc):
        self.transport = None

    # A client that does not read gets no further answers until it does.
    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()

    cdef bytes shake_hands(self, bytes data):
        """Do the opening handshake; return the bytes after it, once it is done."""
        try:
            request = self.handshake.receive_data(data)
            if request is None:
                return b""
            self.transport.write(self.handshake.accept(request))
        except RequestError as error:
            self.transport.write(self.handshake.reject(error))
            self.transport.close()
            return b""
        self.connection = Connection(Role.SERVER)
        return self.handshake.trailing_data

    cdef object answer(self, const uint8_t* data, Py_ssize_t size):
        """Answer the messages in these bytes."""
        cdef list events = capi.receive_data(self.connection, data, size)
        while True:
            for event in events:
                if isinstance(event, (str, bytes)):
                    capi.send(self.connection, event)
            self.transport.writelines(capi.buffers_to_send(self.connection))
            if not self.connection.has_pending:
                break
            events = capi.receive_data(self.connection, NULL, 0)
        if self.connection.state is State.CLOSED and self.transport.can_write_eof():
            # The client closes its side when it has read our close frame.
            self.transport.write_eof()
            asyncio.get_running_loop().call_later(10, self.transport.abort)
