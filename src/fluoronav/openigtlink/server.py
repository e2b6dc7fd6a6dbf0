"""What the pipeline says as an OpenIGTLink server, for 3D Slicer and others: picture, poses, structures, words.

OpenIGTLink's world is the patient in RAS (right to left, back to front, feet to head), mm; ours is LPS: x and y change
their signs.
"""

from __future__ import annotations

import errno
import logging
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import zmq
from numpy.typing import NDArray

from fluoronav.case import Case, NoGo, Structure
from fluoronav.case.surface import surface
from fluoronav.geometry import Camera, frame_along, inverse, is_rigid, transform_points
from fluoronav.openigtlink.checksum import crc64
from fluoronav.openigtlink.clients import Clients, Outgoing
from fluoronav.openigtlink.content import pack_image, pack_polydata, pack_string, pack_transform
from fluoronav.openigtlink.names import DeviceNames
from fluoronav.openigtlink.tally import Tally

log = logging.getLogger("fluoronav")

Float = NDArray[np.float64]

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PICTURES_EVERY_S, _SURFACES_EVERY_S, _POLL_MS = 0.1, 10.0, 100
# Frames are shown where no enhanced picture has come for so long.
_NO_VIEW_S = 0.5
# A tool that was shown and is in no overlay for so long is said not to be seen: Slicer goes on showing where it was.
_UNSEEN_S = 0.3
# No overlay for so long: what Slicer shows is old.
_SILENT_S = 1.0
# The picture hangs behind the patient, so far from the source as the target is, times this.
BEYOND = 1.35
_PICTURE, _CAMERA, _STATUS, _ALERT = "Fluoroscopy", "CameraToPatient", "Status", "Alert"
_TO_PATIENT = "ToPatient"
_MOST_MESSAGE_BYTES = 1 << 26
_MOST_AT_ONCE, _MOST_TOOLS = 64, 64
_WORDS = {
    "invalid": "messages that are none of ours, or whose numbers do not fit",
    "stuck": "clients that took nothing",
    "refused": "clients too many",
    "not_openigtlink": "clients that send what is not OpenIGTLink",
}


@dataclass(frozen=True, slots=True)
class _Alert:
    priority: str
    state: str
    text: str

    @staticmethod
    def of(message: dict[str, Any]) -> _Alert:
        return _Alert(str(message["priority"]), str(message["state"]), str(message["text"]))

    def words(self, state: str = "") -> str:
        return f"{self.priority.upper()} {state or self.state}: {self.text}"


