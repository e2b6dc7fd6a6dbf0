"""The messages of a pipeline from one process, for tests of the display alone: 512 x 512 frames."""

from __future__ import annotations

import threading
import time
from typing import Any

import msgpack
import numpy as np
import zmq

from fluoronav.case import load_case
from fluoronav.wire import encode

CASE = load_case("embedded")
SIDE = 512
SOURCE = "carm0"


def frame(k: int, side: int = SIDE) -> np.ndarray:
    """A frame of 16-bit counts: a ramp with a moving dark band."""
    counts = np.tile((8000 + 40000 * np.arange(side) / side).astype("<u2"), (side, 1))
    middle = (40 + 3 * k) % side
    counts[max(middle - 5, 0) : middle + 6] -= 5000
    return counts


def overlay(k: int, **changes: Any) -> dict[str, Any]:
    now = time.time_ns()
    registration = {
        "T_camera_ct": [1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 800, 0, 0, 0, 1], "score": 0.9, "sigma": [0.1] * 6,
        "tre_mm": 3.1, "tre_image_mm": 0.6, "age": 0,
    }  # fmt: skip
    instrument = {
        "id": "kwire", "kind": "k-wire", "tip_px": [300.0, 200.0], "tail_px": [420.0, 80.0], "tip_ct": [1.0, 2.0, 0.0],
        "axis_ct": [0.0, 0.0, 1.0], "sigma_mm": 0.5, "origin": "fused", "age": 0,
    }  # fmt: skip
    distance = {
        "instrument": "kwire", "structure": "spinal_cord", "distance_mm": 6.2, "lower_mm": 4.9,
        "nearest_ct": [0, 0, 0], "level": "clear", "ahead_mm": None, "contact_s": None,
    }  # fmt: skip
    plan = {
        "trajectory": "T5 left", "entry_px": [340.0, 160.0], "target_px": [250.0, 260.0], "angle_deg": 1.5,
        "lateral_mm": 0.8, "depth_left_mm": 21.4,
    }  # fmt: skip
    box = [[100.0, 100.0], [200.0, 100.0], [200.0, 180.0], [100.0, 180.0]]
    return {
        "v": 1, "source": SOURCE, "seq": k, "t_acq": now, "t_recv": now, "t_sent": now, "deadline_ms": 33.3,
        "missed": False, "dropped": {"network": 0, "overload": 0, "invalid": 0}, "stages": {"registration": 9.0},
        "status": "tracking", "registration": registration, "instruments": [instrument], "distances": [distance],
        "plan": [plan], "outlines": [{"structure": "T5", "color": "#00ff00", "paths": [box]}], "models": {},
        "mode": "live",
    } | changes  # fmt: skip


def alert(
    number: int,
    priority: str,
    state: str = "raised",
    text: str = "kwire is 0.8 mm from the spinal cord",
    **changes: Any,
) -> dict[str, Any]:
    return {
        "v": 1, "source": SOURCE, "id": f"a{number}", "seq": 1, "t_acq": time.time_ns(), "t_raised": time.time_ns(),
        "state": state, "priority": priority, "kind": "proximity", "instrument": "kwire", "structure": "spinal_cord",
        "distance_mm": 0.8, "lower_mm": 0.1, "threshold_mm": 1.0, "text": text,
    } | changes  # fmt: skip


def health(**changes: Any) -> dict[str, Any]:
    return {
        "v": 1, "source": SOURCE, "t": time.time_ns(), "state": "running", "fps_in": 30.0, "fps_out": 30.0,
        "latency_ms": {"p50": 14.0, "p99": 19.0, "max": 25.0},
        "frames": {"received": 1, "processed": 1, "network": 0, "overload": 0, "invalid": 0, "missed": 0},
        "clock_offset_ms": 0.0, "engine": {}, "case": CASE.id, "mode": "live", "version": "0",
    } | changes  # fmt: skip


class StandIn:
    """Binds the pipeline's and the grabber's sockets; answers requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        context = zmq.Context.instance()
        self.out, self.frames, self.requests = (
            context.socket(zmq.PUB),
            context.socket(zmq.PUB),
            context.socket(zmq.ROUTER),
        )
        for socket in (self.out, self.frames, self.requests):
            socket.setsockopt(zmq.LINGER, 0)
        self.endpoints = {
            name: f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
            for name, socket in (("out", self.out), ("frames", self.frames), ("requests", self.requests))
        }
        self.asked: list[dict[str, Any]] = []
        self.refusals: dict[str, dict[str, str]] = {}  # by operation: {code, text}
        self.silent: set[str] = set()  # operations that are never answered

    def say(self, kind: str, header: dict[str, Any], payload: bytes | None = None) -> None:
        parts = [f"{kind}/{SOURCE}".encode(), encode(header)]
        self.send(parts if payload is None else [*parts, payload], self.frames if kind == "frame" else self.out)

    def send(self, parts: list[bytes], socket: zmq.Socket | None = None) -> None:
        with self._lock:
            (socket or self.out).send_multipart(parts)

    def picture(self, k: int, side: int = SIDE, pixels: np.ndarray | None = None, kind: str = "frame", **more) -> None:
        """A frame or an enhanced picture (`kind` view); by default the ramp with its band."""
        pixels = frame(k, side) if pixels is None else pixels
        header = {
            "v": 1, "source": SOURCE, "seq": k, "t_acq": time.time_ns(), "rows": pixels.shape[0],
            "cols": pixels.shape[1], "dtype": f"u{pixels.itemsize}", "bits": 8 * pixels.itemsize,
        }  # fmt: skip
        self.say(kind, header | more, pixels.tobytes())

    def answer(self, wait_ms: int = 0) -> None:
        """Answers what has been asked, or is asked within a time."""
        while self.requests.poll(wait_ms):
            *envelope, body = self.requests.recv_multipart()
            asked = msgpack.unpackb(body)
            self.asked.append(asked)
            result: dict[str, Any] = {}
            if asked["op"] in self.silent:
                continue
            if asked["op"] == "case.confirm":
                result = {"confirmed": asked["args"]["case"]}
            elif asked["op"] == "registration.accept":
                result = {"accepted": True}
            elif asked["op"] == "case.info":
                result = {
                    "name": "thoracic_spine", "procedure": "Pedicle screws", "no_go": ["forbidden"],
                    "cases": ["another"],
                    "plan": [{"name": name, "target_ct": [0.0, 0.0, 0.0]} for name in ("T5 left", "T5 right")],
                }  # fmt: skip
            reply: dict[str, Any] = {"v": 1, "id": asked["id"], "ok": True, "result": result}
            if (error := self.refusals.get(asked["op"])) is not None:
                reply = {"v": 1, "id": asked["id"], "ok": False, "error": error}
            self.requests.send_multipart([*envelope, encode(reply)])

    def close(self) -> None:
        for socket in (self.out, self.frames, self.requests):
            socket.close()
