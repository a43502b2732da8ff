# cython: language_level=3, freethreading_compatible=True
from fastws cimport capi
from libc.stdint cimport uint8_t


cdef class Echo:
    cdef capi.MessageDecoder decoder
    cdef capi.MessageEncoder encoder

    def __init__(self):
        self.decoder = capi.MessageDecoder(masked=True)
        self.encoder = capi.MessageEncoder()

    cdef bytes answer(self, const uint8_t* data, Py_ssize_t size):
        for event in capi.feed(self.decoder, data, size):
            if isinstance(event, (str, bytes)):
                capi.append(self.encoder, event, NULL)
        return capi.take(self.encoder)

    def data_received(self, bytes data):
        return self.answer(<const uint8_t*> <char*> data, len(data))
