# cython: language_level=3
"""The codec for other Cython projects: `from fastws cimport capi`. Provisional.

This file knows what a C caller can have of the accelerated twin: bytes in by pointer and
size, events and frames out, with no Python call between. What is called once per connection
(making a decoder, `error`, `close()`) has no function here: these are Python's own objects,
and their methods are documented in `fastws`. How they look inside is not told, so that a
consumer does not depend on it, and needs no header and no include path. What a subclass
overrides in Python is not called.

What is promised: any minor release may change this file, and says so in CHANGELOG.md. A
consumer that was compiled against another one fails when it is imported, with a TypeError or
ImportError that names the function, and has to be compiled anew: names and signatures are
compared, and structs carry their version in their signature. There is nothing here to import
where fastws runs in pure Python for want of its extension, nor in a subinterpreter that
cannot have it; `FASTWS_IMPL` makes no difference.

Who holds what: a function marked `nogil` needs no thread state and touches no memory but that
which it is given. All others need the GIL; on free-threaded Python, a thread state: they enter
the object's critical section themselves, as its methods do. Memory that is passed in is read
during the call only, and must not change meanwhile.

`data` may be NULL if `size` is 0. A negative size is an error of the caller's that is not
detected. A `key` is the four bytes as they stand in the frame (RFC 6455 §5.3), or NULL: no mask.
An `object` of another class than the one declared raises TypeError, and so does None.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from *:
    """
    typedef PyObject fastws_MessageDecoder;
    typedef PyObject fastws_MessageEncoder;
    typedef PyObject fastws_FrameDecoder;
    typedef PyObject fastws_Connection;
    """
    # The same classes as in Python, opaque: `MessageDecoder(masked=True)` makes one.
    ctypedef class fastws._c.messages.MessageDecoder [
        object fastws_MessageDecoder, check_size ignore
    ]:
        pass
    ctypedef class fastws._c.messages.MessageEncoder [
        object fastws_MessageEncoder, check_size ignore
    ]:
        pass
    ctypedef class fastws._c.frames.FrameDecoder [
        object fastws_FrameDecoder, check_size ignore
    ]:
        pass
    # What a `fastws.Connection` is, unless FASTWS_IMPL=py.
    ctypedef class fastws._c.connection.Connection [
        object fastws_Connection, check_size ignore
    ]:
        pass


# Bits of the first two bytes of a frame, and its opcodes (RFC 6455 §5.2) ----------------------

cdef enum:
    FIN = 0x80
    RSV1 = 0x40
    RSV2 = 0x20
    RSV3 = 0x10

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA

    # The longest header: 2 bytes, a length of 8, a mask key of 4.
    MAX_HEADER = 14


# Messages ---------------------------------------------------------------------------------------

# As `decoder.feed(data)`: what is complete now, in order: str, bytes, Ping, Pong, Close. After a
# violation, which is no exception, but the decoder's `error`, nothing more comes.
cdef list feed(MessageDecoder decoder, const uint8_t* data, Py_ssize_t size)

# As `encoder.text` for a str and `encoder.binary` for anything bytes-like: append a whole
# message. Returns how many bytes wait to be taken. Raises as they do (TypeError, ValueError
# for lone surrogates, StateError in a fragmented message).
cdef Py_ssize_t append(MessageEncoder encoder, object message, const uint8_t* key) except -1

# As `encoder.frame`: append one frame with this first byte (`FIN | TEXT`, …). That its payload
# is UTF-8 where it has to be is up to the caller, and that the key cannot be predicted (§5.3).
# Raises ValueError for a reserved opcode or a bad control frame, StateError for a frame out of
# turn (§5.4).
cdef Py_ssize_t append_frame(
    MessageEncoder encoder, uint8_t first, const uint8_t* payload, Py_ssize_t size,
    const uint8_t* key,
) except -1

# As `len(encoder)`, `encoder.take()` and `encoder.take_buffers()`.
cdef Py_ssize_t pending(MessageEncoder encoder) except -1
cdef bytes take(MessageEncoder encoder)
cdef list take_buffers(MessageEncoder encoder)


# Connections ------------------------------------------------------------------------------------

# As `connection.receive_data(data)`, which answers pings and a close frame. As long as
# `connection.has_pending` is true, there is more: `receive_data(connection, NULL, 0)`.
cdef list receive_data(Connection connection, const uint8_t* data, Py_ssize_t size)

# As `connection.send(message)`, which draws a mask key where one is due, and
# `connection.buffers_to_send()`.
cdef Py_ssize_t send(Connection connection, object message) except -1
cdef list buffers_to_send(Connection connection)


# Frames -----------------------------------------------------------------------------------------

# As `decoder.feed(data)`: the frames that are complete now.
cdef list feed_frames(FrameDecoder decoder, const uint8_t* data, Py_ssize_t size)

cdef struct FrameHeader "fastws_frame_header_1":
    uint64_t length  # of the payload
    uint8_t key[4]  # zeros if there is none: then unmasking changes nothing
    uint8_t first  # FIN, RSV1-3 and the opcode
    bint masked

# Read a frame's header, as far as it is there, and fail at the first byte that is bad.
#
# `masked` is 1 if the peer must mask (it is a client), 0 if it must not, -1 if it may; `rsv`
# has the RSV bits that were negotiated. Returns the header's size; 0 if it is not all there;
# -1 if it breaks a rule of §5.2 or §5.5, and `header_error` knows which. Whether the length is
# acceptable and the frame is one that may come next (§5.4) is up to the caller.
cdef int read_header(
    const uint8_t* data, Py_ssize_t size, int rsv, int masked, FrameHeader* header
) noexcept nogil

# The ProtocolError for what `read_header` refused, given the same arguments; None if it did not.
cdef object header_error(const uint8_t* data, Py_ssize_t size, int rsv, int masked)

# Write a frame's header, with the mask key if there is one, to where MAX_HEADER bytes fit;
# return its size.
cdef int write_header(
    uint8_t* target, uint8_t first, uint64_t length, const uint8_t* key
) noexcept nogil


# Payloads -----------------------------------------------------------------------------------------

# Mask or unmask (§5.3) the bytes of a payload from `offset` on, to where they are or elsewhere,
# but not to where the two overlap.
cdef void mask(
    uint8_t* target, const uint8_t* source, size_t size, const uint8_t* key, uint64_t offset
) noexcept nogil

# Whether it is UTF-8 (RFC 3629), whole.
cdef bint is_utf8(const uint8_t* data, size_t size) noexcept nogil

# The same for what comes in pieces. `state` is 0 at the beginning, and at the end if that is
# whole. Returns false at the first byte that cannot follow; the state is of no use then.
cdef bint feed_utf8(uint32_t* state, const uint8_t* data, size_t size) noexcept nogil

# Unmask, validate and decode at once. Raises UnicodeDecodeError.
cdef str decode_utf8(const uint8_t* data, Py_ssize_t size, const uint8_t* key)
