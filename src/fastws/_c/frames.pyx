# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
# cython: autotestdict=False, subinterpreters_compatible=no
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The accelerated twin of `fastws._py.frames`; its docstrings are copied from there."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastws._c.buffers cimport (
    Octets, acquire, growing_clear, growing_extend, growing_take, release,
)
from fastws._c.kernel cimport fastws_rotate_key, mask_octets
from fastws._c.masking cimport read_key
from fastws._c.spec cimport (
    CONTROL_BIT, FIN, MASK, MASK_KEY_SIZE, MAX_HEADER, OPCODE_BITS, RSV1, RSV2, RSV3,
    RSV_BITS,
)

from fastws import errors, rules
from fastws.spec import DEFAULT_MAX_MESSAGE_SIZE, Opcode

__all__ = ["Frame", "FrameDecoder", "encode_frame"]

# A table, because calling an enum takes longer than decoding a frame.
cdef list OPCODES = [next((op for op in Opcode if op == i), None) for i in range(16)]
# The tables that good_first_bytes has returned.
cdef list GOOD = [None] * 24


cdef class Frame:
    """Frame(
        opcode, payload=b"", fin=True, rsv1=False, rsv2=False, rsv3=False
    )\n--\n
    One unmasked frame (RFC 6455 §5.2). Immutable.

    Args:
        opcode: the frame type.
        payload: the unmasked payload data.
        fin: whether this is the last frame of its message.
        rsv1: the first bit reserved for extensions.
        rsv2: the second bit reserved for extensions.
        rsv3: the third bit reserved for extensions.

    Raises:
        ValueError: if `opcode` is reserved.
        TypeError: if `payload` is not bytes-like.
    """

    __match_args__ = ("opcode", "payload", "fin", "rsv1", "rsv2", "rsv3")

    def __init__(self, opcode, payload=b"", fin=True, rsv1=False, rsv2=False, rsv3=False):
        cdef Octets octets
        cdef bytes held
        opcode = Opcode(opcode)
        acquire(payload, &octets)
        try:
            held = payload if octets.borrowed else octets.data[:octets.size]
        finally:
            release(&octets)
        with cython.critical_section(self):
            self.opcode = opcode
            self.payload = held
            self.fin = fin
            self.rsv1 = rsv1
            self.rsv2 = rsv2
            self.rsv3 = rsv3

    def __setattr__(self, name, value):
        raise errors.frame_is_immutable(name)

    def __delattr__(self, name):
        raise errors.frame_is_immutable(name)

    def __eq__(self, other):
        if not isinstance(other, Frame):
            return NotImplemented
        return fields(self) == fields(other)

    def __hash__(self):
        return hash(fields(self))

    def __repr__(self):
        return rules.frame_repr(*fields(self))

    def __reduce__(self):
        return Frame, fields(self)


cdef tuple fields(Frame frame):
    with cython.critical_section(frame):
        return frame.opcode, frame.payload, frame.fin, frame.rsv1, frame.rsv2, frame.rsv3


