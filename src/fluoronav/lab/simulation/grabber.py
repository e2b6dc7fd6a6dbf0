"""The simulated grabber and optical tracker: a rendered sequence, streamed at a steady rate."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

from fluoronav.case import Case
from fluoronav.geometry import exp_se3
from fluoronav.lab.simulation.sequence import Sequence
from fluoronav.wire import encode
from fluoronav.wire.messages import PROTOCOL_VERSION
from fluoronav.wire.sockets import publisher_of_frames, publisher_of_tools, wait_for_subscriber

# Where the tracker's camera stands as seen from the X-ray source: anywhere will do, it cancels.
_T_TRACKER_CAMERA = exp_se3([0.4, -0.7, 0.2, 350.0, -900.0, 1500.0])
_TRACKER_NOISE_MM = 0.1


class Grabber:
    """Publishes ``frame/<source>`` and ``tool/<tracker>``, and writes down the truth beside them.

    Parameters
    ----------
    frames_endpoint, tools_endpoint : str
        Bound here; the tracker is silent without an endpoint.
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
        """Until somebody listens to the frames; False when nobody came."""
        return wait_for_subscriber(self._frames, self._stop)

    def stream(self, fps: float, frames: int) -> int:
        """Sends ``frames`` frames (0: until stopped) at ``fps``; returns how many were sent."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._stop.set())
        sequence = self._sequence
        int(sum(int(f[::64, ::64].sum()) for f in sequence.frames))  # into the page cache
        topic = f"frame/{self._source}".encode()
        rows, cols = sequence.frames.shape[1:]
        header = {
            "v": PROTOCOL_VERSION,
            "source": self._source,
            "rows": rows,
            "cols": cols,
            "dtype": "u1" if sequence.frames.dtype == np.uint8 else "u2",
            "bits": sequence.bits,
        }
        due = time.perf_counter()
        n = 0
        while not self._stop.is_set() and (frames == 0 or n < frames):
            _sleep_until(due)
            k = sequence.scenario.sequence_index(n)
            t_acq = time.time_ns()
            self._send_tools(k, t_acq)
            arm = sequence.joints[k]
            angles = {"orbital": arm.orbital_deg, "angular": arm.angular_deg, "swivel": arm.swivel_deg}
            of_frame = {"seq": n, "t_acq": t_acq, "angles": angles, "sid_mm": arm.source_to_isocentre_mm}
            parts = [topic, encode(header | of_frame), sequence.frames[k]]
            self._frames.send_multipart(parts, copy=False)
            self._note(n, t_acq, k)
            n += 1
            _sleep_until(due + 0.5 / fps)
            self._send_tools(k, time.time_ns())
            due += 1 / fps
        return n

    def close(self, truth: Path | None = None) -> None:
        """Closes the sockets and writes the truth, one JSON object a line."""
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
        assert self._sequence.T_ct_tool is not None and self._case.file.tracker is not None
        marker = self._case.file.tracker
        T_tracker_ct = _T_TRACKER_CAMERA @ self._sequence.T_camera_ct[k]
        poses = {
            marker.reference: T_tracker_ct @ np.array(marker.T_ct_reference),
            self._case.tools[0].id: T_tracker_ct @ self._sequence.T_ct_tool[k],
        }
        message = {
            "v": PROTOCOL_VERSION,
            "source": self._tracker,
            "seq": self._tool_seq,
            "t_acq": t_acq,
            "tools": [
                {"id": name, "visible": True, "T_tracker_tool": self._seen(T), "error_mm": 2 * _TRACKER_NOISE_MM}
                for name, T in poses.items()
            ],
        }
        self._tools.send_multipart([f"tool/{self._tracker}".encode(), encode(message)])
        self._tool_seq += 1

    def _seen(self, T_tracker_tool: NDArray) -> list[float]:
        noisy = np.array(T_tracker_tool)
        noisy[:3, 3] += self._rng.normal(0, _TRACKER_NOISE_MM / np.sqrt(3), 3)
        return noisy.ravel().tolist()


def _sleep_until(due: float) -> None:
    left = due - time.perf_counter()
    if left > 0:
        time.sleep(left)
