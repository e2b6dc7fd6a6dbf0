"""The simulated grabber, with the optical tracker: streams a rendered sequence at a steady rate."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from fluoronav.case import Case
from fluoronav.lab.simulation.sequence import Sequence
from fluoronav.lab.simulation.tracker import tracker_message
from fluoronav.process_end import on_end_signals
from fluoronav.wire import encode
from fluoronav.wire.sockets import publisher_of_frames, publisher_of_tools, wait_for_subscriber
from fluoronav.wire.values import PROTOCOL_VERSION

Float = NDArray[np.float64]

_TRACKER_NOISE_MM = 0.1  # rms of a position in space; chosen: as optical trackers state it


class Grabber:
    """Publishes ``frame/<source>`` and ``tool/<tracker>``, and keeps the truth.

    Parameters
    ----------
    frames_endpoint, tools_endpoint : str
        Bound here. Without `tools_endpoint` there is no tracker.
    """

    def __init__(
        self,
        case: Case,
        sequence: Sequence,
        frames_endpoint: str,
        tools_endpoint: str | None,
        source: str = "carm0",
        tracker: str = "tracker0",
    ) -> None:
        self._case, self._sequence = case, sequence
        self._source, self._tracker = source, tracker
        self._context = zmq.Context()
        self._frames = publisher_of_frames(self._context, frames_endpoint)
        self._tools = None
        if tools_endpoint and sequence.T_ct_tool is not None and case.file.tracker is not None:
            self._tools = publisher_of_tools(self._context, tools_endpoint)
        self._rng = np.random.default_rng(sequence.scenario.seed)
        self._tool_seq = 0
        self._stop = threading.Event()
        self.truth: list[dict] = []

    def wait_for_subscriber(self) -> bool:
        """Waits for a subscriber to the frames; False if none came."""
        return wait_for_subscriber(self._frames, self._stop)

    def stream(self, fps: float, frames: int) -> int:
        """Sends `frames` frames (0: until stopped) at `fps`; returns the number sent."""
        if threading.current_thread() is threading.main_thread():
            on_end_signals(lambda _number: self._stop.set())
        sequence = self._sequence
        int(sum(int(f[::64, ::64].sum()) for f in sequence.frames))  # reads the file into the page cache
        topic = f"frame/{self._source}".encode()
        due = time.perf_counter()
        n = 0
        while not self._stop.is_set() and (frames == 0 or n < frames):
            _sleep_until(due)
            k = sequence.scenario.sequence_index(n)
            t_acq = time.time_ns()
            self._send_tools(k, t_acq)
            header = frame_header(sequence, k, n, t_acq, self._source)
            parts = [topic, encode(header), sequence.frames[k]]
            self._frames.send_multipart(parts, copy=False)
            self._note(n, t_acq, k)
            n += 1
            _sleep_until(due + 0.5 / fps)
            self._send_tools(k, time.time_ns())
            due += 1 / fps
        return n

    def close(self, truth: Path | None = None) -> None:
        """Closes the sockets and writes the truth, one JSON object per line."""
        self._frames.close()
        if self._tools is not None:
            self._tools.close()
        self._context.term()
        if truth is not None:
            truth.write_text("".join(json.dumps(line) + "\n" for line in self.truth))

    def _note(self, seq: int, t_acq: int, k: int) -> None:
        tool = self._sequence.T_ct_tool
        self.truth.append(
            {
                "seq": seq,
                "t_acq": t_acq,
                "frame": k,
                "T_camera_ct": self._sequence.T_camera_ct[k].tolist(),
                "T_ct_tool": None if tool is None else tool[k].tolist(),
            }
        )

    def _send_tools(self, k: int, t_acq: int) -> None:
        if self._tools is None:
            return
        number, self._tool_seq = self._tool_seq, self._tool_seq + 1
        message = tracker_message(
            self._case, self._sequence, k, number, t_acq, self._tracker, 2 * _TRACKER_NOISE_MM, self._measured
        )
        self._tools.send_multipart([f"tool/{self._tracker}".encode(), encode(message)])

    def _measured(self, T_tracker_tool: Float) -> Float:
        noisy = np.array(T_tracker_tool)
        noisy[:3, 3] += self._rng.normal(0, _TRACKER_NOISE_MM / np.sqrt(3), 3)
        return noisy


def frame_header(sequence: Sequence, k: int, seq: int, t_acq: int, source: str) -> dict[str, Any]:
    """The header of frame `k` of a sequence, sent as number `seq`, exposed at `t_acq` (ns since the epoch)."""
    frame, arm = sequence.frames[k], sequence.joints[k]
    return {
        "v": PROTOCOL_VERSION,
        "source": source,
        "rows": frame.shape[0],
        "cols": frame.shape[1],
        "dtype": "u1" if frame.dtype == np.uint8 else "u2",
        "bits": sequence.bits,
        "seq": seq,
        "t_acq": t_acq,
        "angles": {"orbital": arm.orbital_deg, "angular": arm.angular_deg, "swivel": arm.swivel_deg},
        "sid_mm": arm.source_to_isocentre_mm,
    }


def _sleep_until(due: float) -> None:
    left = due - time.perf_counter()
    if left > 0:
        time.sleep(left)