cdef class FrameDecoder:
    """FrameDecoder(
        *, masked, max_payload_size=DEFAULT_MAX_MESSAGE_SIZE, rsv1=False, rsv2=False, rsv3=False
    )\n--\n
    Decodes frames from a stream of bytes.

    Args:
        masked: whether the peer must mask (True: it is a client), must not (False: it is
            a server), or may do either (None).
        max_payload_size: the maximum payload size of a frame, in bytes; None for no limit.
        rsv1: whether an extension uses RSV1 (RFC 7692 §6: in the first frame of a data message).
        rsv2: whether an extension uses RSV2.
        rsv3: whether an extension uses RSV3.

    Attributes:
        error: the peer's violation of the protocol, or None. After an error, the decoder decodes
            nothing more.
    """

    def __cinit__(self):
        # feed() reads this table even if a subclass does not call __init__.
        self.good = good_first_bytes(0, None)

    def __init__(
        self,
        *,
        masked,
        max_payload_size=DEFAULT_MAX_MESSAGE_SIZE,
        rsv1=False,
        rsv2=False,
        rsv3=False,
    ):
        cdef int rsv = rsv_bits(rsv1, rsv2, rsv3)
        cdef bytes good = good_first_bytes(rsv, None)
        max_payload_size = rules.check_limit("max_payload_size", max_payload_size, 0)
        with cython.critical_section(self):
            self.masked = -1 if masked is None else 1 if masked else 0
            self.max_payload_size = max_payload_size
            self.limit = (
                UINT64_MAX if max_payload_size is None else min(max_payload_size, UINT64_MAX)
            )
            self.rsv = rsv
            self.good = good

    def __dealloc__(self):
        growing_clear(&self.payload)

    def feed(self, data):
        """Decode the data that the socket delivered.

        Args:
            data: any number of bytes; frames may be split anywhere.

        Returns:
            the frames that are now complete, including those before a violation; check `error`
            after the call.

        Raises:
            TypeError: if `data` is not bytes-like.
        """
        cdef Octets octets
        acquire(data, &octets)
        try:
            return self.feed_octets(octets.data, octets.size)
        finally:
            release(&octets)

    def __reduce__(self):
        raise errors.not_copyable(self)

    cdef list feed_octets(self, const uint8_t* data, Py_ssize_t size):
        cdef Progress progress = NOTHING
        cdef list frames = []
        # As in MessageDecoder, no Python code runs under the lock.
        with cython.critical_section(self):
            if not self.done:
                self.decode(data, size, frames, &progress)
        if progress != NOTHING:
            self.fail(progress)
        return frames

    cdef int fail(self, Progress progress) except -1:
        """Set the error for the header at which decoding stopped."""
        if progress == HEADER:
            error = errors.payload_too_big(self.max_payload_size)
        else:
            error = header_error(progress, &self.header, self.rsv, None, self.masked)
        with cython.critical_section(self):
            self.error = error
        return 0

    cdef int decode(
        self, const uint8_t* data, Py_ssize_t size, list frames, Progress* failure
    ) except -1:
        cdef Py_ssize_t position = 0, taken
        cdef Progress progress
        cdef int held, first
        cdef bytes payload
        cdef Frame frame
        cdef const uint8_t* good = <const uint8_t*> PyBytes_AS_STRING(self.good)
        while True:
            if self.in_payload:
                taken = size - position
                if <uint64_t> taken > self.remaining:
                    taken = <Py_ssize_t> self.remaining
                if taken:
                    mask_octets(
                        growing_extend(&self.payload, taken, self.remaining),
                        data + position, taken, self.header.key,
                    )
                    position += taken
                    self.remaining -= taken
                    self.header.key = fastws_rotate_key(self.header.key, taken)
                if self.remaining:
                    return 0
                self.in_payload = False
                first = self.header.first
                payload = growing_take(&self.payload)
                # Before Python 3.12, creating an object may run the garbage collector. The
                # decoder's state is consistent here, so a finalizer may use it.
                frame = Frame.__new__(Frame)
                frame.opcode = OPCODES[first & OPCODE_BITS]
                frame.payload = payload
                frame.fin = first & FIN != 0
                frame.rsv1 = first & RSV1 != 0
                frame.rsv2 = first & RSV2 != 0
                frame.rsv3 = first & RSV3 != 0
                frames.append(frame)
            if position == size:
                return 0

            # The beginning of a header is at most 13 bytes long: complete it in place.
            held = self.head_size
            if held:
                taken = min(MAX_HEADER - held, size - position)
                memcpy(&self.head[held], data + position, taken)
                progress = scan_header(
                    self.head, held + taken, good, self.masked, &self.header
                )
            else:
                taken = size - position
                progress = scan_header(
                    data + position, taken, good, self.masked, &self.header
                )
            if progress == LENGTH or progress == HEADER:
                if self.header.length > self.limit:
                    self.done = True
                    failure[0] = HEADER
                    return 0
            elif progress != NOTHING:
                self.done = True
                failure[0] = progress
                return 0
            if progress != HEADER:
                if not held:
                    memcpy(self.head, data + position, taken)
                self.head_size = held + taken
                return 0
            position += self.header.size - held
            self.head_size = 0
            self.remaining = self.header.length
            self.in_payload = True


