# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
# cython: autotestdict=False, subinterpreters_compatible=no, nonecheck=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The accelerated twin of `fastws._py.hot`; the reference documents each name.

From `buffer_updated` on to `write` no Python code runs but the application's.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_FromStringAndSize

from fastws._c.connection cimport Connection

from fastws import rules
from fastws.exceptions import ConnectionClosed
from fastws.spec import CORK_LIMIT, MANY_EVENTS, State

__all__ = ["HotEndpoint"]

cdef object CLOSED = State.CLOSED
cdef Py_ssize_t CORK = CORK_LIMIT
cdef Py_ssize_t MANY = MANY_EVENTS


cdef class HotEndpoint:
    """HotEndpoint()\n--\n
    The hot part of an asyncio protocol that leads one connection.
    """

    def __init__(self):
        pass  # without it, any arguments are accepted

    def __reduce__(self):
        raise rules.not_copyable(self)

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
        cdef bytearray storage = self.storage
        self._heard = True
        if self._ended:
            return
        if storage is None:
            raise AttributeError("there is no transport")
        # As slicing does it: no more than there is.
        nbytes = max(0, min(nbytes, PyByteArray_GET_SIZE(storage)))
        if self._connection is not None:
            self.receive(None, nbytes)
        else:
            self.receive_opening(
                PyBytes_FromStringAndSize(PyByteArray_AS_STRING(storage), nbytes)
            )

    @cython.critical_section
    def _receive(self, data):
        self.receive(data, len(data))

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

    cdef int receive(self, object data, Py_ssize_t size) except -1:
        """Take so many bytes, which are in the read buffer unless given."""
        cdef Connection connection = self._connection
        cdef list events, buffers
        cdef bint many = False
        # What is sent in answer leaves in one write.
        self._corked = True
        try:
            try:
                if data is None:
                    events = connection._receive_from(self.storage, size)
                else:
                    events = connection.receive_data(data)
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
                buffers = connection._encoder._take_all()
                if buffers:
                    self.write(buffers)
                if self._slow or many or connection._decoder.rest is not None:
                    self._after_read(size)
            else:
                # Our close frame comes next. A task that a message has just woken has its
                # turn before, and may answer.
                self.cork()
        return 0

    cdef Connection sendable(self):
        return self._sendable() if self._connection is None else self._connection

    cdef int sent(self, Py_ssize_t queued) except -1:
        cdef Connection connection = self._connection
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
        cdef Connection connection = self._connection
        cdef list buffers = connection._take()
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
        cdef Py_ssize_t queued = self.sendable()._queue(message, True, compress)
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
        if not self._connection._only_messages:
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
            raise rules.already_waiting()
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
        cdef Connection connection = self._connection
        if (
            connection is None
            or not connection._plain
            or self._turns is not None
            or self._write_paused
            or (type(message) is not str and type(message) is not bytes)
        ):
            return False
        self.sent(connection._queue(message, True, None))
        return True

    cdef int wake_reader(self) except -1:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return 0
