from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "kernels/mask.h" nogil:
    const uint64_t FASTWS_HIGH_BITS
    uint64_t fastws_mask(uint8_t* dst, const uint8_t* src, size_t n, uint32_t key)
    uint32_t fastws_rotate_key(uint32_t key, size_t offset)
    uint32_t fastws_load32(const uint8_t* p)


cdef enum:
    # From this size on, letting other threads run costs less than it gives.
    WORTH_RELEASING_THE_GIL = 65536


cdef int read_key(object key, uint32_t* value) except -1
cdef int read_key_at(object key, object offset, uint32_t* value) except -1
