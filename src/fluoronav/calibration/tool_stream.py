"""Collects a tool's poses from a tracker's stream."""

from __future__ import annotations

import time

import numpy as np
import zmq
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.stream.frame import ToolSample
from fluoronav.stream.tracking.tool_track import ToolTrack
from fluoronav.wire import InvalidMessage, decode_tools, subscriber

Float = NDArray[np.float64]

_POLL_MS = 50  # chosen: the bar moves smoothly


class NoPoses(RuntimeError):
    """No pose of the tool was received; the text lists what was."""


def collect_poses(endpoint: str, tool: str, seconds: float, what: str) -> Float:
    """Collects poses of one tool for some seconds, with a progress bar.

    Parameters
    ----------
    endpoint : str
        Where the tracker publishes ``tool/*``.
    tool : str
        The tool's id.
    seconds : float
        Duration.
    what : str
        Label of the progress bar.

    Returns
    -------
    ndarray, shape (n, 4, 4)
        ``T_tracker_tool``, mm, without the samples that :class:`ToolTrack` rejects.

    Raises
    ------
    NoPoses
        There was none in that time.
    """
    context = zmq.Context()
    socket = subscriber(context, endpoint, ["tool/"])
    track, poses = ToolTrack(), []
    others: set[str] = set()
    hidden = 0
    start = time.monotonic()
    try:
        with tqdm(
            total=round(seconds, 1), desc=what, unit="s", bar_format="{desc}: {bar} {n:.1f}/{total:.0f} s"
        ) as bar:
            while (passed := time.monotonic() - start) < seconds:
                bar.update(passed - bar.n)
                if not socket.poll(_POLL_MS):
                    continue
                try:
                    message = decode_tools(socket.recv_multipart())
                except InvalidMessage:
                    continue
                for seen in message.tools:
                    if seen.id != tool:
                        others.add(seen.id)
                    elif not seen.visible or seen.T_tracker_tool is None:
                        hidden += 1
                    else:
                        T = np.array(seen.T_tracker_tool).reshape(4, 4)
                        if track.add(ToolSample(tool, message.t_acq, T, seen.error_mm or 0.0)):
                            poses.append(T)
    finally:
        socket.close()
        context.term()
    if not poses:
        known = f"heard of: {', '.join(sorted(others))}" if others else "nothing was heard at all"
        seen_once = f"{tool} was hidden in all {hidden} samples; " if hidden else ""
        raise NoPoses(f"no pose of {tool!r} at {endpoint} in {seconds:g} s; {seen_once}{known}")
    return np.array(poses)
