from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "kernels/kernels.h" nogil:
    const uint64_t FASTWS_HIGH_BITS
    const size_t FASTWS_SMALL
    const size_t FASTWS_INVALID

    ctypedef struct fastws_utf8:
        uint8_t needed

    ctypedef struct fastws_kernels:
        const char* name
        size_t utf8_least
        bint (*utf8_valid)(const uint8_t* p, size_t n) nogil
        size_t (*utf8_unmask)(
            uint8_t* dst, const uint8_t* src, size_t n, uint32_t key, uint8_t* largest
        ) nogil
        size_t (*utf8_count)(const uint8_t* p, size_t n, uint8_t* largest) nogil
        void (*utf8_to_1)(const uint8_t* p, size_t n, uint8_t* out) nogil
        void (*utf8_to_2)(const uint8_t* p, size_t n, uint16_t* out) nogil
        void (*utf8_to_4)(const uint8_t* p, size_t n, uint32_t* out) nogil

    uint32_t fastws_load32(const uint8_t* p)
    uint32_t fastws_rotate_key(uint32_t key, size_t offset)
    uint64_t fastws_mask(
        const fastws_kernels* kernels, uint8_t* dst, const uint8_t* src, size_t n, uint32_t key
    )
    bint fastws_utf8_feed(
        const fastws_kernels* kernels, fastws_utf8* state, const uint8_t* p, size_t n
    )


# The kernels in use.
cdef const fastws_kernels* kernels


cdef inline uint64_t mask_octets(
    uint8_t* dst, const uint8_t* src, size_t n, uint32_t key
) noexcept nogil:
    return fastws_mask(kernels, dst, src, n, key)


cdef inline bint utf8_feed(fastws_utf8* state, const uint8_t* p, size_t n) noexcept nogil:
    return fastws_utf8_feed(kernels, state, p, n)