def encode_frame(
    opcode, payload=b"", *, fin=True, rsv1=False, rsv2=False, rsv3=False, key=None
):
    """Encode one frame (RFC 6455 §5.2).

    Args:
        opcode: the frame type.
        payload: the payload data; at most 125 bytes in a control frame.
        fin: whether this is the last frame of its message; must be true for a control frame.
        rsv1: the first bit reserved for extensions.
        rsv2: the second bit reserved for extensions.
        rsv3: the third bit reserved for extensions.
        key: the 4-byte mask key; None for no mask. Only a client masks (§5.1).

    Raises:
        ValueError: if `opcode` is reserved, `key` is not 4 bytes long, or a control frame is
            fragmented or too long.
        TypeError: if `payload` or `key` is not bytes-like.
    """
    cdef Octets octets
    cdef uint32_t word = 0
    cdef bint masked = key is not None
    cdef int first = read_opcode(opcode)
    cdef int head
    cdef uint8_t* p
    acquire(payload, &octets)
    try:
        if first & CONTROL_BIT:
            rules.check_control(first, octets.size, fin)
        first |= rsv_bits(rsv1, rsv2, rsv3) | (FIN if fin else 0)
        if masked:
            read_key(key, &word)
        head = header_size(octets.size, masked)
        encoded = PyBytes_FromStringAndSize(NULL, head + octets.size)
        p = <uint8_t*> PyBytes_AS_STRING(encoded)
        write_header(p, first, octets.size, masked)
        if masked:
            memcpy(p + head - 4, &word, 4)
            mask_octets(p + head, octets.data, octets.size, word)
        elif octets.size:
            memcpy(p + head, octets.data, octets.size)
        return encoded
    finally:
        release(&octets)


# Shared by the modules of this twin, and by integrations ---------------------------


def read_header(bytes data not None, Py_ssize_t position, masked, int rsv, in_message):
    """Read as much of a frame header as has arrived (RFC 6455 §5.2).

    Args:
        data: the bytes that contain the header.
        position: where the header begins.
        masked: whether the peer must mask (True), must not (False), or may do either (None).
        rsv: the RSV bits that a negotiated extension uses.
        in_message: whether a fragmented message has begun and is not finished; None if the
            order of frames does not matter.

    Returns:
        the first byte, the payload's length, the mask key (None if it is incomplete, empty if
        there is none) and the payload's position; None until the length is known.

    Raises:
        ProtocolError: at the first byte that breaks a rule.
    """
    cdef Header header
    cdef Progress progress
    cdef int mask = -1 if masked is None else 1 if masked else 0
    cdef bytes good = good_first_bytes(rsv, in_message)
    if position < 0:
        return None
    progress = scan_header(
        <const uint8_t*> PyBytes_AS_STRING(data) + position, len(data) - position,
        <const uint8_t*> PyBytes_AS_STRING(good), mask, &header,
    )
    if progress == NOTHING:
        return None
    if progress == LENGTH:
        return header.first, header.length, None, position + header.size
    if progress == HEADER:
        key = b""
        if header.second & MASK:
            key = PyBytes_FromStringAndSize(<const char*> &header.key, MASK_KEY_SIZE)
        return header.first, header.length, key, position + header.size
    raise header_error(progress, &header, rsv, in_message, mask)


cdef int read_opcode(object opcode) except -1:
    # Opcode() accepts anything that is equal to a member. Usually it is an int.
    if isinstance(opcode, int) and 0 <= opcode < 16 and OPCODES[opcode] is not None:
        return opcode
    return Opcode(opcode)


cdef int rsv_bits(bint rsv1, bint rsv2, bint rsv3) noexcept:
    return RSV1 * rsv1 | RSV2 * rsv2 | RSV3 * rsv3


cdef bytes good_first_bytes(int rsv, object in_message):
    """Return a table that says for each first byte whether it is valid."""
    cdef int i = 3 * ((rsv & RSV_BITS) >> 4) + (0 if in_message is None else 2 if in_message else 1)
    cdef bytes table = GOOD[i]
    if table is None:
        table = GOOD[i] = rules.good_first_bytes(rsv, in_message)
    return table


cdef object header_error(
    Progress progress, Header* header, int rsv, object in_message, int masked
):
    """Return the error for a bad header, with the message that both twins share."""
    if progress == BAD_FIRST_BYTE:
        return rules.first_byte_error(header.first, rsv, in_message)
    if progress == BAD_SECOND_BYTE:
        return rules.second_byte_error(
            header.first, header.second, None if masked < 0 else masked == 1
        )
    if progress == LENGTH_TOP_BIT:
        return errors.length_top_bit()
    return errors.length_not_minimal(header.length)
