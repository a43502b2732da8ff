"""The C types of `fastws.aio.sinks`, which is also the source of `fastws._c.sinks`."""

cdef object _OPEN
cdef object _CLOSING


# (No C methods: a table of them would make each queue larger.)
cdef class Sink:
    cdef public list messages
    cdef public object waiter


cdef class Hooks(Sink):
    pass


cdef class Queue(Sink):
    cdef Py_ssize_t _arrived
    cdef bint _discarding
    cdef readonly bint is_held
