"""The C types of `fastws._py.connection`, which is also the source of `fastws._c.connection`."""

from libc.stdint cimport uint8_t

from fastws._c.messages cimport MessageDecoder, MessageEncoder

cdef object _OPEN
cdef Py_ssize_t _TELLING
cdef Py_ssize_t _TOO_LARGE_TO_SHARE


cdef class Connection:
    # As in `Wire`, what a message to send needs comes first.
    cdef readonly object state
    cdef readonly MessageEncoder _encoder
    cdef object _make_key
    cdef readonly object close_code
    # (Booleans, but smaller than bint, as there may be very many connections.)
    cdef uint8_t _plain
    cdef uint8_t _only_messages
    cdef uint8_t _compressing
    cdef uint8_t _pongs_held
    cdef readonly bint decode_text
    cdef readonly MessageDecoder _decoder
    cdef readonly object role
    cdef readonly object deflate
    cdef readonly object _deflater
    cdef object _phase
    cdef readonly object _ending
    cdef object _pong_owed

    # `receive_data` for the first `size` bytes of a buffer, which must not be resized during the
    # call, `send`, and `buffers_to_send` without making bytes of payloads, for C code that is in a
    # critical section.
    cdef list _receive_from(self, bytearray storage, Py_ssize_t size)
    cdef list _receive_left(self, bytearray storage, Py_ssize_t size)
    cdef Py_ssize_t _queue(self, object message, bint fin, object compress) except -1
    cdef list _take(self)

    cdef list _react(self, list events)
    cdef int _handle_control(self, list events) except -1
    cdef Py_ssize_t _queue_frame(
        self, object message, bint fin, object compress, object key
    ) except -1
    cdef bytes _shared_frame(self, object prepared, bytes payload, bint rsv1)
    cdef bytes _compress(self, object prepared, bint shared, bint fin, object compress)
    cdef Py_ssize_t _answer_ping(self, object data) except -1
    cdef object _mask_key(self)
    cdef int _advance(self, object cause, object code, object reason, object error) except -1
