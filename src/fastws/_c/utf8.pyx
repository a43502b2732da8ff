# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
# cython: autotestdict=False, subinterpreters_compatible=no
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The accelerated twin of `fastws._py.utf8`; its docstrings are copied from there."""

cimport cython
from cpython.object cimport PyObject_GenericSetAttr, PyTypeObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastws._c.buffers cimport Octets, acquire, release
from fastws._c.kernel cimport (
    FASTWS_HIGH_BITS, FASTWS_INVALID, FASTWS_SMALL, fastws_kernels, fastws_utf8, kernels,
    mask_octets, utf8_feed,
)
from fastws._c.masking cimport WORTH_RELEASING_THE_GIL, read_key_at

from fastws import errors
from fastws.events import Text

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void* PyUnicode_DATA(object)
    object PyType_GenericAlloc(PyTypeObject* kind, Py_ssize_t items)

__all__ = ["Utf8Validator", "decode_utf8", "is_utf8"]


cdef class Utf8Validator:
    """Utf8Validator()\n--\n
    Validates UTF-8 that arrives in pieces."""

    @cython.critical_section
    def __init__(self):
        self.state = fastws_utf8(0)
        self.valid = True

    def feed(self, data):
        """Validate the next piece.

        Returns:
            whether all bytes so far can be the beginning of valid UTF-8. This becomes False at
            the first byte that cannot be part of it, even in the middle of a code point, and
            stays False.

        Raises:
            TypeError: if `data` is not bytes-like.
        """
        cdef Octets octets
        acquire(data, &octets)
        try:
            with cython.critical_section(self):
                if self.valid:
                    self.valid = utf8_feed(&self.state, octets.data, octets.size)
                return self.valid
        finally:
            release(&octets)

    def __reduce__(self):
        raise errors.not_copyable(self)

    @property
    @cython.critical_section
    def complete(self):
        """Whether the bytes fed so far are complete, valid UTF-8."""
        return self.valid and not self.state.needed


def is_utf8(data):
    """Return whether `data` is complete, valid UTF-8.

    Raises:
        TypeError: if `data` is not bytes-like.
    """
    cdef Octets octets
    cdef fastws_utf8 state = fastws_utf8(0)
    cdef bint valid
    acquire(data, &octets)
    try:
        if octets.size >= WORTH_RELEASING_THE_GIL:
            with nogil:
                valid = utf8_feed(&state, octets.data, octets.size)
        else:
            valid = utf8_feed(&state, octets.data, octets.size)
        return valid and not state.needed
    finally:
        release(&octets)


cpdef object valid_text(bytes data):
    # (Python code would be called if it were created in any other way.)
    text = PyType_GenericAlloc(<PyTypeObject*>Text, 0)
    PyObject_GenericSetAttr(text, "data", data)
    return text


cdef bint unmask(uint8_t* target, const uint8_t* data, Py_ssize_t size, uint32_t key) noexcept:
    """Unmask; return whether the result is valid UTF-8."""
    cdef uint8_t largest
    cdef const fastws_kernels* chosen = kernels
    if size >= FASTWS_SMALL and chosen.utf8_unmask is not NULL:
        return chosen.utf8_unmask(target, data, size, key, &largest) != FASTWS_INVALID
    if not mask_octets(target, data, size, key) & FASTWS_HIGH_BITS:
        return True
    return chosen.utf8_valid(target, size)


def decode_utf8(data, key=None, offset=0):
    """Unmask, validate and decode UTF-8.

    Args:
        data: the bytes, in any object with the buffer protocol.
        key: the 4-byte mask key; None if the data is not masked.
        offset: the position of `data` in the masked payload, in bytes.

    Raises:
        UnicodeDecodeError: if the unmasked bytes are not valid UTF-8.
        TypeError: if `data` or `key` is not bytes-like.
        ValueError: if `key` is not 4 bytes long or `offset` is negative.
    """
    cdef Octets octets
    cdef uint32_t word = 0
    acquire(data, &octets)
    try:
        if key is not None:
            read_key_at(key, offset, &word)
        elif offset < 0:
            raise errors.offset_not_negative(offset)
        return decode(octets.data, octets.size, word)
    finally:
        release(&octets)


cdef object decode(const uint8_t* data, Py_ssize_t size, uint32_t key):
    """Unmask into a new str; a key of 0 changes nothing. Raises UnicodeDecodeError."""
    cdef uint8_t* target
    cdef uint8_t largest
    cdef size_t count
    cdef const fastws_kernels* chosen = kernels
    if not size:
        return ""
    # Most text is ASCII, so unmask it directly into a new ASCII str. If the text is not ASCII,
    # that is not a valid str, but a buffer with the unmasked bytes to decode.
    text = PyUnicode_New(size, 127)
    target = <uint8_t*> PyUnicode_DATA(text)
    if size >= FASTWS_SMALL and chosen.utf8_unmask is not NULL:
        count = chosen.utf8_unmask(target, data, size, key, &largest)
        if count == FASTWS_INVALID:
            return PyUnicode_DecodeUTF8(<const char*> target, size, NULL)
        return text if largest < 0x80 else widen(target, size, count, largest)
    if not mask_octets(target, data, size, key) & FASTWS_HIGH_BITS:
        return text
    if <size_t> size < chosen.utf8_least or not chosen.utf8_valid(target, size):
        return PyUnicode_DecodeUTF8(<const char*> target, size, NULL)
    return transcode(target, size)


cdef object transcode(const uint8_t* p, Py_ssize_t size):
    """Return a str decoded from valid UTF-8 that is not all ASCII."""
    cdef uint8_t largest
    cdef size_t count
    if kernels.utf8_count is NULL:
        return PyUnicode_DecodeUTF8(<const char*> p, size, NULL)
    count = kernels.utf8_count(p, size, &largest)
    return widen(p, size, count, largest)


cdef object widen(const uint8_t* p, Py_ssize_t size, size_t count, uint8_t largest):
    """Return a str decoded from valid UTF-8 with this number of characters and largest byte."""
    cdef const fastws_kernels* chosen = kernels
    if count == 1:
        # The interpreter keeps one str for each character of Latin-1.
        return PyUnicode_DecodeUTF8(<const char*> p, size, NULL)
    # A str must be as narrow as its largest character allows.
    if largest < 0xC4:
        text = PyUnicode_New(count, 0xFF)
        chosen.utf8_to_1(p, size, <uint8_t*> PyUnicode_DATA(text))
    elif largest < 0xF0:
        text = PyUnicode_New(count, 0xFFFF)
        chosen.utf8_to_2(p, size, <uint16_t*> PyUnicode_DATA(text))
    else:
        text = PyUnicode_New(count, 0x10FFFF)
        chosen.utf8_to_4(p, size, <uint32_t*> PyUnicode_DATA(text))
    return text