class SlicerServer:
    """Sends what a pipeline publishes to OpenIGTLink clients.

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
        Network interface to serve at, or its address; this computer alone by default.

    Attributes
    ----------
    counts : Counter
        Messages sent, by type, and by reason what was not: ``skipped`` for a slow client, ``invalid`` for what was no
        message of ours.

    Raises
    ------
    ValueError
        The interface is not there.
    OSError
        The port is in use.
    """

    def __init__(
        self, out: str, frames: str, camera: Camera, case: Case, port: int, interface: str | None = None
    ) -> None:
        self._camera, self._case = camera, case
        self.host = "127.0.0.1" if interface is None else address_of(interface)
        try:
            self._clients = Clients(self.host, port)
        except OSError as error:
            reason = (
                "is already in use: is another bridge, Slicer or PLUS running? Give another with --serve"
                if error.errno == errno.EADDRINUSE
                else f"cannot be listened at ({error.strerror})"
            )
            raise OSError(f"port {port} of {self.host} {reason}") from error
        self.port = self._clients.port
        self.counts: Counter[str] = self._clients.counts
        self._tally = Tally(self.counts, _WORDS)
        self._context = zmq.Context()
        self._said, self._frames = self._context.socket(zmq.SUB), self._context.socket(zmq.SUB)
        for sub, endpoint, topics, held in (
            (self._said, out, (b"overlay/", b"alert/", b"health/", b"view/"), 64),
            (self._frames, frames, (b"frame/",), 2),
        ):
            sub.setsockopt(zmq.LINGER, 0)
            sub.setsockopt(zmq.RCVHWM, held)
            sub.setsockopt(zmq.MAXMSGSIZE, _MOST_MESSAGE_BYTES)
            for topic in topics:
                sub.setsockopt(zmq.SUBSCRIBE, topic)
            sub.connect(endpoint)
        self._T_ct_camera: Float | None = None
        self._depth_mm = 0.0
        self._status = ""
        self._overlay_at = time.monotonic()
        self._picture_at = self._view_at = self._surfaces_at = -np.inf
        self._alerts: dict[str, _Alert] = {}
        self._instance: str | None = None
        self._tools_at: dict[str, float] = {}
        self._another_case = ""
        things = _things(case)
        self._names = DeviceNames(
            (_PICTURE, _CAMERA, _STATUS, _ALERT), (t.name for t in things), (t.id for t in case.tools), _TO_PATIENT
        )
        for long, name in self._names.changed().items():
            log.info("OpenIGTLink: %s is called %s", long, name)
        crc64(b"compiled before anybody waits for it")
        self._surfaces = {t.name: pack_polydata(*_in_ras(*surface(t))) for t in things}

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until told to stop."""
        while not stopping():
            poller = zmq.Poller()
            for sub in (self._said, self._frames):
                poller.register(sub, zmq.POLLIN)
            for fd, what in self._clients.watched().items():
                poller.register(fd, what)
            ready = dict(poller.poll(_POLL_MS))
            for sub in (self._said, self._frames):
                if sub in ready:
                    self._drain(sub)
            self._pipeline_silent()
            if self._clients.step(fd for fd in ready if isinstance(fd, int)):
                self._welcome()
            if time.monotonic() - self._surfaces_at > _SURFACES_EVERY_S:
                # Again and again: whoever comes later, or cleared the scene, has them, too.
                self._send_surfaces()
            self._tally.say()

    def close(self) -> None:
        self._clients.close()
        self._said.close()
        self._frames.close()
        self._context.term()

    def _drain(self, sub: zmq.Socket[bytes]) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                parts = sub.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._take(parts)
            except (ValueError, LookupError, TypeError, AttributeError, msgpack.UnpackException) as error:
                self._invalid(parts[0], error)

    def _take(self, parts: list[bytes]) -> None:
        kind = parts[0].split(b"/", 1)[0]
        if kind in (b"frame", b"view") and not self._clients:
            return
        header = msgpack.unpackb(parts[1], raw=False)
        if not isinstance(header, dict):
            raise TypeError(f"a header is a map, not {type(header).__name__}")
        now = time.monotonic()
        if kind == b"overlay":
            self._overlay_at = now
            self._overlay(header)
        elif kind == b"alert":
            self._alert(header)
        elif kind == b"health":
            self._health(header)
        elif now - self._picture_at >= _PICTURES_EVERY_S and (kind == b"view" or now - self._view_at > _NO_VIEW_S):
            self._picture_at = now
            self._picture(header, parts[2])
        if kind == b"view":
            self._view_at = now

    def _invalid(self, topic: bytes, error: Exception) -> None:
        self.counts["invalid"] += 1
        self._tally.note("invalid", f"{topic[:40].decode(errors='replace')}: {type(error).__name__} {error}"[:200])

    def _overlay(self, header: dict[str, Any]) -> None:
        status, registration = str(header["status"]), header["registration"]
        if self._another_case:
            return
        if registration is not None:
            T_camera_ct = _pose(registration["T_camera_ct"])
            self._T_ct_camera = inverse(T_camera_ct)
            self._depth_mm = BEYOND * float(transform_points(T_camera_ct, self._case.target_ct[None])[0, 2])
            self._send_pose(self._names.of(_CAMERA), _CAMERA, self._T_ct_camera, _age_ns(registration))
            status += f", 95 % within {float(registration['tre_image_mm']):.1f} mm across"
            if registration.get("accepted") is False:
                status += ", not accepted"
        for instrument in header["instruments"]:
            try:
                self._instrument(instrument)
            except (ValueError, LookupError, TypeError) as error:
                self._invalid(b"overlay, instrument", error)
        now = time.monotonic()
        unseen = sorted(tool for tool, at in self._tools_at.items() if now - at > _UNSEEN_S)
        if unseen:
            status += f", not seen: {', '.join(unseen)}"
        if header.get("mode") == "shadow":
            status += ", shadow mode"
        self._say(status)

    def _instrument(self, instrument: dict[str, Any]) -> None:
        if instrument["tip_ct"] is None or instrument["axis_ct"] is None:
            return
        tip, axis = np.array(instrument["tip_ct"], np.float64), np.array(instrument["axis_ct"], np.float64)
        if tip.shape != (3,) or axis.shape != (3,) or not (np.isfinite([tip, axis]).all() and axis.any()):
            raise ValueError(f"{instrument['id']}: tip or axis is no point and direction")
        tool = str(instrument["id"])
        if tool in self._tools_at or len(self._tools_at) < _MOST_TOOLS:
            self._tools_at[tool] = time.monotonic()
        self._send_pose(self._names.of_tool(tool), tool + _TO_PATIENT, frame_along(tip, axis), _age_ns(instrument))

    def _alert(self, alert: dict[str, Any]) -> None:
        # An alert without an id can be said, but not kept for whoever comes later.
        known, said = str(alert.get("id", "")), _Alert.of(alert)
        self._clients.alert(_string(_ALERT, said.words()))
        if known and said.state == "cleared":
            self._alerts.pop(known, None)
        elif known:
            self._alerts[known] = said

    def _health(self, health: dict[str, Any]) -> None:
        case = health.get("case")
        if isinstance(case, str) and case and (case != self._case.id) != bool(self._another_case):
            self._another_case = case if case != self._case.id else ""
            self._T_ct_camera, self._surfaces_at = None, -np.inf
            self._tools_at.clear()
        if self._another_case:
            self._say(f"another case is guided, {self._another_case}: start this bridge again with it")
        open_now = health.get("alerts")
        if not isinstance(open_now, list):
            return
        instance, before = str(health.get("instance", "")), self._instance
        by_id = {str(a["id"]): _Alert.of(a) for a in open_now}
        self._instance = instance
        for gone in [k for k in self._alerts if k not in by_id or before not in (None, instance)]:
            self._clients.alert(_string(_ALERT, self._alerts.pop(gone).words("no longer open")))
        for known, alert in by_id.items():
            if known not in self._alerts:
                self._clients.alert(_string(_ALERT, alert.words()))
            self._alerts[known] = alert

    def _pipeline_silent(self) -> None:
        """An old pose must not pass for a new one."""
        if self._clients and not self._another_case and time.monotonic() - self._overlay_at > _SILENT_S:
            self._say(f"nothing from the pipeline for more than {_SILENT_S:g} s: what is shown is old")

    def _welcome(self) -> None:
        """Everything that is said once is said again to everybody, since somebody has come."""
        status, self._status = self._status, ""
        if status:
            self._say(status)
        for alert in self._alerts.values():
            self._clients.newcomer(_string(_ALERT, alert.words()))
        self._surfaces_at = -np.inf

    def _send_surfaces(self) -> None:
        self._surfaces_at = time.monotonic()
        if not self._clients:
            return
        nothing = pack_polydata(np.empty((0, 3)), np.empty((0, 3)))
        for thing, content in self._surfaces.items():
            shown = nothing if self._another_case else content
            self._clients.newest(Outgoing("POLYDATA", self._names.of(thing), thing, shown))

    def _send_pose(self, name: str, long: str, T_ct_x: Float, age_ns: int) -> None:
        content = pack_transform(RAS_FROM_LPS @ T_ct_x)
        self._clients.newest(Outgoing("TRANSFORM", name, long, content, time.time_ns() - age_ns))

    def _picture(self, header: dict[str, Any], pixels: bytes) -> None:
        if self._another_case:
            return
        rows, cols = int(header["rows"]), int(header["cols"])
        image = np.frombuffer(pixels, "<u2" if header.get("dtype") == "u2" else "u1")
        if min(rows, cols) < 1 or image.size != rows * cols:
            raise ValueError(f"{rows} x {cols} pixels are announced, {image.size} have come")
        T = np.eye(4) if self._T_ct_camera is None else RAS_FROM_LPS @ self._T_ct_camera
        depth = self._depth_mm or 1.0
        K = self._camera.K
        scale = self._camera.cols / cols  # a view may be smaller than the frame
        first = 0.5 * scale - 0.5  # the middle of the picture's first pixel, in pixels of the frame
        plane = np.eye(4)
        plane[0, 0], plane[1, 1] = depth * scale / K[0, 0], depth * scale / K[1, 1]
        plane[:3, 3] = (first - K[0, 2]) / K[0, 0] * depth, (first - K[1, 2]) / K[1, 1] * depth, depth
        content = pack_image(image.reshape(rows, cols), T @ plane)
        self._clients.newest(Outgoing("IMAGE", _PICTURE, _PICTURE, content))

    def _say(self, status: str) -> None:
        if status != self._status:
            self._status = status
            self._clients.newest(_string(_STATUS, status))


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface, or the address itself.

    Raises
    ------
    ValueError
        It is neither; the text names those that are there.
    """
    try:
        return str(socket.inet_ntoa(socket.inet_aton(interface)))
    except OSError:
        pass
    known = [name for _, name in socket.if_nameindex()]
    if interface not in known:
        raise ValueError(f"--interface {interface}: this computer has {', '.join(known)}")
    if sys.platform != "linux":
        raise ValueError(f"--interface {interface}: give its address, for example 192.168.1.20")
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            answer = fcntl.ioctl(asked, 0x8915, interface.encode()[:15].ljust(40, b"\0"))  # SIOCGIFADDR
        except OSError as error:
            raise ValueError(f"--interface {interface}: it has no IPv4 address ({error.strerror})") from error
    return socket.inet_ntoa(answer[20:24])


def _string(name: str, text: str) -> Outgoing:
    return Outgoing("STRING", name, name, pack_string(text))


def _pose(numbers: Any) -> Float:
    T = np.array(numbers, np.float64).reshape(4, 4)
    if not is_rigid(T):
        raise ValueError("T_camera_ct is no rigid, right-handed motion")
    return T


def _age_ns(measured: dict[str, Any]) -> int:
    """Since a pose was measured; 0 where the pipeline does not say it."""
    age_ms = measured.get("age_ms")
    return int(1e6 * age_ms) if isinstance(age_ms, int | float) and 0 <= age_ms < 1e9 else 0


def _things(case: Case) -> tuple[Structure | NoGo, ...]:
    return (*case.structures, *case.file.no_go)


def _in_ras(points: Float, triangles: NDArray[np.int64]) -> tuple[Float, NDArray[np.int64]]:
    return transform_points(RAS_FROM_LPS, points) if len(points) else points, triangles
