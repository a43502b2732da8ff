# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
"""A server's inner loops, twice: with fastws.capi, and with the same objects' Python methods.

Both are compiled, and have received data in their own memory, like a server in Cython.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from fastws cimport capi

from fastws import apply_mask_inplace, is_utf8


def decode_capi(capi.MessageDecoder decoder, bytes read, int times):
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(read)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(read), count = 0
    cdef int _
    for _ in range(times):
        count += len(capi.feed(decoder, data, size))
    return count


def decode_python(decoder, bytes read, int times):
    cdef const char* data = PyBytes_AS_STRING(read)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(read), count = 0
    cdef int _
    cdef list events
    for _ in range(times):
        events = decoder.feed(PyBytes_FromStringAndSize(data, size))
        count += len(events)
    return count


def echo_capi(capi.MessageDecoder decoder, capi.MessageEncoder encoder, bytes read, int times):
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(read)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(read), count = 0
    cdef int _
    for _ in range(times):
        for event in capi.feed(decoder, data, size):
            if type(event) is str or type(event) is bytes:
                capi.append(encoder, event, NULL)
                count += 1
        capi.take(encoder)
    return count


def echo_python(decoder, encoder, bytes read, int times):
    cdef const char* data = PyBytes_AS_STRING(read)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(read), count = 0
    cdef int _
    cdef list events
    for _ in range(times):
        events = decoder.feed(PyBytes_FromStringAndSize(data, size))
        for event in events:
            if type(event) is str:
                encoder.text(event)
                count += 1
            elif type(event) is bytes:
                encoder.binary(event)
                count += 1
        encoder.take()
    return count


def connection_capi(capi.Connection connection, bytes read, int times):
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(read)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(read), count = 0
    cdef int _
    for _ in range(times):
        for event in capi.receive_data(connection, data, size):
            if type(event) is str or type(event) is bytes:
                capi.send(connection, event)
                count += 1
        capi.buffers_to_send(connection)
    return count


def connection_python(connection, bytes read, int times):
    cdef const char* data = PyBytes_AS_STRING(read)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(read), count = 0
    cdef int _
    cdef list events
    for _ in range(times):
        events = connection.receive_data(PyBytes_FromStringAndSize(data, size))
        for event in events:
            if type(event) is str or type(event) is bytes:
                connection.send(event)
                count += 1
        connection.buffers_to_send()
    return count


def mask_capi(bytearray payload, bytes key, int times):
    cdef uint8_t* data = payload
    cdef const uint8_t* octets = <const uint8_t*> PyBytes_AS_STRING(key)
    cdef size_t size = len(payload)
    cdef int _
    for _ in range(times):
        capi.mask(data, data, size, octets, 0)
    return times


def mask_python(bytearray payload, bytes key, int times):
    cdef int _
    for _ in range(times):
        apply_mask_inplace(payload, key)
    return times


def validate_capi(bytes text, int times):
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(text)
    cdef size_t size = PyBytes_GET_SIZE(text)
    cdef int _, count = 0
    for _ in range(times):
        count += capi.is_utf8(data, size)
    return count


def validate_python(bytes text, int times):
    cdef int _, count = 0
    for _ in range(times):
        count += bool(is_utf8(text))
    return count
