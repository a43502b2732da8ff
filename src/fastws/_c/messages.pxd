from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastws._c.buffers cimport Growing
from fastws._c.frames cimport Header, Progress
from fastws._c.kernel cimport fastws_utf8
from fastws._c.spec cimport MASK_KEY_SIZE, MAX_CONTROL_PAYLOAD


cdef enum:
    # The largest control frame; no header is longer.
    MAX_TAIL = 2 + MASK_KEY_SIZE + MAX_CONTROL_PAYLOAD


cdef enum Failure:
    NO_FAILURE
    BAD_HEADER
    TOO_MANY_FRAGMENTS
    TOO_BIG
    NOT_UTF8
    NOT_DEFLATE


cdef class MessageDecoder:
    cdef readonly object error
    cdef readonly bint _only_messages
    cdef bint _decode_text
    cdef readonly Py_ssize_t _left
    # (Booleans, but smaller than bint, as there may be very many decoders.)
    cdef uint8_t stream
    cdef uint8_t more  # whether the inflater has more of the piece that it got last
    cdef uint8_t inflating
    cdef uint8_t masked
    cdef uint8_t done
    cdef uint8_t failed_inside
    cdef uint8_t in_payload
    cdef uint8_t compressed
    cdef object inflater
    cdef object turn  # a lock, if there is an inflater
    cdef Py_ssize_t step
    # How much this call may still do; where it stopped, or -1; the data that it left for the next
    # call, and where that begins.
    cdef Py_ssize_t step_left
    cdef Py_ssize_t stopped
    cdef bytes rest
    cdef Py_ssize_t rest_start
    cdef uint64_t size_limit
    cdef uint64_t compressed_limit
    cdef uint64_t fragments_limit
    # What this call found. Events and errors are created after all data was processed.
    cdef int controls
    cdef int parts  # of messages that go on
    cdef list texts  # the indices of bytes that become a Text
    cdef Failure failure
    cdef Progress progress
    cdef object inflater_error
    cdef bytes tail  # the beginning of an incomplete header or control frame, or None
    cdef readonly uint8_t _opcode  # of the message that the frame belongs to; 0 if there is none
    cdef uint8_t is_ascii  # whether what has arrived of it is
    # The data frame whose payload is arriving.
    cdef Header header
    cdef uint64_t remaining
    # The message that the frame belongs to.
    cdef uint64_t size
    cdef uint64_t fragments
    cdef Growing buffer  # a str for text
    cdef fastws_utf8 utf8
    # Counts since the beginning: see `_counts`.
    cdef uint64_t bytes_seen
    cdef uint64_t payload_seen
    cdef uint64_t messages_seen
    cdef uint64_t fragments_seen
    cdef uint32_t pings_seen
    cdef uint32_t pongs_seen

    cdef list _feed(self, object data)
    cdef list _feed_from(self, bytearray storage, Py_ssize_t size)
    cdef list _feed_left(self, bytearray storage, Py_ssize_t size)
    cdef bint _has_rest(self)
    cdef list feed_octets(self, const uint8_t* data, Py_ssize_t size, Py_ssize_t* left)
    cdef list feed_in_turn(self, const uint8_t* data, Py_ssize_t size, Py_ssize_t* left)
    cdef int make_controls(self, list events) except -1
    cdef object make_error(self, Failure failure)
    cdef int decode_rest(self, const uint8_t* data, Py_ssize_t size, list events) except -1
    cdef int decode(
        self, const uint8_t* data, Py_ssize_t size, list events, Py_ssize_t* left
    ) except -1
    cdef Py_ssize_t begin_frame(self, const uint8_t* p, Py_ssize_t n, list events) except -2
    cdef int take_control(self, const uint8_t* p, Py_ssize_t n, list events) except -1
    cdef Py_ssize_t take_payload(self, const uint8_t* p, Py_ssize_t n, list events) except -1
    cdef bint add(self, uint8_t* target, const uint8_t* p, Py_ssize_t n, uint32_t key) noexcept
    cdef int append_whole(
        self, const uint8_t* p, Py_ssize_t n, uint32_t key, int opcode, list events
    ) except -1
    cdef object held_text(self, bytes data, list events)
    cdef int take_compressed(
        self, const uint8_t* p, Py_ssize_t n, bint last, list events
    ) except -1
    cdef int pass_on(self, list events) except -1
    cdef void fail(self, Failure failure) noexcept
    cdef void reset_message(self) noexcept
    cdef void finish(self) noexcept


cdef class MessageEncoder:
    cdef int in_message  # 0 or 1, or CHECKED
    cdef fastws_utf8 utf8  # of what is CHECKED
    cdef Growing buffer  # the next buffer
    cdef list buffers  # complete ones, of bytes or Payload; None if there are none
    cdef Py_ssize_t size  # of all complete buffers
    # Counts since the beginning: see `_counts`.
    cdef uint64_t bytes_taken
    cdef uint64_t payload_made
    cdef uint64_t messages_made
    cdef uint64_t others_made
    cdef uint32_t pings_made
    cdef uint32_t pongs_made

    cdef list _take_all(self)
    cdef bytes _take_only(self)
    cdef bytes _join(self, list buffers)
    cdef Py_ssize_t _whole_frame(self, bytes frame) except -1
    cdef Py_ssize_t _whole_text(self, object message, object key) except -1
    cdef Py_ssize_t _whole_binary(self, object message, object key) except -1
    cdef Py_ssize_t _whole_utf8(self, object message, object key) except -1
    cdef Py_ssize_t append_large(
        self, int first, object source, const uint8_t* data, Py_ssize_t size, object key
    ) except -1
    cdef Py_ssize_t append(
        self, int first, const uint8_t* payload, Py_ssize_t size, object key,
        const uint8_t* plain_key,
    ) except -1
    cdef Py_ssize_t append_text(self, int opcode, object text, object key, bint fin) except -1
    cdef Py_ssize_t append_checked(self, int opcode, object data, object key, bint fin) except -1
    cdef Py_ssize_t append_bytes(self, int first, object payload, object key) except -1
    cdef int check_turn(self, int first) except -1
