# cython: language_level=3, freethreading_compatible=True
"""Calls all of fastws.capi as a project in Cython would, and lets tests/test_capi.py look on."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fastws cimport capi
from fastws.capi cimport FIN, RSV1, TEXT, FrameHeader, MessageDecoder


cdef inline const uint8_t* octets(bytes data) noexcept:
    return NULL if data is None else <const uint8_t*> PyBytes_AS_STRING(data)


cdef inline Py_ssize_t size_of(bytes data) noexcept:
    return 0 if data is None else PyBytes_GET_SIZE(data)


def feed(MessageDecoder decoder, bytes data):
    # From memory that is gone afterwards: nothing may point into it.
    cdef Py_ssize_t size = size_of(data)
    cdef uint8_t* copy
    if not size:
        return capi.feed(decoder, NULL, 0)
    copy = <uint8_t*> malloc(size)
    memcpy(copy, octets(data), size)
    try:
        return capi.feed(decoder, copy, size)
    finally:
        memcpy(copy, copy + size // 2, size // 2)
        free(copy)


def new_decoder():
    cdef capi.MessageDecoder decoder = capi.MessageDecoder(masked=True, max_message_size=1000)
    return decoder


def feed_frames(capi.FrameDecoder decoder, bytes data):
    return capi.feed_frames(decoder, octets(data), size_of(data))


def append(capi.MessageEncoder encoder, message, bytes key=None):
    return capi.append(encoder, message, octets(key))


def append_frame(capi.MessageEncoder encoder, int first, bytes payload=None, bytes key=None):
    return capi.append_frame(encoder, first, octets(payload), size_of(payload), octets(key))


def pending(capi.MessageEncoder encoder):
    return capi.pending(encoder)


def take(capi.MessageEncoder encoder):
    return capi.take(encoder)


def take_buffers(capi.MessageEncoder encoder):
    return capi.take_buffers(encoder)


def receive_data(capi.Connection connection, bytes data):
    return capi.receive_data(connection, octets(data), size_of(data))


def send(capi.Connection connection, message):
    return capi.send(connection, message)


def buffers_to_send(capi.Connection connection):
    return capi.buffers_to_send(connection)


def read_header(bytes data, int rsv=0, int masked=-1):
    """Return its size, and either its fields or the error."""
    cdef FrameHeader header
    cdef const uint8_t* p = octets(data)
    cdef Py_ssize_t size = size_of(data)
    cdef int result
    with nogil:
        result = capi.read_header(p, size, rsv, masked, &header)
    error = capi.header_error(p, size, rsv, masked)
    if result > 0:
        assert error is None
        return result, header.first, header.length, bool(header.masked), header.key[:4]
    return result, error


def write_header(int first, unsigned long long length, bytes key=None):
    cdef uint8_t[capi.MAX_HEADER] target
    cdef const uint8_t* p = octets(key)
    cdef int size
    with nogil:
        size = capi.write_header(target, first, length, p)
    return target[:size]


def header_layout():
    cdef FrameHeader header
    cdef char* start = <char*> &header
    return (
        sizeof(header),
        <char*> &header.length - start,
        <char*> &header.key - start,
        <char*> &header.first - start,
        <char*> &header.masked - start,
    )


def mask(bytearray buffer, bytes key, offset=0):
    cdef uint8_t* p = buffer
    cdef const uint8_t* k = octets(key)
    cdef size_t size = len(buffer)
    cdef unsigned long long start = offset
    with nogil:
        capi.mask(p, p, size, k, start)


def is_utf8(bytes data):
    return bool(capi.is_utf8(octets(data), size_of(data)))


def feed_utf8(list pieces):
    """Return whether each may follow, and whether the end is whole."""
    cdef uint32_t state = 0
    for piece in pieces:
        if not capi.feed_utf8(&state, octets(piece), size_of(piece)):
            return False, None
    return True, state == 0


def decode_utf8(bytes data, bytes key=None):
    return capi.decode_utf8(octets(data), size_of(data), octets(key))


def constants():
    return [
        capi.FIN, capi.RSV1, capi.RSV2, capi.RSV3, capi.CONTINUATION, capi.TEXT, capi.BINARY,
        capi.CLOSE, capi.PING, capi.PONG, FIN | RSV1 | TEXT,
    ]
