# cython: language_level=3, freethreading_compatible=True, boundscheck=False, wraparound=False
# cython: autotestdict=False, subinterpreters_compatible=no
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The accelerated twin of `fastws._py.masking`; its docstrings are copied from there."""

from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t

from fastws._c.buffers cimport Octets, acquire, release
from fastws._c.kernel cimport fastws_load32, fastws_rotate_key, mask_octets
from fastws._c.spec cimport MASK_KEY_SIZE

from fastws import errors

__all__ = ["apply_mask", "apply_mask_inplace"]


def apply_mask(data, key, offset=0):
    """Mask or unmask part of a payload; both are the same operation (RFC 6455 §5.3).

    Args:
        data: the bytes, in any object with the buffer protocol.
        key: the 4-byte mask key.
        offset: the position of `data` in the payload, in bytes.

    Raises:
        TypeError: if `data` or `key` is not bytes-like.
        ValueError: if `key` is not 4 bytes long or `offset` is negative.
    """
    cdef Octets octets
    cdef uint32_t word
    cdef uint8_t* target
    acquire(data, &octets)
    try:
        read_key_at(key, offset, &word)
        result = PyBytes_FromStringAndSize(NULL, octets.size)
        target = <uint8_t*> PyBytes_AS_STRING(result)
        if octets.size >= WORTH_RELEASING_THE_GIL:
            with nogil:
                mask_octets(target, octets.data, octets.size, word)
        elif octets.size:
            mask_octets(target, octets.data, octets.size, word)
        return result
    finally:
        release(&octets)


def apply_mask_inplace(buffer, key, offset=0):
    """Mask or unmask part of a payload in place (RFC 6455 §5.3).

    Args:
        buffer: the bytes, in any writable, C-contiguous object with the buffer protocol.
        key: the 4-byte mask key.
        offset: the position of `buffer` in the payload, in bytes.

    Raises:
        TypeError: if `buffer` is not bytes-like or not writable, or `key` is not bytes-like.
        BufferError: if `buffer` is not C-contiguous.
        ValueError: if `key` is not 4 bytes long or `offset` is negative.
    """
    cdef Py_buffer view
    cdef uint32_t word
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    except TypeError:
        raise errors.writable_required(buffer) from None
    except (BufferError, ValueError):
        # It is read-only or not contiguous (for which NumPy raises ValueError). A memoryview
        # accepts both, and says which it is.
        if memoryview(buffer).readonly:
            raise errors.writable_required(buffer) from None
        raise errors.contiguous_required() from None
    try:
        read_key_at(key, offset, &word)
        if view.len >= WORTH_RELEASING_THE_GIL:
            with nogil:
                mask_octets(<uint8_t*> view.buf, <const uint8_t*> view.buf, view.len, word)
        else:
            mask_octets(<uint8_t*> view.buf, <const uint8_t*> view.buf, view.len, word)
    finally:
        PyBuffer_Release(&view)


cdef int read_key(object key, uint32_t* value) except -1:
    cdef Octets octets
    acquire(key, &octets)
    try:
        if octets.size != MASK_KEY_SIZE:
            raise errors.mask_key_of_four_bytes(octets.size)
        value[0] = fastws_load32(octets.data)
    finally:
        release(&octets)
    return 0


cdef int read_key_at(object key, object offset, uint32_t* value) except -1:
    # The offset is a Python object because the int may be too large for a C type.
    read_key(key, value)
    if offset < 0:
        raise errors.offset_not_negative(offset)
    value[0] = fastws_rotate_key(value[0], offset & 3)
    return 0
