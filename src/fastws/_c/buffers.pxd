"""Contiguous bytes from any object, and objects that grow while bytes arrive."""

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from fastws import errors


cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char*, Py_ssize_t) except NULL
    int resize_bytes "_PyBytes_Resize"(PyObject**, Py_ssize_t) except -1
    char* bytes_data "PyBytes_AS_STRING"(PyObject*)
    PyObject* new_str "PyUnicode_New"(Py_ssize_t, Py_UCS4) except NULL
    int resize_str "PyUnicode_Resize"(PyObject**, Py_ssize_t) except -1
    void* str_data "PyUnicode_DATA"(PyObject*)


# Any object with the buffer protocol -----------------------------------------------


cdef struct Octets:
    const uint8_t* data
    Py_ssize_t size
    bint borrowed  # from a bytes object, so there is nothing to release
    Py_buffer view


cdef inline int acquire(object source, Octets* octets) except -1:
    """Get access to the bytes of `source`. After success, the caller must call `release`."""
    if type(source) is bytes:
        octets.borrowed = True
        octets.data = <const uint8_t*> PyBytes_AS_STRING(source)
        octets.size = PyBytes_GET_SIZE(source)
        return 0
    octets.borrowed = False
    try:
        PyObject_GetBuffer(source, &octets.view, PyBUF_SIMPLE)
    except TypeError:
        raise errors.bytes_like_required(source) from None
    except (BufferError, ValueError):
        # It is not contiguous (for which NumPy raises ValueError). The view keeps the copy alive.
        PyObject_GetBuffer(bytes(memoryview(source)), &octets.view, PyBUF_SIMPLE)
    octets.data = <const uint8_t*> octets.view.buf
    octets.size = octets.view.len
    return 0


cdef inline void release(Octets* octets) noexcept:
    if not octets.borrowed:
        PyBuffer_Release(&octets.view)


# A bytes object, or an ASCII str, that is filled piece by piece --------------------------
#
# Until it is taken, there is no other reference to it, so it may be written to and moved. Zeroed
# memory is an empty bytes object. A str may contain bytes that are not ASCII, but not when it is
# taken.
#
# The exception is an object that growing_share put there, which others refer to. Its capacity is
# 0, so that whatever is to be added finds no room, and growing_resize makes a copy.

cdef struct Growing:
    PyObject* held
    Py_ssize_t size
    Py_ssize_t capacity
    bint is_str  # may be changed while it is empty


cdef enum:
    # The most memory, in bytes, that is allocated for announced data before it arrives.
    GOOD_FAITH = 1 << 20


cdef inline uint8_t* growing_data(Growing* growing) noexcept:
    if growing.is_str:
        return <uint8_t*> str_data(growing.held)
    return <uint8_t*> bytes_data(growing.held)


cdef inline int growing_resize(Growing* growing, Py_ssize_t capacity) except -1:
    cdef Py_ssize_t size = growing.size
    cdef PyObject* held
    if growing.held == NULL:
        growing.held = new_str(capacity, 127) if growing.is_str else new_bytes(NULL, capacity)
    elif growing.capacity < growing.size:
        held = growing.held
        growing.held = new_bytes(NULL, capacity)
        memcpy(bytes_data(growing.held), bytes_data(held), growing.size)
        Py_DECREF(<object> held)
    else:
        # After an error, the object is gone or useless.
        growing.size = growing.capacity = 0
        if growing.is_str:
            resize_str(&growing.held, capacity)
        else:
            resize_bytes(&growing.held, capacity)
        growing.size = size
    growing.capacity = capacity
    return 0


cdef inline uint8_t* growing_extend(
    Growing* growing, Py_ssize_t extra, uint64_t announced
) except NULL:
    """Make room for `extra` bytes, the first of `announced`; return where to write them.

    The capacity grows by a factor, so that the total time is linear in the number of bytes. Room
    for announced bytes that have not arrived is limited by GOOD_FAITH.
    """
    cdef Py_ssize_t needed = growing.size + extra
    # (The first steps are larger: each of them would copy more than what it adds.)
    cdef int factor = 4 if growing.capacity < 512 else 2
    cdef Py_ssize_t capacity = max(needed, factor * growing.capacity)
    cdef uint8_t* target
    if needed > growing.capacity or growing.held == NULL:
        if announced > <uint64_t> extra:
            capacity = max(capacity, GOOD_FAITH)
            if announced < <uint64_t> (capacity - growing.size):
                # Make room for the whole frame. Grow by a quarter at least, because a message may
                # consist of many small frames.
                capacity = growing.size + <Py_ssize_t> announced
                capacity = max(capacity, growing.capacity + growing.capacity // 4)
        growing_resize(growing, capacity)
    target = growing_data(growing) + growing.size
    growing.size = needed
    return target


cdef inline void growing_share(Growing* growing, bytes whole) noexcept:
    """Begin with an immutable object that is not copied unless more follows. There must be nothing
    before it."""
    growing_clear(growing)
    Py_INCREF(whole)
    growing.held = <PyObject*> whole
    growing.size = len(whole)


cdef inline object growing_take(Growing* growing):
    """Return the object, and begin a new, empty one."""
    if not growing.size:
        growing_clear(growing)
        return "" if growing.is_str else b""
    if growing.size < growing.capacity:
        growing_resize(growing, growing.size)
    taken = <object> growing.held
    growing_clear(growing)
    return taken


cdef inline void growing_clear(Growing* growing) noexcept:
    Py_XDECREF(growing.held)
    growing.held = NULL
    growing.size = growing.capacity = 0
