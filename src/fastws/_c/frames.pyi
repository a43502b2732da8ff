# The twins have one interface; the reference documents it.
from fastws._py.frames import Frame as Frame
from fastws._py.frames import FrameDecoder as FrameDecoder
from fastws._py.frames import encode_frame as encode_frame

__all__ = ["Frame", "FrameDecoder", "encode_frame"]
