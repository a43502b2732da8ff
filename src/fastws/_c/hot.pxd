from libc.stdint cimport uint8_t, uint64_t

from fastws._c.messages cimport MessageDecoder, MessageEncoder


cdef class HotConnection:
    cdef readonly MessageDecoder _decoder
    cdef readonly MessageEncoder _encoder
    cdef readonly object _make_key
    cdef readonly bint _plain
    cdef public object state
    cdef public object close_code
    cdef public bint only_messages

    cdef list receive(self, const uint8_t* data, Py_ssize_t size)
    cdef Py_ssize_t queue(self, object message, bint fin, object compress) except -1
    cdef list take(self)


cdef class HotEndpoint:
    cdef object buffer
    cdef bytearray storage
    cdef public HotConnection _connection
    cdef public object _loop
    cdef public object _pings
    cdef public object _transport
    cdef public bint _corked
    cdef public bint _deaf
    cdef public bint _ended
    cdef public bint _gone
    cdef public bint _heard
    cdef public bint _write_paused
    cdef public bint _wrote
    cdef public uint64_t _written
    # For coroutines.
    cdef public list _messages
    cdef public bint _held
    cdef public bint _hogging
    cdef public bint _slow
    cdef public object _waiter
    cdef public object _turns

    cdef int receive_opening(self, bytes data) except -1
    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef HotConnection sendable(self)
    cdef int sent(self, Py_ssize_t queued) except -1
    cdef int cork(self) except -1
    cdef int flush(self) except -1
    cdef int write(self, list buffers) except -1
    cdef int wake_reader(self) except -1
