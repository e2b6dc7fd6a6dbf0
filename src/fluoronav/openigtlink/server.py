"""An OpenIGTLink server for 3D Slicer and others: the pipeline's picture, poses, structures and texts."""

from __future__ import annotations

import errno
import logging
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
from fluoronav.geometry import Camera, frame_along, inverse, transform_points
from fluoronav.openigtlink.alerts import AlertTexts
from fluoronav.openigtlink.checksum import crc64
from fluoronav.openigtlink.clients import Clients, Outgoing
from fluoronav.openigtlink.content import pack_image, pack_polydata, pack_string, pack_transform
from fluoronav.openigtlink.interface import address_of
from fluoronav.openigtlink.names import DeviceNames
from fluoronav.openigtlink.patient_frame import (
    PICTURE_DEPTH,
    RAS_FROM_LPS,
    age_ns,
    picture_pose,
    pixels_of,
    rigid_pose,
    surface_in_ras,
    tip_and_axis,
)
from fluoronav.openigtlink.tally import Tally
from fluoronav.wire import subscriber

log = logging.getLogger("fluoronav")

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Times and sizes of the server; all are chosen."""

    picture_every_s: float = 0.1  # Slicer draws no faster
    surfaces_every_s: float = 10.0  # repeated for clients that come later or have cleared their scene
    poll_ms: int = 100
    no_view_s: float = 0.5  # without an enhanced picture for so long frames are shown
    tool_unseen_s: float = 0.3  # a tool in no overlay for so long is reported: Slicer goes on showing where it was
    silent_s: float = 1.0  # without an overlay for so long what Slicer shows is old
    max_message_bytes: int = 1 << 26
    max_at_once: int = 64  # messages that are read before clients are served again
    max_tools: int = 64


LIMITS = ServerLimits()
_PICTURE, _CAMERA, _STATUS, _ALERT = "Fluoroscopy", "CameraToPatient", "Status", "Alert"
_TO_PATIENT = "ToPatient"
_REASONS = {
    "invalid": "messages that are none of ours, or whose numbers do not fit",
    "stuck": "clients that took nothing",
    "refused": "clients too many",
    "not_openigtlink": "clients that send what is not OpenIGTLink",
}


class SlicerServer:
    """Sends what a pipeline publishes to OpenIGTLink clients.

    ``IMAGE`` Fluoroscopy, placed in the patient on the beam; ``TRANSFORM`` CameraToPatient and <tool>ToPatient;
    ``POLYDATA`` one for each structure and forbidden region; ``STRING`` Status and Alert.

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
        Messages sent, by type, and messages not sent, by reason: ``skipped`` for a slow client, ``invalid`` for what
        is no message of ours.

    Raises
    ------
    ValueError
        The interface does not exist.
    OSError
        The port is in use.
    """

    def __init__(
        self, out: str, frames: str, camera: Camera, case: Case, port: int, interface: str | None = None
    ) -> None:
        self._camera, self._case = camera, case
        self.host = "127.0.0.1" if interface is None else address_of(interface)
        self._clients = _listening(self.host, port)
        self.port = self._clients.port
        self.counts: Counter[str] = self._clients.counts
        self._tally = Tally(self.counts, _REASONS)
        self._context = zmq.Context()
        topics, max_bytes = ("overlay/", "alert/", "health/", "view/"), LIMITS.max_message_bytes
        self._results = subscriber(self._context, out, topics, high_water=64, max_bytes=max_bytes)
        self._frames = subscriber(self._context, frames, ["frame/"], high_water=2, max_bytes=max_bytes)
        self._T_ct_camera: Float | None = None
        self._depth_mm = 0.0
        self._status = ""
        self._overlay_at = time.monotonic()
        self._picture_at = self._view_at = self._surfaces_at = -np.inf
        self._alerts = AlertTexts()
        self._tools_at: dict[str, float] = {}
        self._another_case = ""
        things = _things(case)
        self._names = DeviceNames(
            (_PICTURE, _CAMERA, _STATUS, _ALERT), (t.name for t in things), (t.id for t in case.tools), _TO_PATIENT
        )
        for long, name in self._names.changed().items():
            log.info("OpenIGTLink: %s is called %s", long, name)
        crc64(b"compiled before anybody waits for it")
        self._surfaces = {t.name: pack_polydata(*surface_in_ras(*surface(t))) for t in things}

    def run(self, stopping: Callable[[], bool]) -> None:
        """Until told to stop."""
        while not stopping():
            poller = zmq.Poller()
            for sub in (self._results, self._frames):
                poller.register(sub, zmq.POLLIN)
            for fd, events in self._clients.watched().items():
                poller.register(fd, events)
            ready = dict(poller.poll(LIMITS.poll_ms))
            for sub in (self._results, self._frames):
                if sub in ready:
                    self._drain(sub)
            self._report_silence()
            if self._clients.step(fd for fd in ready if isinstance(fd, int)):
                self._welcome()
            if time.monotonic() - self._surfaces_at > LIMITS.surfaces_every_s:
                self._send_surfaces()
            self._tally.say()

    def close(self) -> None:
        self._clients.close()
        self._results.close()
        self._frames.close()
        self._context.term()

    def _drain(self, sub: zmq.Socket[bytes]) -> None:
        for _ in range(LIMITS.max_at_once):
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
            self._clients.alert(_string(_ALERT, self._alerts.take(header)))
        elif kind == b"health":
            self._health(header)
        elif now - self._picture_at >= LIMITS.picture_every_s and (
            kind == b"view" or now - self._view_at > LIMITS.no_view_s
        ):
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
            T_camera_ct = rigid_pose(registration["T_camera_ct"])
            self._T_ct_camera = inverse(T_camera_ct)
            self._depth_mm = PICTURE_DEPTH * float(transform_points(T_camera_ct, self._case.target_ct[None])[0, 2])
            self._send_pose(self._names.of(_CAMERA), _CAMERA, self._T_ct_camera, age_ns(registration))
            status += f", 95 % within {float(registration['tre_image_mm']):.1f} mm across"
            if registration.get("accepted") is False:
                status += ", not accepted"
        for instrument in header["instruments"]:
            try:
                self._instrument(instrument)
            except (ValueError, LookupError, TypeError) as error:
                self._invalid(b"overlay, instrument", error)
        now = time.monotonic()
        unseen = sorted(tool for tool, at in self._tools_at.items() if now - at > LIMITS.tool_unseen_s)
        if unseen:
            status += f", not seen: {', '.join(unseen)}"
        if header.get("mode") == "shadow":
            status += ", shadow mode"
        self._send_status(status)

    def _instrument(self, instrument: dict[str, Any]) -> None:
        if instrument["tip_ct"] is None or instrument["axis_ct"] is None:
            return
        T_ct_tool = frame_along(*tip_and_axis(instrument))
        tool = str(instrument["id"])
        if tool in self._tools_at or len(self._tools_at) < LIMITS.max_tools:
            self._tools_at[tool] = time.monotonic()
        self._send_pose(self._names.of_tool(tool), tool + _TO_PATIENT, T_ct_tool, age_ns(instrument))

    def _health(self, health: dict[str, Any]) -> None:
        case = health.get("case")
        if isinstance(case, str) and case and (case != self._case.id) != bool(self._another_case):
            self._another_case = case if case != self._case.id else ""
            self._T_ct_camera, self._surfaces_at = None, -np.inf
            self._tools_at.clear()
        if self._another_case:
            self._send_status(f"another case is guided, {self._another_case}: start this bridge again with it")
        for text in self._alerts.reconcile(health):
            self._clients.alert(_string(_ALERT, text))

    def _report_silence(self) -> None:
        """An old pose must not pass for a new one."""
        if self._clients and not self._another_case and time.monotonic() - self._overlay_at > LIMITS.silent_s:
            self._send_status(f"nothing from the pipeline for more than {LIMITS.silent_s:g} s: what is shown is old")

    def _welcome(self) -> None:
        """A client has come: what is sent only when it changes is sent again to everybody."""
        status, self._status = self._status, ""
        if status:
            self._send_status(status)
        for text in self._alerts.open():
            self._clients.newcomer(_string(_ALERT, text))
        self._surfaces_at = -np.inf

    def _send_surfaces(self) -> None:
        self._surfaces_at = time.monotonic()
        if not self._clients:
            return
        nothing = pack_polydata(np.empty((0, 3)), np.empty((0, 3)))
        for thing, content in self._surfaces.items():
            shown = nothing if self._another_case else content
            self._clients.newest(Outgoing("POLYDATA", self._names.of(thing), thing, shown))

    def _send_pose(self, name: str, long: str, T_ct_x: Float, since_ns: int) -> None:
        content = pack_transform(RAS_FROM_LPS @ T_ct_x)
        self._clients.newest(Outgoing("TRANSFORM", name, long, content, time.time_ns() - since_ns))

    def _picture(self, header: dict[str, Any], payload: bytes) -> None:
        if self._another_case:
            return
        image = pixels_of(header, payload)
        T_ras_index = picture_pose(self._camera, self._T_ct_camera, self._depth_mm or 1.0, image.shape[1])
        self._clients.newest(Outgoing("IMAGE", _PICTURE, _PICTURE, pack_image(image, T_ras_index)))

    def _send_status(self, status: str) -> None:
        if status != self._status:
            self._status = status
            self._clients.newest(_string(_STATUS, status))


def _listening(host: str, port: int) -> Clients:
    """Opens the port; raises OSError with a text that says what to do."""
    try:
        return Clients(host, port)
    except OSError as error:
        reason = (
            "is already in use: is another bridge, Slicer or PLUS running? Give another with --serve"
            if error.errno == errno.EADDRINUSE
            else f"cannot be listened at ({error.strerror})"
        )
        raise OSError(f"port {port} of {host} {reason}") from error


def _string(name: str, text: str) -> Outgoing:
    return Outgoing("STRING", name, name, pack_string(text))


def _things(case: Case) -> tuple[Structure | NoGo, ...]:
    return (*case.structures, *case.file.no_go)
