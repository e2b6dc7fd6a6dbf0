"""What the pipeline says as an OpenIGTLink server, for 3D Slicer and others: picture, poses, structures, status.

OpenIGTLink's world is the patient in RAS (right to left, back to front, feet to head), mm; ours is LPS: x and y change
their signs.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pyigtl
import zmq
from numpy.typing import NDArray

from fluoronav.case import Case, NoGo, Structure
from fluoronav.display.case_view import surface
from fluoronav.geometry import Camera, frame_along, inverse, transform_points

log = logging.getLogger("fluoronav")

Float = NDArray[np.float64]

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PICTURES_EVERY_S, _SURFACES_EVERY_S, _POLL_MS = 0.1, 10.0, 100
# The picture hangs behind the patient, so far from the source as the target is, times this.
BEYOND = 1.35
# A client that does not keep up gets fewer pictures and poses, never a queue of old ones.
_MOST_WAITING = 12


class SlicerServer:
    """Sends what a pipeline publishes to one OpenIGTLink client at a time.

    ``IMAGE`` Fluoroscopy, lying in the patient where the beam would throw it; ``TRANSFORM`` CameraToPatient and
    <tool>ToPatient; ``POLYDATA`` one for each structure and forbidden region; ``STRING`` Status and Alert.

    Parameters
    ----------
    out, frames : str
        ZeroMQ endpoints of the pipeline and of the grabber.
    camera : Camera
    case : Case
    port : int
    interface : str, optional
        Network interface to serve at; this computer alone by default.

    Attributes
    ----------
    counts : Counter
        Messages sent, by type, and ``skipped`` for a slow client, ``invalid`` for what was no message of ours.
    """

    def __init__(
        self, out: str, frames: str, camera: Camera, case: Case, port: int, interface: str | None = None
    ) -> None:
        self._camera, self._case = camera, case
        self.counts: Counter[str] = Counter()
        self._context = zmq.Context()
        self._said, self._frames = self._context.socket(zmq.SUB), self._context.socket(zmq.SUB)
        for socket, endpoint, topics, held in (
            (self._said, out, (b"overlay/", b"alert/", b"view/"), 64), (self._frames, frames, (b"frame/",), 2)
        ):  # fmt: skip
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, held)
            for topic in topics:
                socket.setsockopt(zmq.SUBSCRIBE, topic)
            socket.connect(endpoint)
        self._server = pyigtl.OpenIGTLinkServer(port=port, local_server=interface is None, iface=interface)
        self.host: str = self._server.host
        self._T_ct_camera: Float | None = None
        self._depth_mm = 0.0
        self._status = ""
        self._picture_at = self._view_at = self._surfaces_at = -np.inf
        self._surfaces = [pyigtl.PolyDataMessage(*_cells(t), device_name=t.name) for t in _things(case)]

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until told to stop."""
        poller = zmq.Poller()
        for socket in (self._said, self._frames):
            poller.register(socket, zmq.POLLIN)
        connected = False
        while not stopping():
            ready = dict(poller.poll(_POLL_MS))
            if self._server.is_connected() != connected:
                connected = not connected
                log.info("OpenIGTLink: a client %s", "has come" if connected else "has gone")
                self._surfaces_at, self._status = -np.inf, ""
            for socket in ready:
                parts = socket.recv_multipart()
                if not connected:
                    continue
                try:
                    self._take(parts)
                except (ValueError, LookupError, TypeError, msgpack.UnpackException):
                    self.counts["invalid"] += 1
            if connected and time.monotonic() - self._surfaces_at > _SURFACES_EVERY_S:
                # Again and again: whoever comes later, or cleared the scene, has them, too.
                self._surfaces_at = time.monotonic()
                for message in self._surfaces:
                    self._send(message)

    def close(self) -> None:
        # Its accept loop may be inside a client's connection: that is what ends it.
        self._server.communication_thread_stop_requested = True
        self._server._connected = False
        self._server.shutdown()
        self._server.server_close()
        self._said.close()
        self._frames.close()
        self._context.term()

    def _take(self, parts: list[bytes]) -> None:
        kind = parts[0].split(b"/", 1)[0]
        header = msgpack.unpackb(parts[1], raw=False)
        now = time.monotonic()
        if kind == b"overlay":
            self._overlay(header)
        elif kind == b"alert":
            text = f"{header['priority'].upper()} {header['state']}: {header['text']}"
            self._send(pyigtl.StringMessage(text, device_name="Alert"))
        elif now - self._picture_at >= _PICTURES_EVERY_S and (kind == b"view" or now - self._view_at > 0.5):
            self._picture_at = now
            self._picture(header, parts[2])
        if kind == b"view":
            self._view_at = now

    def _overlay(self, header: dict[str, Any]) -> None:
        registration = header["registration"]
        status = header["status"]
        if registration is not None:
            T_camera_ct = np.array(registration["T_camera_ct"]).reshape(4, 4)
            T_ct_camera = inverse(T_camera_ct)
            self._T_ct_camera = T_ct_camera
            self._depth_mm = BEYOND * float(transform_points(T_camera_ct, self._case.target_ct[None])[0, 2])
            self._pose("CameraToPatient", T_ct_camera)
            status += f", 95 % within {registration['tre_image_mm']:.1f} mm across"
        for i in header["instruments"]:
            if i["tip_ct"] is not None and i["axis_ct"] is not None:
                self._pose(f"{i['id']}ToPatient", frame_along(i["tip_ct"], i["axis_ct"]))
        if status != self._status:
            self._status = status
            self._send(pyigtl.StringMessage(status, device_name="Status"))

    def _pose(self, name: str, T_ct_x: Float) -> None:
        self._send(pyigtl.TransformMessage(matrix=RAS_FROM_LPS @ T_ct_x, device_name=name))

    def _picture(self, header: dict[str, Any], pixels: bytes) -> None:
        rows, cols = int(header["rows"]), int(header["cols"])
        image = np.frombuffer(pixels, "<u2" if header.get("dtype") == "u2" else "u1").reshape(rows, cols)
        T = np.eye(4) if self._T_ct_camera is None else RAS_FROM_LPS @ self._T_ct_camera
        depth = self._depth_mm or 1.0
        K = self._camera.K
        scale = self._camera.cols / cols  # a view may be smaller than the frame
        first = 0.5 * scale - 0.5  # the middle of the picture's first pixel, in pixels of the frame
        plane = np.eye(4)
        plane[0, 0], plane[1, 1] = depth * scale / K[0, 0], depth * scale / K[1, 1]
        plane[:3, 3] = (first - K[0, 2]) / K[0, 0] * depth, (first - K[1, 2]) / K[1, 1] * depth, depth
        self._send(pyigtl.ImageMessage(image[None], ijk_to_world_matrix=T @ plane, device_name="Fluoroscopy"))

    def _send(self, message: Any) -> None:
        if len(self._server.outgoing_messages) > _MOST_WAITING + len(self._surfaces):
            self.counts["skipped"] += 1
            return
        message.timestamp = time.time()
        self._server.send_message(message, wait=False)
        self.counts[message._message_type] += 1


def _things(case: Case) -> tuple[Structure | NoGo, ...]:
    return (*case.structures, *case.file.no_go)


def _cells(thing: Structure | NoGo) -> tuple[None, NDArray[np.floating], None, None, NDArray[np.uint32]]:
    """No VTK object, points in RAS, no vertices, no lines; triangles, each after its number of corners."""
    points, triangles = surface(thing)
    cells = np.concatenate([np.full((len(triangles), 1), 3), triangles], axis=1).astype(np.uint32)
    return None, transform_points(RAS_FROM_LPS, points).astype(np.float32), None, None, cells.ravel()
