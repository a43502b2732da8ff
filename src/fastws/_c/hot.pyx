# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
# cython: autotestdict=False, subinterpreters_compatible=no, nonecheck=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The accelerated twin of `fastws._py.hot`; the reference documents each name.

From `buffer_updated` on to `write` no Python code runs but the application's.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from fastws._c.buffers cimport Octets, acquire, release
from fastws._c.messages cimport MessageDecoder, MessageEncoder

from fastws import errors
from fastws.exceptions import ConnectionClosed
from fastws.spec import CORK_LIMIT, MANY_EVENTS, State

__all__ = ["HotConnection", "HotEndpoint"]

cdef object OPEN = State.OPEN
cdef object CLOSED = State.CLOSED
cdef Py_ssize_t CORK = CORK_LIMIT
cdef Py_ssize_t MANY = MANY_EVENTS


cdef class HotConnection:
    """HotConnection(decoder, encoder, make_key, plain)\n--\n
    The hot part of `fastws.Connection`.
    """

    def __init__(
        self, MessageDecoder decoder not None, MessageEncoder encoder not None, make_key, plain
    ):
        with cython.critical_section(self):
            self.state = OPEN
            self.close_code = None
            self.only_messages = True
            self._decoder = decoder
            self._encoder = encoder
            self._make_key = make_key
            self._plain = plain

    def __reduce__(self):
        raise errors.not_copyable(self)

    @cython.critical_section
    def receive_data(self, data):
        """Take what the peer sent; queue what has to be answered.

        Pings are answered and so is a close frame. After a violation of the protocol
        `error` is set and a close frame says so. That close frame comes after what is sent
        until `data_to_send` is called: the answers to the messages before.

        What costs much is done in steps: see `has_pending`.

        Args:
            data: any number of bytes, cut anywhere.

        Returns:
            the messages and control frames that are complete now, in order.

        Raises:
            TypeError: if `data` is not bytes-like.
        """
        cdef Octets octets
        acquire(data, &octets)
        try:
            return self.receive(octets.data, octets.size)
        finally:
            release(&octets)

    @cython.critical_section
    def send(self, message, *, fin=True, compress=None):
        """Queue a text (str) or binary (bytes-like) message.

        Args:
            message: the message, or with `fin=False` its first fragment; or what `prepare`
                made of one.
            fin: whether this is all of it; otherwise `continuation` has to follow.
            compress: whether to compress it, where that was agreed on; None to decide by
                its size, and send it plain if compression does not pay.

        Returns:
            how many bytes wait for `data_to_send` now.

        Raises:
            TypeError: if `message` is none of these.
            ValueError: if `message` has lone surrogates.
            StateError: if a fragmented message is not finished.
            ConnectionClosed: if we sent or received a close frame.
        """
        return self.queue(message, fin, compress)

    @cython.critical_section
    def buffers_to_send(self):
        """As `data_to_send`, but without copying large messages together with the rest.

        Returns:
            what to send, one after the other; in how many pieces is not said.
        """
        return self.take()

    @property
    @cython.critical_section
    def has_pending(self):
        """Whether the last `receive_data` had done enough and left the rest of its data for the
        next call: it stops after some 256 KiB of inflated messages, or 1,024 control frames. Take
        what it returned, send what has to be sent, and call `receive_data(b"")`, as long as this
        is true, before you read from the socket again.
        """
        return self._decoder.rest is not None and self.close_code is None

    cdef list receive(self, const uint8_t* data, Py_ssize_t size):
        cdef MessageDecoder decoder = self._decoder
        cdef list events
        try:
            events = decoder.feed_octets(data, size)
        except BaseException:
            self._take_control([])  # the decoder may have failed: that ends the connection
            raise
        if self.close_code is not None:
            return []
        self.only_messages = decoder.only_messages
        if not self.only_messages:
            self._take_control(events)
        return events

    cdef Py_ssize_t queue(self, object message, bint fin, object compress) except -1:
        cdef MessageEncoder encoder = self._encoder
        if self.state is not OPEN:
            self.check_open()
        key = None if self._make_key is None else self._make_key()
        if fin and self._plain:
            # Most messages are one frame and go as they are.
            if type(message) is str:
                return encoder.append_text(0x1, message, key, True)
            if type(message) is bytes:
                return encoder.append_bytes(0x82, message, key)
        return self._send(message, fin, compress, key)

    cdef list take(self):
        if self.close_code is not None and self.state is OPEN:
            self._answer_close()
        return self._encoder.take_all()


