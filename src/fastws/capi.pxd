# cython: language_level=3
"""The codec for other Cython projects: `from fastws cimport capi`. Provisional.

This file knows which functions of the accelerated twin C code can call: they take bytes as a
pointer and a size, and return events and frames, without calling Python methods. For operations
that happen once per connection (creating a decoder, `error`, `close()`), there are no functions
here: use the Python objects, whose methods are documented in `fastws`. Their internal structure is
not declared, so that consumers do not depend on it, and need no header and no include path. If a
Python subclass overrides a method, the functions here do not call the override.

Compatibility: any minor release may change this file; CHANGELOG.md says so. If a consumer was
compiled with a different version of this file, importing it raises a TypeError or ImportError that
names the function, and it must be compiled again. For this purpose, names and signatures are
compared, and structs have a version in their signature. This module cannot be imported if the
extension is missing, or in a subinterpreter that does not support the extension. `FASTWS_IMPL` has
no effect on it.

Threads and memory: a function marked `nogil` needs no thread state, and accesses only the memory
that is passed to it. All other functions need the GIL or, on free-threaded Python, a thread state;
like methods, they enter the object's critical section themselves. Memory that is passed to a
function is read only during the call, and must not change during that time.

`data` may be NULL if `size` is 0. A negative size is not detected. A `key` is the mask key in the
order of the frame (RFC 6455 §5.3); NULL means no mask. A function raises TypeError if an object has
a different class than the one declared, or is None.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from *:
    """
    typedef PyObject fastws_MessageDecoder;
    typedef PyObject fastws_MessageEncoder;
    typedef PyObject fastws_FrameDecoder;
    typedef PyObject fastws_Connection;
    """
    # The same classes as in Python, opaque. `MessageDecoder(masked=True)` creates an object.
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
    # The base class of `fastws.Connection`, unless FASTWS_IMPL=py.
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

    # The longest header: 2 bytes, a length of 8 bytes, a mask key of 4 bytes.
    MAX_HEADER = 14


# Messages ---------------------------------------------------------------------------------------

# Like `decoder.feed(data)`: return the events that are complete now, in order: str (or Text, if the
# decoder has decode_text=False), bytes (or MessagePart instead of these, if it has stream=True),
# Ping, Pong, Close. A violation raises no exception, but sets the decoder's `error`; nothing
# follows it.
cdef list feed(MessageDecoder decoder, const uint8_t* data, Py_ssize_t size)

# Like `encoder.text` for a str or Text, and `encoder.binary` for a bytes-like object: append a
# complete message. Return the size of the encoder's buffer. This raises the same exceptions:
# TypeError, ValueError for lone surrogates, StateError if a fragmented message is not finished.
cdef Py_ssize_t append(MessageEncoder encoder, object message, const uint8_t* key) except -1

# Like `encoder.frame`: append one frame with this first byte (`FIN | TEXT`, …). The caller must
# ensure that the payload of text is UTF-8, and that the key is unpredictable (§5.3). This raises
# ValueError for a reserved opcode or an invalid control frame, and StateError for a frame that must
# not come next (§5.4).
cdef Py_ssize_t append_frame(
    MessageEncoder encoder, uint8_t first, const uint8_t* payload, Py_ssize_t size,
    const uint8_t* key,
) except -1

# Like `len(encoder)`, `encoder.take()` and `encoder.take_buffers()`.
cdef Py_ssize_t pending(MessageEncoder encoder) except -1
cdef bytes take(MessageEncoder encoder)
cdef list take_buffers(MessageEncoder encoder)


# Connections ------------------------------------------------------------------------------------

# Like `connection.receive_data(data)`, which answers pings and a close frame. While
# `connection.has_pending` is true, call `receive_data(connection, NULL, 0)`.
cdef list receive_data(Connection connection, const uint8_t* data, Py_ssize_t size)

# Like `connection.send(message)`, which creates a mask key if one is needed, and
# `connection.buffers_to_send()`.
cdef Py_ssize_t send(Connection connection, object message) except -1
cdef list buffers_to_send(Connection connection)


# Frames -----------------------------------------------------------------------------------------

# Like `decoder.feed(data)`: return the frames that are complete now.
cdef list feed_frames(FrameDecoder decoder, const uint8_t* data, Py_ssize_t size)

cdef struct FrameHeader "fastws_frame_header_1":
    uint64_t length  # of the payload
    uint8_t key[4]  # zeros if there is none, so that unmasking changes nothing
    uint8_t first  # FIN, RSV1-3 and the opcode
    bint masked

# Read as much of a frame's header as has arrived; fail at the first bad byte.
#
# `masked` is 1 if the peer must mask (it is a client), 0 if it must not, -1 if it may do either.
# `rsv` contains the RSV bits that were negotiated. Return the header's size; 0 if it is incomplete;
# or -1 if it breaks a rule of §5.2 or §5.5, which `header_error` describes. The caller must check
# whether the length is acceptable and whether the frame may come next (§5.4).
cdef int read_header(
    const uint8_t* data, Py_ssize_t size, int rsv, int masked, FrameHeader* header
) noexcept nogil

# Return the ProtocolError for a header on which `read_header` failed with the same arguments; None
# if it did not fail.
cdef object header_error(const uint8_t* data, Py_ssize_t size, int rsv, int masked)

# Write a frame's header, including the mask key if there is one, and return its size. The target
# must have room for MAX_HEADER bytes.
cdef int write_header(
    uint8_t* target, uint8_t first, uint64_t length, const uint8_t* key
) noexcept nogil


# Payloads -----------------------------------------------------------------------------------------

# Mask or unmask (§5.3) the bytes of a payload from `offset` on. The target may be the source, but
# must not overlap it otherwise.
cdef void mask(
    uint8_t* target, const uint8_t* source, size_t size, const uint8_t* key, uint64_t offset
) noexcept nogil

# Return whether the data is complete, valid UTF-8 (RFC 3629).
cdef bint is_utf8(const uint8_t* data, size_t size) noexcept nogil

# Validate UTF-8 that arrives in pieces. `state` must be 0 at the beginning, and is 0 at the end if
# the last character is complete. Return false at the first byte that cannot follow; then the state
# must not be used any more.
cdef bint feed_utf8(uint32_t* state, const uint8_t* data, size_t size) noexcept nogil

# Unmask, validate and decode UTF-8 in one call. This may raise UnicodeDecodeError.
cdef str decode_utf8(const uint8_t* data, Py_ssize_t size, const uint8_t* key)
