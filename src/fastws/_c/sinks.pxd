"""The C types of `fastws.aio.sinks`, which is also the source of `fastws._c.sinks`."""

cdef object _OPEN
cdef object _CLOSING


# (`take` is a C method for C code, as it is called after each read.)
cdef class Sink:
    cdef public list messages
    cdef public object waiter

    cpdef take(self, object endpoint, list events, bint only_messages)


cdef class Hooks(Sink):
    cdef Py_ssize_t _hand_over(
        self, object endpoint, list events, Py_ssize_t position
    ) except -1


cdef class Queue(Sink):
    cdef Py_ssize_t _arrived
    cdef bint _discarding
    cdef readonly bint is_held