cdef class HotEndpoint:
    """HotEndpoint()\n--\n
    The hot part of an asyncio protocol that leads one connection.
    """

    def __init__(self):
        pass  # without it, any arguments are accepted

    def __reduce__(self):
        raise errors.not_copyable(self)

    @property
    @cython.critical_section
    def _buffer(self):
        return self.buffer

    @_buffer.setter
    def _buffer(self, memoryview buffer not None):
        cdef bytearray storage = buffer.obj
        with cython.critical_section(self):
            self.storage = storage
            self.buffer = buffer

    @cython.critical_section
    def get_buffer(self, sizehint):
        return self.buffer

    @cython.critical_section
    def buffer_updated(self, Py_ssize_t nbytes):
        cdef const uint8_t* data
        cdef bytearray storage = self.storage
        self._heard = True
        if self._ended:
            return
        if storage is None:
            raise AttributeError("there is no transport")
        # As slicing does it: no more than there is.
        nbytes = max(0, min(nbytes, PyByteArray_GET_SIZE(storage)))
        data = <const uint8_t*> PyByteArray_AS_STRING(storage)
        if self._connection is not None:
            self.receive(data, nbytes)
        else:
            self.receive_opening(PyBytes_FromStringAndSize(<const char*> data, nbytes))

    @cython.critical_section
    def _receive(self, data):
        cdef Octets octets
        acquire(data, &octets)
        try:
            self.receive(octets.data, octets.size)
        finally:
            release(&octets)

    @cython.critical_section
    def _sent(self, queued=None):
        """Something was queued: see that it leaves."""
        self.sent(-1 if queued is None else queued)

    @cython.critical_section
    def _cork(self):
        self.cork()

    @cython.critical_section
    def _uncork(self):
        self._corked = self._wrote = False
        self.flush()

    @cython.critical_section
    def _flush(self):
        """Send what is queued; if it ends with our last word, so does the connection."""
        self.flush()

    cdef int receive_opening(self, bytes data) except -1:
        self._receive_opening(data)
        return 0

    cdef int receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef HotConnection connection = self._connection
        cdef list events, buffers
        cdef bint many = False
        # What is sent in answer leaves in one write.
        self._corked = True
        try:
            try:
                events = connection.receive(data, size)
            except Exception as exc:
                self._decoding_failed(exc)
                events = []
            many = len(events) > MANY
            if self._pings:
                self._resolve_pings(events)
            if events:
                self._received(events)
        finally:
            if connection.close_code is None:
                self._corked = self._wrote = False
                buffers = connection._encoder.take_all()
                if buffers:
                    self.write(buffers)
                if self._slow or many or connection._decoder.rest is not None:
                    self._after_read(size)
            else:
                # Our close frame comes next. A task that a message has just woken has its
                # turn before, and may answer.
                self.cork()
        return 0

    cdef HotConnection sendable(self):
        return self._sendable() if self._connection is None else self._connection

    cdef int sent(self, Py_ssize_t queued) except -1:
        cdef HotConnection connection = self._connection
        if not self._corked:
            if self._wrote or self._messages is not None:
                self.cork()
            else:
                self._wrote = True
                self.flush()
            return 0
        if queued < 0:
            queued = len(connection._encoder)
        # (The last flush adds our close frame; it must not come in the middle.)
        if queued > CORK and connection.close_code is None:
            self.flush()
            self._hogging = True
        return 0

    cdef int cork(self) except -1:
        self._corked = True
        self._loop.call_soon(self._uncork)
        return 0

    cdef int flush(self) except -1:
        cdef HotConnection connection = self._connection
        cdef list buffers = connection.take()
        if buffers:
            self.write(buffers)
        if connection.state is CLOSED and not self._ended:
            self._finish()
            self._end_transport()
        return 0

    cdef int write(self, list buffers) except -1:
        if self._gone or (self._write_paused and self._drop_slow_peer()):
            return 0
        # Not writelines: asyncio's joins what it gets, before Python 3.12, and later ones, up to
        # 3.13.1, forget to say that the peer takes too little.
        for buffer in buffers:
            self._written += len(buffer)
            self._transport.write(buffer)
        return 0

    # For who is called ----------------------------------------------------------------

    @cython.critical_section
    def send(self, message, *, compress=None):
        """Send a text (str) or binary (bytes-like) message, or one that `prepare` made; what
        the peer does not take yet is buffered.

        Args:
            message: the message.
            compress: whether to compress it, where that was agreed on; None to decide by
                its size. It is done at once: a large message takes its time.

        Raises:
            TypeError: if `message` is none of these.
            ValueError: if `message` has lone surrogates.
            ConnectionClosed: if the connection is closed or closing.
        """
        cdef Py_ssize_t queued = self.sendable().queue(message, True, compress)
        if queued > CORK or not self._corked:
            self.sent(queued)

    def _call_back(self, list events not None):
        if self._deaf:
            return
        on_message = self.on_message
        for event in events:
            if type(event) is str or type(event) is bytes:
                try:
                    on_message(event)
                except BaseException as exc:
                    self._hook_failed(exc)
                    if not isinstance(exc, ConnectionClosed):
                        return

    # For coroutines ----------------------------------------------------------------------

    def _keep(self, list events not None):
        cdef list messages = events
        if not self._connection.only_messages:
            messages = [event for event in events if isinstance(event, (str, bytes))]
            if not messages:
                return
        messages.reverse()
        if self._messages is None:
            self._messages = messages
        else:
            self._pile_up(messages)
        self.wake_reader()

    @cython.critical_section
    def _wake_reader(self):
        self.wake_reader()

    def _wait_for_message(self):
        """Return a future to await: there may be a message then; afterwards reset `_waiter`."""
        if self._ended:
            raise self._closed_error()
        if self._waiter is not None:
            raise errors.already_waiting()
        # Whoever waits has said all there was to say.
        self._wrote = False
        if self._corked:
            self.flush()
            if self._ended:
                raise self._closed_error()
        self._waiter = self._loop.create_future()
        return self._waiter

    def _next_message(self):
        """Take a message, of which there is one."""
        cdef list messages = self._messages
        message = messages.pop()
        if not messages:
            self._messages = None
            if self._held:
                self._hold_reading(False)
        return message

    @cython.critical_section
    def _send_at_once(self, message):
        """Send a message if it goes as it is; return whether that is so."""
        cdef HotConnection connection = self._connection
        if (
            connection is None
            or not connection._plain
            or self._turns is not None
            or self._write_paused
            or (type(message) is not str and type(message) is not bytes)
        ):
            return False
        self.sent(connection.queue(message, True, None))
        return True

    cdef int wake_reader(self) except -1:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return 0
