from libc.stdint cimport uint8_t, uint32_t


cdef extern from "kernels/utf8.h" nogil:
    ctypedef struct fastws_utf8:
        uint8_t needed
        uint8_t low
        uint8_t high
    bint fastws_utf8_feed(fastws_utf8* state, const uint8_t* p, size_t n)


cdef object decode(const uint8_t* data, Py_ssize_t size, uint32_t key)


cdef class Utf8Validator:
    cdef fastws_utf8 state
    cdef bint valid
