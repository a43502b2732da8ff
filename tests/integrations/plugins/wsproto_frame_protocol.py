"""wsproto's tests take the class from where it is defined: let that be ours."""

from wsproto import frame_protocol

from fastws.integrations.wsproto import FrameProtocol

frame_protocol.FrameProtocol = FrameProtocol
