from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastws._c.buffers cimport Growing
from fastws._c.kernel cimport fastws_load32
from fastws._c.spec cimport (
    CONTROL_BIT, LENGTH_16, LENGTH_64, LENGTH_BITS, MASK, MASK_KEY_SIZE, MAX_16_BIT_LENGTH,
    MAX_CONTROL_PAYLOAD, MAX_HEADER, OPCODE_BITS, OPCODE_CLOSE,
)


# How far scan_header got.
cdef enum Progress:
    NOTHING  # the length is not known yet
    LENGTH  # the length is known, the mask key is not
    HEADER  # the header is complete
    BAD_FIRST_BYTE
    BAD_SECOND_BYTE
    LENGTH_TOP_BIT
    LENGTH_NOT_MINIMAL


cdef struct Header:
    uint8_t first
    uint8_t second
    int size  # in bytes, including the mask key
    uint32_t key  # 0 if there is none
    uint64_t length  # of the payload


cdef inline Progress scan_header(
    const uint8_t* p, Py_ssize_t n, const uint8_t* good, int masked, Header* header
) noexcept nogil:
    """Read as much of a frame header as has arrived; fail at the first bad byte.

    `good` says for each first byte whether it is valid. `masked` is 1 if the peer must mask, 0 if
    it must not, and -1 if it may do either.
    """
    cdef int i, width = 0
    cdef uint64_t length
    if n < 1:
        return NOTHING
    header.first = p[0]
    if not good[p[0]]:
        return BAD_FIRST_BYTE
    if n < 2:
        return NOTHING
    header.second = p[1]
    length = p[1] & LENGTH_BITS
    if masked >= 0 and masked != p[1] >> 7:
        return BAD_SECOND_BYTE
    if p[0] & CONTROL_BIT and (
        length > MAX_CONTROL_PAYLOAD or (length == 1 and p[0] & OPCODE_BITS == OPCODE_CLOSE)
    ):
        return BAD_SECOND_BYTE
    if length >= LENGTH_16:
        width = 2 if length == LENGTH_16 else 8
        if width == 8 and n > 2 and p[2] & 0x80:
            return LENGTH_TOP_BIT
        if n < 2 + width:
            return NOTHING
        length = 0
        for i in range(width):
            length = length << 8 | p[2 + i]
        header.length = length
        if length <= (MAX_CONTROL_PAYLOAD if width == 2 else MAX_16_BIT_LENGTH):
            return LENGTH_NOT_MINIMAL
    header.length = length
    header.size = 2 + width
    header.key = 0
    if p[1] & MASK:
        header.size += MASK_KEY_SIZE
        if n < header.size:
            return LENGTH
        header.key = fastws_load32(p + 2 + width)
    return HEADER


cdef inline int header_size(uint64_t length, bint masked) noexcept nogil:
    cdef int width = 0 if length <= MAX_CONTROL_PAYLOAD else 2 if length <= MAX_16_BIT_LENGTH else 8
    return 2 + width + MASK_KEY_SIZE * masked


cdef inline void write_header(uint8_t* p, int first, uint64_t length, bint masked) noexcept nogil:
    """Write a frame header up to the mask key; `header_size` returns its size."""
    cdef int i, width
    cdef int mask = MASK if masked else 0
    p[0] = first
    if length <= MAX_CONTROL_PAYLOAD:
        p[1] = mask | <int> length
        return
    width = 2 if length <= MAX_16_BIT_LENGTH else 8
    p[1] = mask | (LENGTH_16 if width == 2 else LENGTH_64)
    for i in range(width):
        p[1 + width - i] = <uint8_t> (length >> (8 * i))


cdef int read_opcode(object opcode) except -1
cdef int rsv_bits(bint rsv1, bint rsv2, bint rsv3) noexcept
cdef bytes good_first_bytes(int rsv, object in_message)
cdef object header_error(Progress progress, Header* header, int rsv, object in_message, int masked)


cdef class Frame:
    cdef readonly object opcode
    cdef readonly bytes payload
    cdef readonly bint fin
    cdef readonly bint rsv1
    cdef readonly bint rsv2
    cdef readonly bint rsv3


cdef class FrameDecoder:
    cdef readonly object error
    cdef object max_payload_size
    cdef uint64_t limit
    cdef bytes good
    cdef int masked
    cdef int rsv
    cdef bint done
    # The beginning of an incomplete header.
    cdef uint8_t[MAX_HEADER] head
    cdef int head_size
    # The frame whose payload is arriving.
    cdef bint in_payload
    cdef uint64_t remaining
    cdef Header header
    cdef Growing payload

    cdef list feed_octets(self, const uint8_t* data, Py_ssize_t size)
    cdef int fail(self, Progress progress) except -1
    cdef int decode(
        self, const uint8_t* data, Py_ssize_t size, list frames, Progress* progress
    ) except -1
