"""The whole loop as separate processes: grabber, pipeline and a subscriber that writes down what it hears.

The demo, the latency bench and the live tests all run on this.
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

from fluoronav.wire import encode, make_request, subscriber

_READY_S = 180.0


class RigError(RuntimeError):
    """A process of the rig did not do its part; the text says which and why."""


@dataclass
class Recording:
    """What the subscriber heard.

    Attributes
    ----------
    overlays, alerts, health : list of (t_received_ns, message)
    truth : dict
        The grabber's side file, by `seq`.
    sent : int
        Frames that the grabber sent.
    start_to_ready_s, start_to_overlay_s : float
        From the start of the pipeline's process; the second as if the grabber had been sending all the time.
    rss_mb, cpu_percent : float
        Of the pipeline: the highest resident memory seen, and the mean load (100 is one core).
    ended : str
        Which process ended before its time, and why; empty where all went on to the end.
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
    """A thread that keeps every message with its time of arrival and decodes none before the end."""

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
    """Endpoints that nobody uses: ``tcp`` on loopback ports, or ``ipc`` in a folder."""
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


def record(
    launch: dict[str, Any],
    frames: int,
    fps: float,
    transport: str = "tcp",
    progress: Callable[[str], None] = lambda text: None,
    size: int = 1024,
    display_port: int | None = None,
    collimated: tuple[str, ...] = (),
) -> Recording:
    """Starts everything, streams, stops everything.

    When a process ends in mid-stream, what was heard until then is returned, and `ended` says which and why.

    Parameters
    ----------
    launch : dict
        The launch file's content with absolute paths; its endpoints are replaced by free ones, and its trails and its
        session are of this run alone. The patient is a simulated one: the rig confirms it itself.
    frames, fps : int, float
    transport : {"tcp", "ipc"}
    size : int
        Pixels along a side; the camera is scaled to it.
    display_port : int, optional
        Where the navigation display is served meanwhile; it prints its addresses. 0 takes a free port.
    collimated : tuple of str
        What else `fluoronav simulate` is told: its field, as options.

    Raises
    ------
    RigError
        The pipeline did not start.
    """
    import psutil

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        endpoints = free_endpoints(transport, folder)
        camera = scaled_camera(launch["camera"], size, folder)
        path = folder / "launch.yaml"
        own = {"endpoints": endpoints, "camera": str(camera), "audit": str(folder / "audit")}
        path.write_text(yaml.safe_dump(launch | own))
        cli = [sys.executable, "-m", "fluoronav"]
        log = (folder / "pipeline.log").open("w+")
        subscriber = Subscriber(endpoints["out"])
        start = time.monotonic()
        display = None
        if display_port is not None:
            display = subprocess.Popen([*cli, "display", str(path), "--port", str(display_port)])
        pipeline = subprocess.Popen([*cli, "run", str(path)], stderr=log)
        grabber = None
        try:
            said = 0
            while not subscriber.ready_at:
                said = _pass_on(folder / "pipeline.log", said, progress)
                if pipeline.poll() is not None or time.monotonic() - start > _READY_S:
                    raise RigError(f"the pipeline did not start: {_last_line(folder / 'pipeline.log')}")
                time.sleep(0.02)
            progress(f"pipeline ready after {subscriber.ready_at - start:.1f} s")
            confirm_case(endpoints["requests"])
            out = Recording(start_to_ready_s=subscriber.ready_at - start)
            watched = psutil.Process(pipeline.pid)
            watched.cpu_percent()
            command = [*cli, "simulate", str(launch["case"]), "--camera", str(camera), "--fps", str(fps)]
            command += ["--frames", str(frames), "--truth", str(folder / "truth.jsonl"), "--quiet", *collimated]
            command += ["--frames-endpoint", endpoints["frames"], "--tools-endpoint", endpoints["tools"]]
            grabber = subprocess.Popen([*command, "--source", launch.get("source", "carm0")])
            while grabber.poll() is None and not out.ended:
                if pipeline.poll() is not None:
                    out.ended = f"the pipeline {_ended(pipeline)}; it said last: {_last_line(folder / 'pipeline.log')}"
                else:
                    out.rss_mb = max(out.rss_mb, watched.memory_info().rss / 1e6)
                    if display is not None and display.poll() is not None:
                        progress(f"the navigation display ended with {display.returncode}; the run goes on without it")
                        display = None
                    time.sleep(0.5)
            if not out.ended:
                if grabber.returncode != 0:
                    out.ended = f"the grabber {_ended(grabber)}"
                out.cpu_percent = watched.cpu_percent()
                time.sleep(1.3)  # the last overlay, and one more health
        finally:
            for process in (grabber, pipeline, display):
                if process is not None and process.poll() is None:
                    process.terminate()  # the grabber first: it writes the truth
                    try:
                        process.wait(5)
                    except subprocess.TimeoutExpired:
                        process.kill()
            subscriber.close()
            log.close()
        out.overlays, out.alerts, out.health = (subscriber.heard(k) for k in ("overlay", "alert", "health"))
        truth = folder / "truth.jsonl"  # a grabber that died has written none
        lines = truth.read_text().splitlines() if truth.exists() else []
        out.truth = {line["seq"]: line for line in map(json.loads, lines)}
        out.sent = len(lines)
        if out.overlays:
            received, first = out.overlays[0]
            out.start_to_overlay_s = out.start_to_ready_s + (received - first["t_acq"]) / 1e9
        return out


