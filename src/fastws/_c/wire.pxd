"""The C types of `fastws.aio.wire`, which is also the source of `fastws._c.wire`."""

from libc.stdint cimport uint8_t

from fastws._c.connection cimport Connection as TheConnection
from fastws._c.sinks cimport Sink as TheSink

cdef object _OPENING
cdef object _OPEN
cdef object _CLOSING
cdef object _LOST
cdef object _LINGERING
cdef object _CLOSED
cdef object _FAST
cdef Py_ssize_t _NEVER
cdef Py_ssize_t _ANSWERING
cdef object _STATE_CLOSED
cdef Py_ssize_t _CORK_LIMIT
cdef Py_ssize_t _LARGE
cdef Py_ssize_t _BEGINNING
cdef Py_ssize_t _MANY_EVENTS


cdef class Turn:
    cdef object __weakref__
    cdef readonly Py_ssize_t number
    cdef bint _is_watched
    cdef list _waiting
    cdef Wire _left_by
    cdef bytearray _left_in
    cdef Py_ssize_t _left_size
    cdef bytearray _storage

    cdef int _watch(self, object loop) except -1
    cdef int _wait_for_end(self, Wire wire) except -1
    cdef int _decode_left(self) except -1


cdef class Wire:
    # What a message to send needs comes first: it may be sent to so many connections that none of
    # them is in the CPU's cache.
    cdef public TheConnection _connection
    cdef public object _transport
    cdef public Turn _turn
    cdef Py_ssize_t _wrote_in
    # (Booleans, but smaller than bint, as there may be very many connections.)
    cdef public uint8_t _is_corked
    cdef public uint8_t _write_paused
    cdef public uint8_t _must_yield
    cdef public uint8_t _received_since_ping
    cdef public uint8_t _reading_paused
    cdef uint8_t _mixed
    cdef public unsigned int _number
    cdef public unsigned int _read_pauses
    cdef public unsigned int _write_pauses
    cdef public double _latency
    cdef public object _phase
    cdef public TheSink _sink
    cdef public object _loop
    cdef readonly object _buffer
    cdef public object _pace
    cdef public object _pings
    cdef public object _senders

    cdef object _receive_from(self, bytearray storage, Py_ssize_t size)
    cdef object _receive_left(self, bytearray storage, Py_ssize_t size)
    cdef object _flush_soon(self, Py_ssize_t queued)
    cdef object _send_queued(self)
    cdef object _take_message(self, object decode_text)
    cdef object _write_queued(self, TheConnection connection)
    cdef object _write_one(self, bytes octets)
    cdef object _write(self, list buffers)
    cdef object _write_large(self, list buffers)
