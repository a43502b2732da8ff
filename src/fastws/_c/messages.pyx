# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
# cython: autotestdict=False, subinterpreters_compatible=no
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The accelerated twin of `fastws._py.messages`; its docstrings are copied from there."""

cimport cython
from cpython.bytearray cimport (
    PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE,
)
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE, Py_buffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastws._c.buffers cimport (
    Octets, acquire, growing_clear, growing_data, growing_extend, growing_share, growing_take,
    release,
)
from fastws._c.frames cimport (
    HEADER, LENGTH, NOTHING, Progress, good_first_bytes, header_error, header_size, read_opcode,
    rsv_bits, scan_header, write_header,
)
from fastws._c.kernel cimport (
    FASTWS_HIGH_BITS, fastws_load32, fastws_rotate_key, mask_octets, utf8_feed,
)
from fastws._c.masking cimport read_key
from fastws._c.spec cimport (
    CONTROL_BIT, FIN, LENGTH_16, MASK, MAX_16_BIT_LENGTH, OPCODE_BINARY, OPCODE_BITS, OPCODE_CLOSE,
    OPCODE_CONTINUATION, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, RSV1,
)
from fastws._c.utf8 cimport decode as decode_whole, transcode, unmask, valid_text

from threading import RLock

from fastws import errors, rules
from fastws.events import Ping, Pong, Text
from fastws.exceptions import ProtocolError
from fastws.rules import as_bytes, close_payload, max_compressed
from fastws.spec import DEFAULT_MAX_FRAGMENTS, DEFAULT_MAX_MESSAGE_SIZE
from fastws.spec import CONTROL_COST as _CONTROL_COST
from fastws.spec import INFLATE_BYTE_COST as _BYTE_COST
from fastws.spec import INFLATE_PART as _PART
from fastws.spec import INFLATE_PIECE as _PIECE
from fastws.spec import INFLATE_PIECE_COST as _PIECE_COST

cdef Py_ssize_t CONTROL_COST = _CONTROL_COST
cdef Py_ssize_t BYTE_COST = _BYTE_COST
cdef Py_ssize_t PIECE = _PIECE
cdef Py_ssize_t PIECE_COST = _PIECE_COST
cdef Py_ssize_t PART = _PART

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)
    void* PyUnicode_DATA(object)
    Py_ssize_t PY_SSIZE_T_MAX

__all__ = ["MessageDecoder", "MessageEncoder"]

cdef enum:
    # From this size on, in bytes, a payload is not copied behind the data before it.
    NOT_COPIED = 65536
    # A multiple of a mask key's size.
    SLICE = 16384
    # A larger payload is masked in pieces of this size, a multiple of a mask key's size, while it
    # is written. They fit into the CPU's cache, and into what malloc() does not map.
    MASKED_PIECE = 114688
    # Stands for the opcode of an incomplete close frame.
    CLOSE_BEGUN = 0xFF
    # The first byte of an unfragmented message.
    WHOLE_TEXT = FIN | OPCODE_TEXT
    WHOLE_BINARY = FIN | OPCODE_BINARY
    # In place of True: the message that is not finished is checked to be UTF-8.
    CHECKED = 2

# Tables of the valid first bytes, outside and inside a fragmented message.
cdef bytes GOOD_OUTSIDE = good_first_bytes(0, False)
cdef bytes GOOD_INSIDE = good_first_bytes(0, True)
# The same if RSV1 means that a message is compressed.
cdef bytes GOOD_OUTSIDE_RSV1 = good_first_bytes(RSV1, False)


cdef class MessageDecoder:
    """MessageDecoder(
        *,
        masked,
        max_message_size=DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments=DEFAULT_MAX_FRAGMENTS,
        inflater=None,
        step=None,
        decode_text=True,
        stream=False,
        max_stream_size=None,
    )\n--\n
    Decodes messages, pings, pongs and the close frame from a stream of bytes.

    Args:
        masked: whether the peer must mask: True on a server, False on a client.
        max_message_size: the maximum size of a message, in bytes; None for no limit.
        max_fragments: the maximum number of frames in a message, including empty ones; None
            for no limit.
        inflater: decompresses the messages that the peer sends with RSV1 set (RFC 7692 §6).
            Without an inflater, the bit is a violation. With one, `max_message_size` limits
            the inflated message, and `rules.max_compressed` limits each of its frames.
        step: about how many bytes one call of `feed` inflates before it stops (see
            `has_pending`); a control frame counts as 256 bytes. None for no limit. Use a step
            because a few bytes can inflate to a thousand times as many, and one read from a
            socket can contain many messages.
        decode_text: whether to decode text messages to `str`. If not, each is a `Text`, which
            has its UTF-8 as bytes. It is validated in either case.
        stream: whether to return messages in parts, as they arrive. Then each message becomes one
            or more `MessagePart` events, and needs no memory once these are processed: a part is
            about as large as what one call of `feed` received, or inflated in a step. Text is cut
            between characters. `max_message_size` and `max_fragments` do not apply. The inflater
            must have the method `inflate_part`, as `fastws.deflate.PartInflater` has.
        max_stream_size: the maximum size of a message that is returned in parts, in bytes; None
            for no limit.

    Attributes:
        error: the peer's violation of the protocol, or None. A decoder decodes nothing more
            after an error, after a close frame, or if its inflater raised.
        has_pending: whether the last `feed` stopped at `step`, before the end of its data.
            `feed(b"")` continues with the rest; data of later calls comes after it.

    Raises:
        TypeError: if a limit is not an int, or the inflater cannot inflate in parts.
        ValueError: if `max_message_size` or `max_stream_size` is negative, `max_fragments` or
            `step` is less than 1, or there is a `max_stream_size` without `stream`.
    """

    def __init__(
        self,
        *,
        masked,
        max_message_size=DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments=DEFAULT_MAX_FRAGMENTS,
        inflater=None,
        step=None,
        decode_text=True,
        stream=False,
        max_stream_size=None,
    ):
        stream = bool(stream)
        max_message_size, max_fragments = rules.check_limits(
            max_message_size, max_fragments, stream, max_stream_size, inflater
        )
        step = rules.check_limit("step", step, 1)
        with cython.critical_section(self):
            self._only_messages = True
            self._decode_text = decode_text
            self.stream = stream
            self.inflater = inflater
            self.turn = None if inflater is None else RLock()
            self.step = (
                PY_SSIZE_T_MAX if step is None else min(step, PY_SSIZE_T_MAX)
            )
            self.masked = True if masked else False
            self.size_limit = (
                UINT64_MAX if max_message_size is None else min(max_message_size, UINT64_MAX)
            )
            self.compressed_limit = (
                UINT64_MAX if max_message_size is None
                else min(max_compressed(max_message_size), UINT64_MAX)
            )
            self.fragments_limit = (
                UINT64_MAX if max_fragments is None else min(max_fragments, UINT64_MAX)
            )

    def __dealloc__(self):
        growing_clear(&self.buffer)

    def feed(self, data):
        """Decode the data that the socket delivered.

        Args:
            data: any number of bytes; messages may be split anywhere.

        Returns:
            the events that are now complete: a `str` for a text message (a `Text` if
            `decode_text` is false), `bytes` for a binary one, or `MessagePart` instead of them;
            `Ping`, `Pong`, `Close`. Events before a violation are included; check `error` after
            the call. Nothing follows a `Close` or an error.

        Raises:
            TypeError: if `data` is not bytes-like.
            StateError: if the inflater calls this method.

        After any other exception, from the inflater or because memory ran out, the decoder
        decodes nothing more, and its `error` is an InternalError.
        """
        return self._feed(data)

    @property
    @cython.critical_section
    def has_pending(self):
        """Whether the last `feed` stopped before the end of its data; see the class."""
        return self._has_rest()

    cdef list _feed(self, object data):
        cdef Octets octets
        acquire(data, &octets)
        try:
            return self.feed_octets(octets.data, octets.size, NULL)
        finally:
            release(&octets)

    cdef list _feed_from(self, bytearray storage, Py_ssize_t size):
        if storage is None:
            raise errors.bytes_like_required(storage)
        size = max(0, min(size, PyByteArray_GET_SIZE(storage)))
        self._left = 0
        return self.feed_octets(
            <const uint8_t*> PyByteArray_AS_STRING(storage), size,
            NULL if self.stream else &self._left,
        )

    cdef list _feed_left(self, bytearray storage, Py_ssize_t size):
        cdef Py_ssize_t left
        if storage is None:
            raise errors.bytes_like_required(storage)
        size = max(0, min(size, PyByteArray_GET_SIZE(storage)))
        left = min(self._left, size)
        self._left = 0
        return self.feed_octets(
            <const uint8_t*> PyByteArray_AS_STRING(storage) + size - left, left, NULL
        )

    cdef bint _has_rest(self):
        return self.rest is not None

    @cython.critical_section
    def _counts(self):
        """Return what was decoded so far: complete messages, complete frames, bytes, bytes of the
        messages' payloads, pings, pongs.
        """
        cdef uint64_t closes = 1 if self.done and self.error is None else 0
        cdef uint64_t frames = self.messages_seen + self.fragments_seen + closes
        return (
            self.messages_seen, frames + self.pings_seen + self.pongs_seen,
            self.bytes_seen, self.payload_seen, self.pings_seen, self.pongs_seen,
        )

    def __reduce__(self):
        raise errors.not_copyable(self)

    # A call must have the decoder for itself until it has processed its data. Whenever Python
    # code runs, other threads may run too, with or without a GIL. So no Python code runs until
    # then, except an inflater. If there is an inflater, a lock makes the calls take turns.

    cdef list feed_octets(self, const uint8_t* data, Py_ssize_t size, Py_ssize_t* left):
        """Decode data. If `left` is not NULL, the last `left` bytes may be left for another call;
        they belong to one frame, which is incomplete."""
        if self.turn is None:
            return self.feed_in_turn(data, size, left)
        with self.turn:
            if self.inflating:
                raise errors.being_fed()
            return self.feed_in_turn(data, size, left)

    cdef list feed_in_turn(self, const uint8_t* data, Py_ssize_t size, Py_ssize_t* left):
        cdef list events = [], texts = None
        cdef Failure failure
        cdef int controls
        try:
            with cython.critical_section(self):
                self.failure = NO_FAILURE
                self.controls = self.parts = 0
                if not self._decode_text:
                    # Before the state is read, as this may run the garbage collector.
                    texts = self.texts = []
                self._only_messages = not self.done
                if not self.done:
                    self.bytes_seen += size
                    self.step_left = self.step
                    if self.rest is None:
                        self.decode(data, size, events, left)
                        if self.stopped >= 0:
                            self.rest = data[self.stopped:size]
                            self.rest_start = 0
                    else:
                        self.decode_rest(data, size, events)
                    self.messages_seen += len(events) - self.controls - 2 * self.parts
                if texts is not None:
                    self.texts = None
                failure = self.failure
                controls = self.controls
        except BaseException:
            # Only a part of the data was processed, so the rest cannot be decoded.
            error = errors.decoding_failed()
            with cython.critical_section(self):
                self.finish()
                self.error = error
            raise
        if texts:
            for i in texts:
                events[i] = valid_text(events[i])
        if controls:
            self.make_controls(events)
        if failure != NO_FAILURE:
            error = self.make_error(failure)
            with cython.critical_section(self):
                self.error = error
        return rules.make_parts(events) if self.stream else events

    cdef int make_controls(self, list events) except -1:
        """Replace the opcodes and payloads in the list with control frames."""
        cdef Py_ssize_t i
        cdef int opcode
        for i in range(len(events)):
            held = events[i]
            if type(held) is not bytearray:
                continue
            opcode = PyByteArray_AS_STRING(held)[0]
            payload = bytes(held[1:])
            if opcode == OPCODE_PING:
                events[i] = Ping(payload)
            elif opcode == OPCODE_PONG:
                events[i] = Pong(payload)
            else:
                # It is the last item.
                del events[i]
                if opcode == OPCODE_CLOSE:
                    close = rules.parse_close(payload)
                else:
                    close = rules.close_payload_error(payload)
                if isinstance(close, ProtocolError):
                    with cython.critical_section(self):
                        self.finish()
                        self.error = close
                elif close is not None:
                    events.append(close)
        return 0

    cdef object make_error(self, Failure failure):
        """Return the error for the failure of this call. Nothing was decoded after it."""
        if failure == BAD_HEADER:
            rsv = 0 if self.inflater is None else RSV1
            return header_error(
                self.progress, &self.header, rsv, self.failed_inside != 0, self.masked
            )
        if failure == TOO_MANY_FRAGMENTS:
            return errors.too_many_fragments(self.fragments_limit)
        if failure == TOO_BIG:
            return errors.message_too_big(self.size_limit)
        if failure == NOT_UTF8:
            return errors.text_not_utf8()
        return self.inflater_error

    cdef int decode_rest(self, const uint8_t* data, Py_ssize_t size, list events) except -1:
        """Decode the data that the last call left, and then the new data."""
        cdef bytes rest = self.rest
        cdef Py_ssize_t start = self.rest_start
        if size:
            rest = rest[start:] + data[:size]
            start = 0
        self.decode(
            <const uint8_t*> PyBytes_AS_STRING(rest) + start, len(rest) - start, events, NULL
        )
        if self.stopped < 0 or self.done:
            self.rest = None
        else:
            self.rest = rest
            self.rest_start = start + self.stopped
        return 0

    cdef int decode(
        self, const uint8_t* data, Py_ssize_t size, list events, Py_ssize_t* left
    ) except -1:
        cdef Py_ssize_t position = 0, available, start, used, length
        cdef const uint8_t* p
        cdef bytes tail
        cdef uint32_t key
        cdef int short_header = 6 if self.masked else 2
        cdef int mask = MASK if self.masked else 0
        cdef Py_ssize_t limit = <Py_ssize_t> min(self.size_limit, <uint64_t> MAX_16_BIT_LENGTH)

        self.stopped = -1
        if not size and not self.more:
            return 0
        if self.tail is not None:
            # A header or control frame is incomplete.
            used = len(self.tail)
            tail = self.tail + data[:min(MAX_TAIL - used, size)]
            position = self.begin_frame(
                <const uint8_t*> PyBytes_AS_STRING(tail), len(tail), events
            )
            if position < 0:
                return 0
            if position == 0:
                self.tail = tail
                return 0
            position -= used
            self.tail = None

        while True:
            if self.in_payload:
                if (
                    left is not NULL and <uint64_t> (size - position) < self.remaining
                    and not self.buffer.capacity and follows_large(events)
                ):
                    # Memory for another large message is allocated when this one may be gone:
                    # free() returns the memory of two to the system, and page faults are slow.
                    left[0] = size - position
                    self.bytes_seen -= left[0]
                    return 0
                position += self.take_payload(data + position, size - position, events)
                if self.done:
                    return 0
            available = size - position
            if not available:
                if self.more:
                    self.stopped = position
                return 0
            if self.step_left <= 0:
                self.stopped = position
                return 0
            if self.in_payload:
                continue  # a piece was inflated, and there is more data
            p = data + position

            # A shortcut for an unfragmented message of up to 64 KiB. begin_frame handles
            # everything else, including errors.
            if not self._opcode and available >= short_header and (
                p[0] == WHOLE_TEXT or p[0] == WHOLE_BINARY
            ):
                start = short_header
                length = p[1] ^ mask  # a wrong MASK bit makes this large
                if length == LENGTH_16 and available >= short_header + 2:
                    start += 2
                    length = p[2] << 8 | p[3]
                    if length < LENGTH_16:
                        length = available  # not minimal
                elif length >= LENGTH_16:
                    length = available
                if length <= limit and length <= available - start:
                    key = fastws_load32(p + start - 4) if mask else 0
                    self.payload_seen += length
                    if self.append_whole(p + start, length, key, p[0] & OPCODE_BITS, events):
                        return 0
                    position += start + length
                    continue

            used = self.begin_frame(p, available, events)
            if used < 0:
                return 0
            if used == 0:
                self.tail = p[:available]
                return 0
            position += used

    cdef Py_ssize_t begin_frame(self, const uint8_t* p, Py_ssize_t n, list events) except -2:
        """Read the header of a data frame, or a complete control frame.

        Return its size in bytes, 0 if it is incomplete, or -1 if nothing more must be decoded.
        """
        cdef Progress progress
        cdef bytes good
        if self._opcode:
            good = GOOD_INSIDE
        else:
            good = GOOD_OUTSIDE if self.inflater is None else GOOD_OUTSIDE_RSV1
        progress = scan_header(
            p, n, <const uint8_t*> PyBytes_AS_STRING(good), self.masked, &self.header
        )
        if progress == NOTHING:
            return 0
        if progress != LENGTH and progress != HEADER:
            self.progress = progress
            self.failed_inside = self._opcode != 0
            self.fail(BAD_HEADER)
            return -1
        if self.header.first & CONTROL_BIT:
            if progress == LENGTH:
                return 0
            if self.take_control(p + self.header.size, n - self.header.size, events):
                return -1
            n -= self.header.size + <Py_ssize_t> self.header.length
            return 0 if n < 0 else self.header.size + <Py_ssize_t> self.header.length

        # The limits apply as soon as the length is known.
        if self.fragments >= self.fragments_limit:
            self.fail(TOO_MANY_FRAGMENTS)
            return -1
        if self.header.length > (
            self.compressed_limit if self.compressed or self.header.first & RSV1
            else self.size_limit - self.size
        ):
            self.fail(TOO_BIG)
            return -1
        if progress == LENGTH:
            return 0
        if self.header.first & OPCODE_BITS:
            self._opcode = self.header.first & OPCODE_BITS
            self.compressed = self.header.first & RSV1 != 0
            self.buffer.is_str = self._opcode == OPCODE_TEXT and self._decode_text
            self.is_ascii = True
        if not self.compressed:
            self.size += self.header.length
        self.fragments += 1
        self.remaining = self.header.length
        self.in_payload = True
        return self.header.size

    cdef int take_control(self, const uint8_t* p, Py_ssize_t n, list events) except -1:
        """Handle as much of a control frame's payload as has arrived. Return 1 if nothing more
        must be decoded."""
        cdef int opcode = self.header.first & OPCODE_BITS
        cdef bint whole = n >= <Py_ssize_t> self.header.length
        cdef uint8_t* target
        if whole:
            n = <Py_ssize_t> self.header.length
        elif opcode != OPCODE_CLOSE:
            return 0
        # A bytearray, since no event is one. make_controls replaces it with an event.
        held = PyByteArray_FromStringAndSize(NULL, 1 + n)
        target = <uint8_t*> PyByteArray_AS_STRING(held)
        target[0] = opcode if whole else CLOSE_BEGUN
        if n:
            mask_octets(target + 1, p, n, self.header.key)
        events.append(held)
        self.controls += 1
        if opcode != OPCODE_CLOSE:
            if opcode == OPCODE_PING:
                self.pings_seen += 1
            else:
                self.pongs_seen += 1
            self._only_messages = False
            self.step_left -= CONTROL_COST
        elif whole:
            self.finish()
            return 1
        return 0

    cdef Py_ssize_t take_payload(self, const uint8_t* p, Py_ssize_t n, list events) except -1:
        """Add as much of the frame's payload as has arrived to the message; return its size."""
        cdef bint last
        cdef uint8_t* target
        cdef Py_ssize_t size
        if <uint64_t> n > self.remaining:
            n = <Py_ssize_t> self.remaining
        if self.compressed:
            n = 0 if self.more else min(n, PIECE)
        else:
            self.payload_seen += n
        last = self.header.first & FIN and <uint64_t> n == self.remaining
        if self.compressed:
            if self.take_compressed(p, n, last, events):
                return n
        elif last and self.fragments == 1 and not self.buffer.size:
            if self.append_whole(p, n, self.header.key, self._opcode, events) == 0:
                self.reset_message()
            return n
        elif n:
            target = growing_extend(&self.buffer, n, n if self.stream else self.remaining)
            if not self.add(target, p, n, self.header.key):
                self.fail(NOT_UTF8)
                return n
        self.header.key = fastws_rotate_key(self.header.key, n)
        self.remaining -= n
        if self.stream and not last:
            self.pass_on(events)
        if self.remaining or self.more:
            return n
        if not last:
            self.in_payload = False
            self.fragments_seen += 1
            return n
        if self.utf8.needed:
            self.fail(NOT_UTF8)
            return n
        if self.buffer.is_str and not self.is_ascii:
            message = transcode(growing_data(&self.buffer), self.buffer.size)
        else:
            message = growing_take(&self.buffer)
        if self._opcode == OPCODE_TEXT and not self.buffer.is_str:
            message = self.held_text(message, events)
        elif self.compressed and self._opcode == OPCODE_TEXT:
            # A str may take four times as much as its UTF-8.
            size = len(message) if self.stream else <Py_ssize_t> self.size
            self.step_left -= max(<Py_ssize_t> rules.memory_of(message) - size, 0)
        events.append(message)
        self.reset_message()
        return n

    cdef int pass_on(self, list events) except -1:
        """Append the piece of the message that has arrived to the events, after None. A character
        that is not complete waits for the next piece."""
        cdef uint8_t* data
        cdef uint8_t[4] begun
        cdef Py_ssize_t size = self.buffer.size, left = 0
        if not size:
            return 0
        data = growing_data(&self.buffer)
        if self.utf8.needed:
            left = 1
            while data[size - left] & 0xC0 == 0x80:
                left += 1
            memcpy(begun, data + size - left, left)
            size -= left
            if not size:
                return 0
        events.append(None)
        self.parts += 1
        if not self.buffer.is_str:
            self.buffer.size = size
            piece = growing_take(&self.buffer)
            if self._opcode == OPCODE_TEXT:
                piece = self.held_text(piece, events)
        elif left:
            piece = decode_whole(data, size, 0)  # it may be ASCII
        elif not self.is_ascii:
            piece = transcode(data, size)
        else:
            piece = growing_take(&self.buffer)
        if self.compressed and self.buffer.is_str:
            self.step_left -= <Py_ssize_t> rules.memory_of(piece) - len(piece)
        events.append(piece)
        growing_clear(&self.buffer)
        self.is_ascii = not left
        if left:
            memcpy(growing_extend(&self.buffer, left, left), begun, left)
        return 0

    cdef int take_compressed(
        self, const uint8_t* p, Py_ssize_t n, bint last, list events
    ) except -1:
        """Inflate a piece of the payload and add the result to the message. Return 1 if that
        fails."""
        cdef Octets octets
        cdef uint8_t* target
        cdef bint valid = True
        piece = PyBytes_FromStringAndSize(NULL, n)
        if n:
            mask_octets(<uint8_t*> PyBytes_AS_STRING(piece), p, n, self.header.key)
        while True:
            budget = None if self.size_limit == UINT64_MAX else self.size_limit - self.size
            self.inflating = True
            try:
                if self.stream:
                    limit = PART if budget is None else min(budget + 1, PART)
                    inflated, more = self.inflater.inflate_part(piece, limit, last)
                    self.more = more
                else:
                    inflated = self.inflater.inflate(piece, budget, last)
            except ProtocolError as exc:
                exc.__context__ = None  # it would keep the objects in its frames alive
                self.inflater_error = exc.with_traceback(None)
                self.fail(NOT_DEFLATE)
                return 1
            finally:
                self.inflating = False
            self.step_left -= PIECE_COST
            acquire(inflated, &octets)
            try:
                if octets.size:
                    target = growing_extend(&self.buffer, octets.size, octets.size)
                    valid = self.add(target, octets.data, octets.size, 0)
                self.step_left -= max(octets.size, n * BYTE_COST)
            finally:
                release(&octets)
            if not valid:
                self.fail(NOT_UTF8)
                return 1
            if budget is not None and octets.size > budget:
                self.fail(TOO_BIG)
                return 1
            self.size += octets.size
            self.payload_seen += octets.size
            if not self.more:
                return 0
            self.pass_on(events)
            if self.step_left <= 0:
                return 0
            piece = b""
            n = 0

    cdef bint add(self, uint8_t* target, const uint8_t* p, Py_ssize_t n, uint32_t key) noexcept:
        """Unmask a piece of the message to `target`; return whether it is valid so far.

        Text is validated in slices, while each slice is in the CPU's cache.
        """
        cdef Py_ssize_t size, start = 0
        if self._opcode != OPCODE_TEXT:
            mask_octets(target, p, n, key)
            return True
        while start < n:
            size = min(n - start, SLICE)
            if mask_octets(target + start, p + start, size, key) & FASTWS_HIGH_BITS:
                self.is_ascii = False
            elif not self.utf8.needed:
                start += size
                continue
            if not utf8_feed(&self.utf8, target + start, size):
                return False
            start += size
        return True

    cdef int append_whole(
        self, const uint8_t* p, Py_ssize_t n, uint32_t key, int opcode, list events
    ) except -1:
        """Append a complete message to the events. Return 1 if it is invalid."""
        if opcode == OPCODE_TEXT and self._decode_text:
            try:
                text = decode_whole(p, n, key)
            except UnicodeDecodeError:
                self.fail(NOT_UTF8)
                return 1
            events.append(text)
            return 0
        message = PyBytes_FromStringAndSize(NULL, n)
        if opcode == OPCODE_TEXT:
            if n and not unmask(<uint8_t*> PyBytes_AS_STRING(message), p, n, key):
                self.fail(NOT_UTF8)
                return 1
            message = self.held_text(message, events)
        elif n:
            mask_octets(<uint8_t*> PyBytes_AS_STRING(message), p, n, key)
        events.append(message)
        return 0

    cdef object held_text(self, bytes data, list events):
        """Return what stands for a text message until all data is processed: then its bytes become
        a Text. If it was decided since that text is to be decoded, it is."""
        if self._decode_text or self.texts is None:
            return data.decode()
        self.texts.append(len(events))
        return data

    cdef void fail(self, Failure failure) noexcept:
        self.failure = failure
        self.finish()

    cdef void reset_message(self) noexcept:
        self.in_payload = False
        self._opcode = 0
        self.compressed = self.more = False
        self.size = self.fragments = 0
        self.utf8.needed = 0
        growing_clear(&self.buffer)

    cdef void finish(self) noexcept:
        """Decode nothing more, and release the data that was kept."""
        self.done = True
        self._only_messages = False
        self.tail = self.rest = None
        self.reset_message()


