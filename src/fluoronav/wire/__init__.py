"""Everything that crosses a process: message schemas, codec and sockets. See docs/wire-protocol.md."""

from fluoronav.wire.codec import InvalidMessage, decode_args, decode_frame, decode_request, decode_tools, encode
from fluoronav.wire.messages import Alert, FrameHeader, Health, Overlay, ToolPose, ToolsMessage
from fluoronav.wire.requests import Reply, Request, make_request
from fluoronav.wire.sockets import DEFAULT_ENDPOINTS, EndpointInUse, bind, reaches_other_computers, subscriber

__all__ = [
    "DEFAULT_ENDPOINTS",
    "Alert",
    "EndpointInUse",
    "FrameHeader",
    "Health",
    "InvalidMessage",
    "Overlay",
    "Reply",
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
    "subscriber",
]
