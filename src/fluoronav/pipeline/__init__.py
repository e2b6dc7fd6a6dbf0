"""The running service: frames in, one overlay each out, and a watchdog beside them."""

from fluoronav.pipeline.accounting import FrameAccount
from fluoronav.pipeline.launch import LaunchError, LaunchFile, load_launch
from fluoronav.pipeline.service import Service

__all__ = ["FrameAccount", "LaunchError", "LaunchFile", "Service", "load_launch"]