cdef bint follows_large(list events) except -1:
    """Return whether the last event is a large message."""
    cdef Py_ssize_t count = len(events)
    return count > 0 and len(events[count - 1]) >= NOT_COPIED


cdef class MessageEncoder:
    """MessageEncoder()\n--\n
    Encodes messages and control frames into one buffer.

    Each method appends a frame and returns the size of the buffer. `take` returns the whole
    buffer, so that many small messages can be sent in one write. A client passes a new,
    unpredictable mask key to each call (RFC 6455 §5.3); a server passes none.
    """

    def __init__(self):
        pass  # without this method, any arguments would be accepted

    def __dealloc__(self):
        growing_clear(&self.buffer)

    # The buffer contains only complete frames, even if several threads append to it. So nothing
    # that could let other threads run happens under the lock; all of that happens before.

    @cython.critical_section
    def __len__(self):
        """Return the number of bytes that `take` would return."""
        return self.size + self.buffer.size

    def text(self, message, key=None, *, fin=True):
        """Append a text message, or with `fin=False` its first fragment.

        Raises:
            TypeError: if `message` is neither a str nor a Text, or `key` is not bytes-like.
            ValueError: if `key` is not 4 bytes long or `message` has lone surrogates.
            StateError: if a fragmented message is not finished.
        """
        cdef int first
        if isinstance(message, Text):
            first = OPCODE_TEXT | (FIN if fin else 0)
            return self.append_bytes(first, message.data, key)
        if not isinstance(message, str):
            raise errors.str_required(message)
        return self.append_text(OPCODE_TEXT, message, key, fin)

    def text_bytes(self, data, key=None, *, fin=True):
        """Append a text message that is given in UTF-8, or with `fin=False` its first fragment.

        Fragments may be cut inside of a character. Those that `continuation` appends are checked,
        too.

        Raises:
            TypeError: if `data` or `key` is not bytes-like.
            ValueError: if `data` is not UTF-8, or `key` is not 4 bytes long.
            StateError: if a fragmented message is not finished.
        """
        return self.append_checked(OPCODE_TEXT, data, key, fin)

    def binary(self, message, key=None, *, fin=True):
        """Append a binary message, or with `fin=False` its first fragment.

        Raises:
            TypeError: if `message` or `key` is not bytes-like.
            ValueError: if `key` is not 4 bytes long.
            StateError: if a fragmented message is not finished.
        """
        return self.append_bytes(OPCODE_BINARY | (FIN if fin else 0), message, key)

    def continuation(self, fragment, key=None, *, fin=True):
        """Append another fragment of a message, by default its last.

        Raises:
            TypeError: if `fragment` is neither a str nor bytes-like, or `key` is not bytes-like.
            ValueError: if `key` is not 4 bytes long, `fragment` has lone surrogates, or
                `text_bytes` has begun the message and this is not UTF-8.
            StateError: if there is no fragmented message to continue.
        """
        if isinstance(fragment, Text):
            fragment = fragment.data
        if self.in_message == CHECKED:
            if isinstance(fragment, str):
                fragment = PyUnicode_AsUTF8String(fragment)
            return self.append_checked(OPCODE_CONTINUATION, fragment, key, fin)
        if isinstance(fragment, str):
            return self.append_text(OPCODE_CONTINUATION, fragment, key, fin)
        return self.append_bytes(OPCODE_CONTINUATION | (FIN if fin else 0), fragment, key)

    def ping(self, data=b"", key=None):
        """Append a ping with at most 125 bytes of data (RFC 6455 §5.5.2).

        Raises:
            TypeError: if `data` or `key` is not bytes-like.
            ValueError: if `data` is too long or `key` is not 4 bytes long.
        """
        return self.append_bytes(OPCODE_PING | FIN, data, key)

    def pong(self, data=b"", key=None):
        """Append a pong with at most 125 bytes of data (RFC 6455 §5.5.3).

        Raises:
            TypeError: if `data` or `key` is not bytes-like.
            ValueError: if `data` is too long or `key` is not 4 bytes long.
        """
        return self.append_bytes(OPCODE_PONG | FIN, data, key)

    def close(self, code=None, reason="", key=None):
        """Append a close frame (RFC 6455 §5.5.1).

        Args:
            code: a close code that may be sent (§7.4); None for an empty frame.
            reason: at most 123 bytes in UTF-8; must be empty without a code.
            key: the mask key.

        Raises:
            TypeError: if `code` is not an int, `reason` is not a str or `key` is not bytes-like.
            ValueError: if the code may not be sent, the reason is too long, has no code or has
                lone surrogates, or `key` is not 4 bytes long.
        """
        return self.append_bytes(OPCODE_CLOSE | FIN, close_payload(code, reason), key)

    def frame(
        self, opcode, payload=b"", *, fin=True, rsv1=False, rsv2=False, rsv3=False, key=None
    ):
        """Append any frame; see `encode_frame` for the arguments and errors.

        Raises:
            StateError: if a data frame must not come next (RFC 6455 §5.4).
        """
        cdef int first = read_opcode(opcode) | rsv_bits(rsv1, rsv2, rsv3) | (FIN if fin else 0)
        return self.append_bytes(first, payload, key)

    def raw(self, frames):
        """Append complete messages or control frames that `encode_frame` has encoded.

        Raises:
            TypeError: if `frames` is not bytes-like.
        """
        cdef Octets octets
        cdef uint8_t* p
        acquire(frames, &octets)
        try:
            with cython.critical_section(self):
                if octets.size:
                    p = growing_extend(&self.buffer, octets.size, octets.size)
                    memcpy(p, octets.data, octets.size)
                return self.size + self.buffer.size
        finally:
            release(&octets)

    def take(self):
        """Return everything appended since the last call."""
        with cython.critical_section(self):
            if self.buffers is None:
                self.bytes_taken += self.buffer.size
                return growing_take(&self.buffer)
        return self._join(self._take_all())

    def take_buffers(self):
        """Like `take`, but without copying large payloads.

        Returns:
            the buffers to send, in order. How many there are is unspecified.
        """
        return [self._join([buffer]) for buffer in self._take_all()]

    def __reduce__(self):
        raise errors.not_copyable(self)

    @cython.critical_section
    def _counts(self):
        """Return what was encoded so far, without `raw`: complete messages, frames, bytes that were
        taken (also of `raw`), bytes of the messages' payloads, pings, pongs.
        """
        cdef uint64_t frames = self.messages_made + self.others_made
        return (
            self.messages_made, frames + self.pings_made + self.pongs_made,
            self.bytes_taken, self.payload_made, self.pings_made, self.pongs_made,
        )

    cdef list _take_all(self):
        cdef list buffers, none = None
        with cython.critical_section(self):
            if self.buffers is None:
                none = []  # before the state is read, as this may run the garbage collector
            buffers = none if self.buffers is None else self.buffers
            self.buffers = None
            self.bytes_taken += self.size + self.buffer.size
            self.size = 0
            if self.buffer.size:
                buffers.append(growing_take(&self.buffer))
            return buffers

    cdef bytes _take_only(self):
        with cython.critical_section(self):
            if self.buffers is not None:
                return None
            self.bytes_taken += self.buffer.size
            return growing_take(&self.buffer)

    cdef Py_ssize_t _whole_frame(self, bytes frame) except -1:
        cdef Py_ssize_t size = len(frame)
        cdef uint8_t* p
        with cython.critical_section(self):
            if self.in_message:
                raise errors.in_message()
            self.messages_made += 1
            self.payload_made += size - frame_header_size(frame)
            if self.buffer.size:
                p = growing_extend(&self.buffer, size, size)
                memcpy(p, PyBytes_AS_STRING(frame), size)
            else:
                growing_share(&self.buffer, frame)
            return self.size + self.buffer.size

    cdef bytes _join(self, list buffers):
        cdef Py_ssize_t size = 0
        cdef uint8_t* target
        cdef Payload payload
        if len(buffers) == 1 and type(buffers[0]) is bytes:
            return buffers[0]
        for buffer in buffers:
            size += len(buffer)
        joined = PyBytes_FromStringAndSize(NULL, size)
        target = <uint8_t*> PyBytes_AS_STRING(joined)
        for buffer in buffers:
            size = len(buffer)
            if type(buffer) is bytes:
                memcpy(target, PyBytes_AS_STRING(buffer), size)
            else:
                payload = <Payload> buffer
                mask_octets(target, payload.data, size, payload.key)
            target += size
        return joined

    cdef Py_ssize_t _whole_text(self, object message, object key) except -1:
        if key is None and PyUnicode_IS_COMPACT_ASCII(message):
            if PyUnicode_GET_LENGTH(message) < LENGTH_16:
                return append_short(
                    self, WHOLE_TEXT, PyUnicode_DATA(message), PyUnicode_GET_LENGTH(message)
                )
        return self.append_text(OPCODE_TEXT, message, key, True)

    cdef Py_ssize_t _whole_binary(self, object message, object key) except -1:
        if key is None and type(message) is bytes and PyBytes_GET_SIZE(message) < LENGTH_16:
            return append_short(
                self, WHOLE_BINARY, PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message)
            )
        return self.append_bytes(WHOLE_BINARY, message, key)

    cdef Py_ssize_t append_text(self, int opcode, object text, object key, bint fin) except -1:
        cdef const uint8_t* data
        cdef Py_ssize_t size
        if fin:
            opcode |= FIN
        if not PyUnicode_IS_COMPACT_ASCII(text):
            return self.append_bytes(opcode, PyUnicode_AsUTF8String(text), key)
        # In memory, an ASCII str is the same as its payload.
        data = <const uint8_t*> PyUnicode_DATA(text)
        size = PyUnicode_GET_LENGTH(text)
        if size >= NOT_COPIED and (key is None or size > MASKED_PIECE):
            return self.append_large(opcode, text, data, size, key)
        return self.append(opcode, data, size, key, NULL)

    cdef Py_ssize_t _whole_utf8(self, object message, object key) except -1:
        return self.append_bytes(WHOLE_TEXT, message.data, key)

    cdef Py_ssize_t append_checked(self, int opcode, object data, object key, bint fin) except -1:
        """Append a frame of a text message that must be UTF-8."""
        cdef fastws_utf8 utf8 = fastws_utf8(0)
        cdef bytes octets = as_bytes(data)
        cdef Py_ssize_t size
        if opcode == OPCODE_CONTINUATION:
            utf8 = self.utf8
        if (
            not utf8_feed(&utf8, <const uint8_t*> PyBytes_AS_STRING(octets), len(octets))
            or (fin and utf8.needed)
        ):
            raise errors.utf8_required()
        size = self.append_bytes(opcode | (FIN if fin else 0), octets, key)
        if not fin:
            with cython.critical_section(self):
                if self.in_message:  # another thread may have finished it
                    self.in_message = CHECKED
                    self.utf8 = utf8
        return size

    cdef Py_ssize_t append_bytes(self, int first, object payload, object key) except -1:
        cdef Octets octets
        acquire(payload, &octets)
        try:
            if (
                octets.borrowed and octets.size >= NOT_COPIED and not first & CONTROL_BIT
                and (key is None or octets.size > MASKED_PIECE)
            ):
                return self.append_large(first, payload, octets.data, octets.size, key)
            return self.append(first, octets.data, octets.size, key, NULL)
        finally:
            release(&octets)

    cdef Py_ssize_t append_large(
        self, int first, object source, const uint8_t* data, Py_ssize_t size, object key
    ) except -1:
        """Append a frame without copying its payload, the `data` of an immutable `source`."""
        cdef bint masked = key is not None
        cdef uint32_t word = 0
        cdef int head = header_size(size, masked)
        cdef uint8_t* p
        cdef object payload = source
        if masked:
            read_key(key, &word)
        if word or type(source) is not bytes:
            payload = new_payload(source, data, size, word)
        with cython.critical_section(self):
            if self.buffers is None:
                self.buffers = []
            self.check_turn(first)
            p = growing_extend(&self.buffer, head, head)
            write_header(p, first, size, masked)
            if masked:
                memcpy(p + head - 4, &word, 4)
            self.size += self.buffer.size + size
            self.buffers.append(growing_take(&self.buffer))
            self.buffers.append(payload)
            count_data(self, first, size)
            return self.size

    cdef Py_ssize_t append(
        self, int first, const uint8_t* payload, Py_ssize_t size, object key,
        const uint8_t* plain_key,
    ) except -1:
        """Append a frame. The mask key, if there is one, is `key` or the bytes at `plain_key`."""
        cdef bint masked = key is not None or plain_key is not NULL
        cdef uint32_t word = 0
        cdef int head = header_size(size, masked)
        cdef uint8_t* p
        if first & CONTROL_BIT:
            rules.check_control(first & OPCODE_BITS, size, first & FIN != 0)
        if plain_key is not NULL:
            word = fastws_load32(plain_key)
        elif masked:
            read_key(key, &word)
        with cython.critical_section(self):
            if not first & CONTROL_BIT:
                self.check_turn(first)
            p = growing_extend(&self.buffer, head + size, head + size)
            write_header(p, first, size, masked)
            if masked:
                memcpy(p + head - 4, &word, 4)
                mask_octets(p + head, payload, size, word)
            elif size:
                memcpy(p + head, payload, size)
            if not first & CONTROL_BIT:
                count_data(self, first, size)
            elif first & OPCODE_BITS == OPCODE_PING:
                self.pings_made += 1
            elif first & OPCODE_BITS == OPCODE_PONG:
                self.pongs_made += 1
            else:
                self.others_made += 1
            return self.size + self.buffer.size

    cdef int check_turn(self, int first) except -1:
        if self.in_message and first & OPCODE_BITS:
            raise errors.in_message()
        if not self.in_message and not first & OPCODE_BITS:
            raise errors.not_in_message()
        return 0


