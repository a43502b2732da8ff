from libc.stdint cimport uint64_t

from fastws._c.connection cimport Connection


cdef class HotEndpoint:
    cdef object buffer
    cdef bytearray storage
    cdef public Connection _connection
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
    cdef int receive(self, object data, Py_ssize_t size) except -1
    cdef Connection sendable(self)
    cdef int sent(self, Py_ssize_t queued) except -1
    cdef int cork(self) except -1
    cdef int flush(self) except -1
    cdef int write(self, list buffers) except -1
    cdef int wake_reader(self) except -1
