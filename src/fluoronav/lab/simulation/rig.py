"""The whole loop as separate processes: grabber, pipeline, and a subscriber that keeps the messages.

The demo, the latency bench and the live tests run on it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import yaml
import zmq
from numpy.typing import NDArray

from fluoronav.lab.process import end_process
from fluoronav.lab.target_error import target_error_mm
from fluoronav.wire import encode, make_request, subscriber

_CLI = (sys.executable, "-m", "fluoronav")


@dataclass(frozen=True)
class RigLimits:
    """Times of the rig, s; all chosen."""

    ready_s: float = 180.0  # until the pipeline is ready: its first start on a computer compiles kernels
    start_poll_s: float = 0.02
    watch_every_s: float = 0.5  # memory and processes, during the stream
    last_messages_s: float = 1.3  # for the last overlay, and one more health message
    end_s: float = 5.0  # for a process to end before it is killed
    reply_s: float = 5.0  # for a reply to a request


LIMITS = RigLimits()
_SLOW_SHARE = 0.1  # of the frames, late or skipped, from which a computer is called too slow; as `health` judges it


class RigError(RuntimeError):
    """A process of the rig failed; the text says which and why."""


@dataclass
class CapturedRun:
    """The messages of one run, and its truth.

    Attributes
    ----------
    overlays, alerts, health : list of (t_received_ns, message)
    truth : dict
        Lines of the grabber's truth file, by `seq`.
    sent : int
        Frames that the grabber sent.
    start_to_ready_s, start_to_overlay_s : float
        From the start of the pipeline's process; the second as if the grabber had been streaming from the beginning.
    rss_mb, cpu_percent : float
        Of the pipeline: peak of the resident memory, and mean load (100 is one core).
    ended : str
        Which process ended too early, and why; empty if none did.
    """

    overlays: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    alerts: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    health: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    truth: dict[int, dict[str, Any]] = field(default_factory=dict)
    sent: int = 0
    start_to_ready_s: float = 0.0
    start_to_overlay_s: float = 0.0
    rss_mb: float = 0.0
    cpu_percent: float = 0.0
    ended: str = ""


class Subscriber:
    """A thread that keeps every message with its time of arrival; it decodes only health, to see when all is ready."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = subscriber(self._context, endpoint, [""], high_water=0)
        self.raw: list[tuple[int, list[bytes]]] = []
        self.ready_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(100):
                continue
            parts = self._socket.recv_multipart()
            self.raw.append((time.time_ns(), parts))
            if self.ready_at or not parts[0].startswith(b"health/"):
                continue
            if msgpack.unpackb(parts[1])["state"] in ("ready", "running", "degraded"):
                self.ready_at = time.monotonic()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()
        self._context.term()

    def heard(self, kind: str) -> list[tuple[int, dict[str, Any]]]:
        """All messages of a kind, decoded."""
        prefix = kind.encode() + b"/"
        return [(t, msgpack.unpackb(parts[1])) for t, parts in self.raw if parts[0].startswith(prefix)]


def free_endpoints(transport: str, folder: Path) -> dict[str, str]:
    """Free endpoints: ``tcp`` on loopback ports, or ``ipc`` in a folder."""
    names = ("frames", "out", "requests", "tools")
    if transport == "ipc":
        return {name: f"ipc://{folder}/{name}.ipc" for name in names}
    sockets = [socket.socket() for _ in names]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    endpoints = {n: f"tcp://127.0.0.1:{s.getsockname()[1]}" for n, s in zip(names, sockets, strict=True)}
    for s in sockets:
        s.close()
    return endpoints


