"""wsproto's tests import the class from where it is defined: put ours there."""

from wsproto import frame_protocol

from fastws.integrations.wsproto import FrameProtocol

frame_protocol.FrameProtocol = FrameProtocol
