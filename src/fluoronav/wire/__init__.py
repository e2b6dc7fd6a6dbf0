"""Everything that crosses a process: message schemas, codec and sockets. See docs/wire-protocol.md."""

from fluoronav.wire.codec import InvalidMessage, decode_frame, decode_request, decode_tools, encode
from fluoronav.wire.messages import Alert, FrameHeader, Health, Overlay, Request, ToolPose, ToolsMessage
from fluoronav.wire.requests import decode_args, make_request
from fluoronav.wire.sockets import DEFAULT_ENDPOINTS, EndpointInUse, bind, reaches_other_computers

__all__ = [
    "DEFAULT_ENDPOINTS",
    "Alert",
    "EndpointInUse",
    "FrameHeader",
    "Health",
    "InvalidMessage",
    "Overlay",
    "Request",
    "ToolPose",
    "ToolsMessage",
    "bind",
    "decode_args",
    "decode_frame",
    "decode_request",
    "decode_tools",
    "encode",
    "make_request",
    "reaches_other_computers",
]