class SimulatedRig:
    """The pipeline, a subscriber to its messages and, on request, the display; then a grabber that streams to them.

    Parameters
    ----------
    launch : Path
        Launch file with the rig's own endpoints.
    endpoints : dict
    display_port : int, optional
    progress : callable
        Called with lines for people.
    """

    def __init__(
        self, launch: Path, endpoints: dict[str, str], display_port: int | None, progress: Callable[[str], None]
    ) -> None:
        import psutil

        self._endpoints, self._progress = endpoints, progress
        self._log_path = launch.parent / "pipeline.log"
        self._log = self._log_path.open("w+")
        self.subscriber = Subscriber(endpoints["out"])
        self._started = time.monotonic()
        self._display: subprocess.Popen[bytes] | None = None
        self._grabber: subprocess.Popen[bytes] | None = None
        if display_port is not None:
            self._display = subprocess.Popen([*_CLI, "display", str(launch), "--port", str(display_port)])
        self._pipeline = subprocess.Popen([*_CLI, "run", str(launch)], stderr=self._log)
        self._watched = psutil.Process(self._pipeline.pid)

    def ready(self) -> CapturedRun:
        """Waits until the pipeline is ready and confirms its patient; raises :class:`RigError` where that fails."""
        said = 0
        while not self.subscriber.ready_at:
            said = _pass_on(self._log_path, said, self._progress)
            if self._pipeline.poll() is not None or time.monotonic() - self._started > LIMITS.ready_s:
                raise RigError(f"the pipeline did not start: {_last_line(self._log_path)}")
            time.sleep(LIMITS.start_poll_s)
        took = self.subscriber.ready_at - self._started
        self._progress(f"pipeline ready after {took:.1f} s")
        confirm_case(self._endpoints["requests"])
        return CapturedRun(start_to_ready_s=took)

    def stream(self, grabber: list[str], run: CapturedRun) -> None:
        """Runs the grabber to its end, or until the pipeline ends; writes load, memory and `ended` into `run`."""
        self._watched.cpu_percent()
        self._grabber = subprocess.Popen(grabber)
        while self._grabber.poll() is None and not run.ended:
            if self._pipeline.poll() is not None:
                run.ended = f"the pipeline {_ended(self._pipeline)}; it said last: {_last_line(self._log_path)}"
                continue
            run.rss_mb = max(run.rss_mb, self._watched.memory_info().rss / 1e6)
            if self._display is not None and self._display.poll() is not None:
                status = self._display.returncode
                self._progress(f"the navigation display ended with {status}; the run goes on without it")
                self._display = None
            time.sleep(LIMITS.watch_every_s)
        if not run.ended:
            if self._grabber.returncode != 0:
                run.ended = f"the grabber {_ended(self._grabber)}"
            run.cpu_percent = self._watched.cpu_percent()
            time.sleep(LIMITS.last_messages_s)

    def close(self) -> None:
        """Ends the processes; the grabber first, since it then writes the truth."""
        for process in (self._grabber, self._pipeline, self._display):
            if process is not None:
                end_process(process, LIMITS.end_s)
        self.subscriber.close()
        self._log.close()


def capture_run(
    launch: dict[str, Any],
    frames: int,
    fps: float,
    transport: str = "tcp",
    progress: Callable[[str], None] = lambda text: None,
    size: int = 1024,
    display_port: int | None = None,
    collimated: tuple[str, ...] = (),
) -> CapturedRun:
    """Starts the processes, streams a sequence, and ends them.

    When a process ends during the stream, the messages until then are returned, and `ended` says which and why.

    Parameters
    ----------
    launch : dict
        Content of the launch file, with absolute paths. Endpoints, trails and session are replaced by ones of this run
        alone. The rig confirms the patient itself, since it is a simulated one.
    frames, fps : int, float
    transport : {"tcp", "ipc"}
    size : int
        Pixels along the longer side; the camera is scaled to it.
    display_port : int, optional
        Where the navigation display is served meanwhile; it prints its addresses. 0 takes a free port.
    collimated : tuple of str
        Further options of `fluoronav simulate`: the field.

    Raises
    ------
    RigError
        The pipeline did not start.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        endpoints = free_endpoints(transport, folder)
        camera = scaled_camera(launch["camera"], size, folder)
        path, truth = folder / "launch.yaml", folder / "truth.jsonl"
        own = {"endpoints": endpoints, "camera": str(camera), "audit": str(folder / "audit")}
        path.write_text(yaml.safe_dump(launch | own))
        rig = SimulatedRig(path, endpoints, display_port, progress)
        try:
            run = rig.ready()
            command = [*_CLI, "simulate", str(launch["case"]), "--camera", str(camera), "--fps", str(fps)]
            command += ["--frames", str(frames), "--truth", str(truth), "--quiet", *collimated]
            command += ["--frames-endpoint", endpoints["frames"], "--tools-endpoint", endpoints["tools"]]
            rig.stream([*command, "--source", launch.get("source", "carm0")], run)
        finally:
            rig.close()
        run.overlays, run.alerts, run.health = (rig.subscriber.heard(k) for k in ("overlay", "alert", "health"))
        lines = truth.read_text().splitlines() if truth.exists() else []  # a killed grabber has written none
        run.truth = {line["seq"]: line for line in map(json.loads, lines)}
        run.sent = len(lines)
        if run.overlays:
            received, first = run.overlays[0]
            run.start_to_overlay_s = run.start_to_ready_s + (received - first["t_acq"]) / 1e9
        return run


def why_without_a_pose(run: CapturedRun) -> str:
    """Why a run has no result: no frame got a pose, none was tracked, or a process ended; empty otherwise.

    Parameters
    ----------
    run : CapturedRun
    """
    overlays = [overlay for _, overlay in run.overlays]
    if run.ended:
        return f"{run.ended} ({len(overlays)} overlays had come)"
    posed = [overlay for overlay in overlays if overlay["registration"]]
    if any(overlay["status"] == "tracking" for overlay in posed):
        return ""
    if not run.sent:
        return "no frame was sent: nobody subscribed to the grabber's frames"
    health = run.health[-1][1] if run.health else None
    received = health["frames"]["received"] if health else 0
    statuses = [overlay["status"] for overlay in overlays]
    counted = ", ".join(f"{status} {statuses.count(status)}" for status in sorted(set(statuses)))
    if overlays:
        none = "no pose was ever tracked" if posed else f"no frame of {run.sent} got a pose"
        said = f"{none}: of {len(overlays)} overlays {counted}{_too_slow(run, overlays)}"
    else:
        said = f"no overlay came for {run.sent} frames, of which the pipeline received {received}"
    return "; ".join([said, *_complaints(run, health)])


def _too_slow(run: CapturedRun, overlays: list[dict[str, Any]]) -> str:
    """What of it is this computer's slowness, in words; empty where it keeps up."""
    late = sum(overlay.get("missed", False) for overlay in overlays)
    skipped = sum(overlay["dropped"]["overload"] for overlay in overlays)
    if late + skipped <= _SLOW_SHARE * run.sent:
        return ""
    share = 100 * late / len(overlays)
    return (
        f"; {share:.0f} % of the overlays were late and {skipped} frames of {run.sent} were skipped: this computer is "
        "too slow or too busy; end other programs and try again"
    )