cdef inline void count_data(MessageEncoder encoder, int first, Py_ssize_t size) noexcept:
    """A data frame was appended."""
    encoder.payload_made += size
    if first & FIN:
        encoder.in_message = 0
        encoder.messages_made += 1
    else:
        encoder.in_message = 1
        encoder.others_made += 1


cdef inline Py_ssize_t frame_header_size(bytes frame) noexcept:
    """Return the size of the header of an encoded frame that is not masked."""
    cdef uint8_t length = PyBytes_AS_STRING(frame)[1]
    if length < LENGTH_16:
        return 2
    return 4 if length == LENGTH_16 else 10


cdef inline Py_ssize_t append_short(
    MessageEncoder encoder, int first, const void* payload, Py_ssize_t size
) except -1:
    """Append an unmasked message that needs no more than 2 bytes of header, as most do."""
    cdef uint8_t* p
    with cython.critical_section(encoder):
        if encoder.in_message:
            raise errors.in_message()
        p = growing_extend(&encoder.buffer, 2 + size, 2 + size)
        p[0] = first
        p[1] = size
        memcpy(p + 2, payload, size)
        encoder.messages_made += 1
        encoder.payload_made += size
        return encoder.size + encoder.buffer.size


@cython.final
cdef class Payload:
    """The payload of a large frame.

    Iterating over it, once, yields what to write: bytes, or a memoryview. It is bytes-like only for
    that memoryview.
    """
    cdef object source  # immutable; it owns the data
    cdef const uint8_t* data
    cdef Py_ssize_t size
    cdef uint32_t key  # 0: not masked
    cdef Py_ssize_t position  # of the next piece

    def __len__(self):
        return self.size

    def __getbuffer__(self, Py_buffer* view, int flags):
        if flags & PyBUF_WRITABLE or self.key:
            raise BufferError("payload is read-only, or masked")
        view.obj = self
        view.buf = <void*> self.data
        view.len = self.size
        view.itemsize = 1
        view.readonly = True
        view.ndim = 1
        view.format = NULL
        if flags & PyBUF_FORMAT:
            view.format = b"B"
        view.shape = &view.len if flags & PyBUF_ND else NULL
        view.strides = &view.itemsize if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL

    def __iter__(self):
        return self

    def __next__(self):
        cdef Py_ssize_t start = self.position
        cdef Py_ssize_t size = self.size - start
        if not size:
            raise StopIteration
        if not self.key:
            self.position = self.size
            return PyMemoryView_FromObject(self)
        size = min(size, MASKED_PIECE)
        self.position += size
        # A piece begins where the key does.
        masked = PyBytes_FromStringAndSize(NULL, size)
        mask_octets(<uint8_t*> PyBytes_AS_STRING(masked), self.data + start, size, self.key)
        return masked


cdef Payload new_payload(object source, const uint8_t* data, Py_ssize_t size, uint32_t key):
    cdef Payload payload = Payload.__new__(Payload)
    payload.source = source
    payload.data = data
    payload.size = size
    payload.key = key
    return payload
