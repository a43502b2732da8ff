"""The constants of RFC 6455 for the modules of this twin; `fastws.spec` has them for Python.

A test compares both, and the copy in capi.pxd, which is for other projects.
"""

cdef enum:
    # Header bits (RFC 6455 §5.2)
    FIN = 0x80
    RSV1 = 0x40
    RSV2 = 0x20
    RSV3 = 0x10
    RSV_BITS = 0x70
    OPCODE_BITS = 0x0F
    CONTROL_BIT = 0x08

    MASK = 0x80
    LENGTH_BITS = 0x7F
    LENGTH_16 = 126
    LENGTH_64 = 127

    # Sizes, in bytes
    MASK_KEY_SIZE = 4
    MAX_CONTROL_PAYLOAD = 125
    MAX_16_BIT_LENGTH = 0xFFFF
    MAX_HEADER = 14

    # Frame types
    OPCODE_CONTINUATION = 0x0
    OPCODE_TEXT = 0x1
    OPCODE_BINARY = 0x2
    OPCODE_CLOSE = 0x8
    OPCODE_PING = 0x9
    OPCODE_PONG = 0xA
