# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
# cython: autotestdict=False, subinterpreters_compatible=no
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The codec for other Cython projects: see capi.pxd. This module is of no use in Python."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.string cimport memcpy, memset

from fastws._c.buffers cimport Octets, acquire, release
from fastws._c.connection cimport Connection as TheConnection
from fastws._c.frames cimport (
    BAD_FIRST_BYTE, HEADER, LENGTH, NOTHING, FrameDecoder as TheFrameDecoder,
    Header, Progress, good_first_bytes, header_error as error_of_header, header_size,
    read_opcode, scan_header, write_header as write_the_header,
)
from fastws._c.kernel cimport (
    fastws_load32, fastws_rotate_key, fastws_utf8, mask_octets, utf8_feed,
)
from fastws._c.messages cimport (
    MessageDecoder as TheMessageDecoder, MessageEncoder as TheMessageEncoder,
)
from fastws._c.spec cimport MASK, OPCODE_BITS, RSV_BITS
from fastws._c.utf8 cimport decode

from fastws.events import Text

from fastws import errors  # no-cython-lint: buffers.pxd needs it

# Tables of the valid first bytes, for each set of RSV bits that may be 1.
cdef uint8_t[8][256] good


cdef int make_tables() except -1:
    cdef int rsv
    cdef bytes table
    for rsv in range(8):
        table = good_first_bytes(rsv << 4, None)
        memcpy(&good[rsv][0], PyBytes_AS_STRING(table), 256)
    return 0


make_tables()


cdef object missing(str name):
    return TypeError(f"{name} must not be None")


# Messages ---------------------------------------------------------------------------------


cdef list feed(MessageDecoder decoder, const uint8_t* data, Py_ssize_t size):
    if decoder is None:
        raise missing("decoder")
    return (<TheMessageDecoder> <object> decoder).feed_octets(data, size, NULL)


cdef Py_ssize_t append(MessageEncoder encoder, object message, const uint8_t* key) except -1:
    cdef TheMessageEncoder the_encoder = <TheMessageEncoder> <object> encoder
    cdef Octets octets
    cdef bint is_str = isinstance(message, str)
    cdef uint8_t first = FIN | (TEXT if is_str else BINARY)
    if encoder is None:
        raise missing("encoder")
    if isinstance(message, Text):
        first = FIN | TEXT
        message = message.data
    if key is NULL:
        if is_str:
            return the_encoder.append_text(TEXT, message, None, True)
        return the_encoder.append_bytes(first, message, None)
    payload = PyUnicode_AsUTF8String(message) if is_str else message
    acquire(payload, &octets)
    try:
        return the_encoder.append(first, octets.data, octets.size, None, key)
    finally:
        release(&octets)


cdef Py_ssize_t append_frame(
    MessageEncoder encoder, uint8_t first, const uint8_t* payload, Py_ssize_t size,
    const uint8_t* key,
) except -1:
    if encoder is None:
        raise missing("encoder")
    read_opcode(first & OPCODE_BITS)
    return (<TheMessageEncoder> <object> encoder).append(first, payload, size, None, key)


cdef Py_ssize_t pending(MessageEncoder encoder) except -1:
    if encoder is None:
        raise missing("encoder")
    return len(<TheMessageEncoder> <object> encoder)


cdef bytes take(MessageEncoder encoder):
    if encoder is None:
        raise missing("encoder")
    return (<TheMessageEncoder> <object> encoder).take()


cdef list take_buffers(MessageEncoder encoder):
    if encoder is None:
        raise missing("encoder")
    return (<TheMessageEncoder> <object> encoder).take_buffers()


# Connections ------------------------------------------------------------------------------


cdef list receive_data(Connection connection, const uint8_t* data, Py_ssize_t size):
    cdef TheConnection the_connection = <TheConnection> <object> connection
    if connection is None:
        raise missing("connection")
    with cython.critical_section(connection):
        try:
            events = the_connection._decoder.feed_octets(data, size, NULL)
        except BaseException:
            the_connection._react([])
            raise
        return the_connection._react(events)


cdef Py_ssize_t send(Connection connection, object message) except -1:
    if connection is None:
        raise missing("connection")
    with cython.critical_section(connection):
        return (<TheConnection> <object> connection)._queue(message, True, None)


cdef list buffers_to_send(Connection connection):
    if connection is None:
        raise missing("connection")
    return (<TheConnection> <object> connection).buffers_to_send()


# Frames -----------------------------------------------------------------------------------


cdef list feed_frames(FrameDecoder decoder, const uint8_t* data, Py_ssize_t size):
    if decoder is None:
        raise missing("decoder")
    return (<TheFrameDecoder> <object> decoder).feed_octets(data, size)


cdef int read_header(
    const uint8_t* data, Py_ssize_t size, int rsv, int masked, FrameHeader* header
) noexcept nogil:
    cdef Header read
    cdef Progress progress
    progress = scan_header(data, size, good[(rsv & RSV_BITS) >> 4], masked, &read)
    if progress == NOTHING or progress == LENGTH:
        return 0
    if progress != HEADER:
        return -1
    header.length = read.length
    memcpy(header.key, &read.key, 4)
    header.first = read.first
    header.masked = read.second & MASK != 0
    return read.size


cdef object header_error(const uint8_t* data, Py_ssize_t size, int rsv, int masked):
    cdef Header header
    cdef Progress progress
    memset(&header, 0, sizeof(header))
    rsv &= RSV_BITS
    progress = scan_header(data, size, good[rsv >> 4], masked, &header)
    if progress < BAD_FIRST_BYTE:
        return None
    return error_of_header(progress, &header, rsv, None, masked)


cdef int write_header(
    uint8_t* target, uint8_t first, uint64_t length, const uint8_t* key
) noexcept nogil:
    cdef int size = header_size(length, key is not NULL)
    write_the_header(target, first, length, key is not NULL)
    if key is not NULL:
        memcpy(target + size - 4, key, 4)
    return size


# Payloads ---------------------------------------------------------------------------------


cdef void mask(
    uint8_t* target, const uint8_t* source, size_t size, const uint8_t* key, uint64_t offset
) noexcept nogil:
    if size:
        mask_octets(target, source, size, fastws_rotate_key(fastws_load32(key), offset & 3))


cdef bint is_utf8(const uint8_t* data, size_t size) noexcept nogil:
    cdef uint32_t state = 0
    return feed_utf8(&state, data, size) and not state


cdef bint feed_utf8(uint32_t* state, const uint8_t* data, size_t size) noexcept nogil:
    cdef fastws_utf8 utf8
    memcpy(&utf8, state, sizeof(utf8))
    if not utf8_feed(&utf8, data, size):
        return False
    state[0] = 0
    if utf8.needed:
        memcpy(state, &utf8, sizeof(utf8))
    return True


cdef str decode_utf8(const uint8_t* data, Py_ssize_t size, const uint8_t* key):
    return decode(data, size, 0 if key is NULL else fastws_load32(key))