def _complaints(run: CapturedRun, health: dict[str, Any] | None) -> list[str]:
    """Problems that the pipeline reported, each once: in its last health message, and in alerts."""
    said: list[str] = []
    if health is None:
        said.append("it sent no health message")
    else:
        invalid = {name: count for name, count in health.get("invalid_by_field", {}).items() if count}
        if invalid:
            said.append("invalid " + ", ".join(f"{name} {count}" for name, count in invalid.items()))
        said += [f"health says {health['state']}: {text}" for k in ("reason", "error") if (text := health.get(k))]
    return said + list(dict.fromkeys(f"alert: {a['text']}" for _, a in run.alerts if a["state"] == "raised"))


def confirm_case(requests: str, user: str = "simulation") -> None:
    """Confirms the patient of a pipeline, as a person does on the display.

    Raises
    ------
    RigError
        The pipeline does not answer, or refuses.
    """
    case = _asked(requests, make_request("status", user=user))["case"]
    _asked(requests, make_request("case.confirm", {"case": case}, user))


def _asked(endpoint: str, request: dict[str, Any]) -> dict[str, Any]:
    context = zmq.Context()
    client = context.socket(zmq.REQ)
    client.setsockopt(zmq.LINGER, 0)
    try:
        client.connect(endpoint)
        client.send(encode(request))
        if not client.poll(round(1000 * LIMITS.reply_s)):
            raise RigError(f"the pipeline does not answer {request['op']}")
        reply = msgpack.unpackb(client.recv())
    finally:
        client.close()
        context.term()
    if not reply["ok"]:
        raise RigError(f"the pipeline refuses {request['op']}: {reply['error']['text']}")
    return reply["result"]


def scaled_camera(path: str | Path, size: int, folder: Path) -> Path:
    """A camera file for frames of ``size`` pixels along the longer side."""
    from fluoronav.geometry import Camera

    camera = Camera.load(path)
    if max(camera.rows, camera.cols) == size:
        return Path(path)
    small = camera.scaled(size / max(camera.rows, camera.cols))
    out = folder / "camera.yaml"
    out.write_text(yaml.safe_dump({"rows": small.rows, "cols": small.cols, "K": small.K.tolist()}))
    return out


def tracking_errors(run: CapturedRun, target_ct: NDArray) -> dict[str, NDArray]:
    """Target registration error of every overlay's pose, at a point of the patient.

    Returns
    -------
    dict of ndarray
        ``across_mm`` (perpendicular to the ray), ``along_mm`` (signed), ``space_mm``, and the overlay's own 95 % bounds
        ``tre_mm`` and ``tre_image_mm``; one entry per overlay with a pose.
    """
    rows = []
    for _, overlay in run.overlays:
        r = overlay["registration"]
        truth = run.truth.get(overlay["seq"])
        if r is None or truth is None:
            continue
        T_camera_ct = np.array(r["T_camera_ct"]).reshape(4, 4)
        across, along = target_error_mm(T_camera_ct, truth["T_camera_ct"], target_ct)
        rows.append((across, along, np.hypot(across, along), r["tre_mm"], r["tre_image_mm"]))
    names = ("across_mm", "along_mm", "space_mm", "tre_mm", "tre_image_mm")
    return dict(zip(names, np.array(rows).reshape(-1, 5).T, strict=True))


def _pass_on(path: Path, said: int, progress: Callable[[str], None]) -> int:
    """Passes new lines of the pipeline's log on; returns the number of lines."""
    lines = path.read_text(errors="replace").splitlines()
    for line in lines[said:]:
        progress("  " + line.split(" fluoronav: ", 1)[-1])
    return len(lines)


def _ended(process: subprocess.Popen) -> str:
    """How a process ended, in words; a negative status is a signal."""
    status = process.returncode
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