def why_without_a_pose(recording: Recording) -> str:
    """Why a run shows nothing of what it was for: no frame got a pose, or a process ended; empty where neither is so.

    Parameters
    ----------
    recording : Recording
    """
    overlays = [overlay for _, overlay in recording.overlays]
    if recording.ended:
        return f"{recording.ended} ({len(overlays)} overlays had come)"
    if any(overlay["registration"] for overlay in overlays):
        return ""
    if not recording.sent:
        return "no frame was sent: nobody subscribed to the grabber's frames"
    health = recording.health[-1][1] if recording.health else None
    received = health["frames"]["received"] if health else 0
    statuses = [overlay["status"] for overlay in overlays]
    counted = ", ".join(f"{status} {statuses.count(status)}" for status in sorted(set(statuses)))
    if overlays:
        said = f"no frame of {recording.sent} got a pose: of {len(overlays)} overlays {counted}"
    else:
        said = f"no overlay came for {recording.sent} frames, of which the pipeline received {received}"
    return "; ".join([said, *_complaints(recording, health)])


def _complaints(recording: Recording, health: dict[str, Any] | None) -> list[str]:
    """What the pipeline itself said was wrong: in its last health message, and in alerts, each once."""
    said: list[str] = []
    if health is None:
        said.append("it sent no health message")
    else:
        invalid = {name: count for name, count in health.get("invalid_by_field", {}).items() if count}
        if invalid:
            said.append("invalid " + ", ".join(f"{name} {count}" for name, count in invalid.items()))
        said += [f"health says {health['state']}: {text}" for k in ("reason", "error") if (text := health.get(k))]
    return said + list(dict.fromkeys(f"alert: {a['text']}" for _, a in recording.alerts if a["state"] == "raised"))


def confirm_case(requests: str, user: str = "simulation") -> None:
    """Confirms the patient that a pipeline has loaded, as a person does on the display.

    Raises
    ------
    RigError
        It does not answer, or refuses.
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
        if not client.poll(5000):
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


def tracking_errors(recording: Recording, target_ct: NDArray) -> dict[str, NDArray]:
    """Errors of every overlay's pose against the truth, at a point of the patient.

    Returns
    -------
    dict of ndarray
        ``across_mm`` (perpendicular to the ray), ``along_mm`` (signed), ``space_mm``, and what was claimed: ``tre_mm``,
        ``tre_image_mm``; one entry per overlay with a pose.
    """
    rows = []
    for _, overlay in recording.overlays:
        r = overlay["registration"]
        truth = recording.truth.get(overlay["seq"])
        if r is None or truth is None:
            continue
        point = np.append(target_ct, 1)
        found = (np.array(r["T_camera_ct"]).reshape(4, 4) @ point)[:3]
        true = (np.array(truth["T_camera_ct"]) @ point)[:3]
        ray = true / np.linalg.norm(true)
        along = float((found - true) @ ray)
        across = float(np.linalg.norm(found - true - along * ray))
        rows.append((across, along, np.hypot(across, along), r["tre_mm"], r["tre_image_mm"]))
    names = ("across_mm", "along_mm", "space_mm", "tre_mm", "tre_image_mm")
    return dict(zip(names, np.array(rows).reshape(-1, 5).T, strict=True))


def _pass_on(path: Path, said: int, progress: Callable[[str], None]) -> int:
    """Passes new lines of the pipeline's log on; returns how many there are now."""
    lines = path.read_text(errors="replace").splitlines()
    for line in lines[said:]:
        progress("  " + line.split(" fluoronav: ", 1)[-1])
    return len(lines)


def _ended(process: subprocess.Popen) -> str:
    """How a process ended, in words; by a signal, its status is negative."""
    status = process.returncode
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
