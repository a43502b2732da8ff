from libc.stdint cimport uint8_t, uint32_t

from fastws._c.kernel cimport fastws_utf8


cpdef object valid_text(bytes data)
cdef object decode(const uint8_t* data, Py_ssize_t size, uint32_t key)
cdef bint unmask(uint8_t* target, const uint8_t* data, Py_ssize_t size, uint32_t key) noexcept
cdef object transcode(const uint8_t* p, Py_ssize_t size)


cdef class Utf8Validator:
    cdef fastws_utf8 state
    cdef bint valid
