from libc.stdint cimport uint32_t


cdef enum:
    # From this size on, it pays to let other threads run.
    WORTH_RELEASING_THE_GIL = 65536


cdef int read_key(object key, uint32_t* value) except -1
cdef int read_key_at(object key, object offset, uint32_t* value) except -1
