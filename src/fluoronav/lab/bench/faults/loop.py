"""The pipeline as a process, a C-arm and a tracker with faults, and the judgement of every message."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import yaml
import zmq
from numpy.typing import NDArray

from fluoronav.lab.bench.faults.judge import Exposure, Judge, Outside, Promised, Verdict
from fluoronav.lab.bench.faults.row import BenchError
from fluoronav.lab.bench.faults.scene import DANGER_FRAMES, Scene
from fluoronav.lab.simulation.grabber import frame_header
from fluoronav.lab.simulation.rig import free_endpoints
from fluoronav.wire import encode, subscriber
from fluoronav.wire.sockets import publisher_of_frames, publisher_of_tools
from fluoronav.wire.values import PROTOCOL_VERSION

Header = dict[str, Any]
AlterFrames = Callable[[Header, NDArray], list[tuple[Header, NDArray]]]
AlterTools = Callable[[dict[str, Any]], list[dict[str, Any]]]


@dataclass(frozen=True)
class LoopLimits:
    """Times of the loop, s unless said otherwise; chosen."""

    ready_s: float = 240.0  # the first start on a computer compiles kernels
    tracking_s: float = 60.0  # from ready to tracking
    reply_s: float = 3.0  # to a request
    ending_s: float = 6.0  # after a signal, before SIGKILL
    tools_per_s: float = 30.0  # messages of the tracker


LIMITS = LoopLimits()
# So many good overlays in a row are called tracking.
STEADY_OVERLAYS = 8


@dataclass(frozen=True)
class Heard:
    """A message of the pipeline: time of reception (s since the epoch), kind, content, and verdict."""

    t: float
    kind: str
    message: dict[str, Any]
    verdict: Verdict


class Loop:
    """A C-arm and a tracker in this process, and a pipeline in one of its own.

    Frames and tool messages are sent from construction to :meth:`close`, with or without a running pipeline.

    Parameters
    ----------
    folder : Path
        For the launch file, the log, trails and recordings.
    scene : Scene
    fps : float
    launch : dict
        Further keys of the launch file.
    """

    def __init__(self, folder: Path, scene: Scene, fps: float, **launch: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.scene, self.fps = folder, scene, fps
        self.endpoints = free_endpoints("tcp", folder)
        self.path = folder / "launch.yaml"
        self.audit, self.recordings = folder / "audit", folder / "recordings"
        content = {
            "case": "embedded", "camera": str(scene.camera_file), "audit": str(self.audit),
            "recordings": str(self.recordings), "endpoints": self.endpoints,
        }  # fmt: skip
        content |= launch
        self.path.write_text(yaml.safe_dump(content))
        stages = content.get("stages", ("attenuation", "registration", "instruments", "witness", "guidance"))
        watched = {s.name: (s.caution_mm or 0.0, s.danger_mm or 0.0) for s in scene.case.watched}
        promised = Promised("registration" in stages, "instruments" in stages)
        self.judge = Judge(promised, 1 / fps, scene.case.target_ct.tolist(), watched)
        self.heard: list[Heard] = []
        self.sent_at: list[float] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.next_seq = 1
        self.frames_on = self.tools_on = True
        self.tools_per_s = LIMITS.tools_per_s
        self._alter_frames: AlterFrames = lambda header, pixels: [(header, pixels)]
        self._alter_tools: AlterTools = lambda message: [message]
        self._tools_good = True
        self.tools_sent = 0
        self._exposures: dict[int, Exposure] = {}
        self._indices: dict[int, int] = {}
        self._frames_at = self._tools_at = time.time()
        self.command = [sys.executable, "-m", "fluoronav"]
        self.jumps: dict[int, int] = {}  # from a frame of the sequence to the one that is shown instead, once
        self.jumped = 0
        self.between: tuple[int, int] = DANGER_FRAMES  # frames of the sequence that are sent, forth and back
        self._k, self._step = DANGER_FRAMES[0], 1
        self._started_at = 0.0
        self._context = zmq.Context()
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=f, daemon=True) for f in (self._send_frames, self._send_tools, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    # The pipeline

    def start(self, *, tracking: bool = True) -> None:
        """Starts the pipeline, confirms the case, and waits until it tracks.

        Raises
        ------
        BenchError
        """
        self.start_unconfirmed()
        self.confirm()
        if tracking:
            self.wait(self.steady, LIMITS.tracking_s, "track")

    def start_unconfirmed(self) -> None:
        """Starts the pipeline and waits until it is ready; raises :class:`BenchError`."""
        self.judge.started()
        self._started_at = time.time()
        with (self.folder / "pipeline.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "run", str(self.path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.wait(lambda: self.health().get("state", "starting") != "starting", LIMITS.ready_s, "become ready")

    def confirm(self) -> None:
        """Confirms the patient, if the pipeline asks for it."""
        with contextlib.suppress(BenchError):
            self.ask("case.confirm", case=self.health().get("case", ""))

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends the pipeline by a signal, and by SIGKILL if that fails."""
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(LIMITS.ending_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int:
        """The pipeline's process; raises :class:`BenchError` if it has ended."""
        self.alive()
        assert self.process is not None
        return self.process.pid

    def alive(self) -> None:
        """Raises :class:`BenchError` with the last line of the log if the pipeline has ended."""
        if self.process is None:
            raise BenchError("the pipeline does not run")
        if self.process.poll() is not None:
            raise BenchError(f"the pipeline ended with {self.process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        lines = (self.folder / "pipeline.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][-200:] if lines else "it said nothing"

    def rss_mb(self) -> float:
        """Resident memory of the pipeline; 0 if the system does not tell."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except OSError:
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    # What was said

    def since(self, t: float, kind: str) -> list[Heard]:
        """Messages of a kind since a time."""
        out = []
        for h in reversed(self.heard):
            if h.t < t:
                break
            if h.kind == kind:
                out.append(h)
        return out[::-1]

    def health(self) -> dict[str, Any]:
        """The newest health of the running pipeline."""
        found = next((h for h in reversed(self.heard) if h.kind == "health"), None)
        return found.message if found is not None and found.t >= self._started_at else {}

    def index_of(self, seq: int) -> int:
        """Index in the sequence of the frame last sent under a number."""
        return self._indices[seq]

    def steady(self) -> bool:
        """Whether pose and tool are measured and right in the last overlays."""
        last = self.since(max(self._started_at, time.time() - 3), "overlay")[-STEADY_OVERLAYS:]
        tracked = self.judge.promised.tracker and self.tools_on
        return len(last) == STEADY_OVERLAYS and all(h.verdict.pose and (h.verdict.tool or not tracked) for h in last)

    def alarmed(self) -> bool:
        """Whether a danger alarm is open."""
        return any(held.level == "danger" for held in list(self.judge.open.values()))

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> None:
        """Waits for a condition; raises :class:`BenchError` if it does not hold in time, or the pipeline has ended."""
        end = time.monotonic() + seconds
        while not condition():
            self.alive()
            if time.monotonic() > end:
                raise BenchError(f"the pipeline did not {what} within {seconds:.0f} s; {self._how()}")
            time.sleep(0.02)

    def _how(self) -> str:
        h = self.health()
        last = next((h.message["status"] for h in reversed(self.heard) if h.kind == "overlay"), "none")
        return f"health {h.get('state', 'silent')}, last overlay {last}, {h.get('error') or self.last_words()}"

    def ask(self, op: str, /, seconds: float = LIMITS.reply_s, **args: Any) -> dict[str, Any]:
        """Sends a request as our clients do; returns the reply.

        Raises
        ------
        BenchError
            There was no reply.
        """
        return self.ask_raw(encode(request(op, **args)), seconds)

    def ask_raw(self, body: bytes, seconds: float = LIMITS.reply_s) -> dict[str, Any]:
        """Sends a request's bytes; returns the reply, or raises :class:`BenchError` if there is none."""
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.connect(self.endpoints["requests"])
            socket.send_multipart([b"", body])
            if not socket.poll(round(1000 * seconds)):
                raise BenchError(f"no reply to a request within {seconds:.0f} s")
            return msgpack.unpackb(socket.recv_multipart()[-1])
        finally:
            socket.close()

    def subscriber(self, *topics: bytes, held: int = 1000) -> zmq.Socket[bytes]:
        """A further subscriber to the output; the caller closes it."""
        return subscriber(self._context, self.endpoints["out"], topics, high_water=held)

    # The faults

    @contextlib.contextmanager
    def altering(
        self, frames: AlterFrames | None = None, tools: AlterTools | None = None, tools_good: bool = True
    ) -> Iterator[None]:
        """Within the context, these functions change frames and tool messages.

        Parameters
        ----------
        frames, tools : callable, optional
            From a message to the messages sent instead.
        tools_good : bool
            Whether the tool messages are still those of a working tracker.
        """
        before = self._alter_frames, self._alter_tools, self._tools_good
        self._alter_frames, self._alter_tools = frames or before[0], tools or before[1]
        self._tools_good = tools_good
        try:
            yield
        finally:
            self._alter_frames, self._alter_tools, self._tools_good = before

    def at(self, fps: float) -> None:
        """Sets the frame rate."""
        self.fps = fps
        self.judge.period_s = 1 / fps

    def close(self) -> None:
        """Ends everything."""
        self.stop()
        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._context.term()

    # Threads

    def _send_frames(self) -> None:
        socket = publisher_of_frames(self._context, self.endpoints["frames"])
        try:
            due = time.perf_counter()
            while not self._ending.is_set():
                due = _paced(due, 1 / self.fps)
                if self.frames_on:
                    self._send_frame(socket)
        finally:
            socket.setsockopt(zmq.LINGER, 0)
            socket.close()

    def _send_frame(self, socket: zmq.Socket[bytes]) -> None:
        low, high = self.between
        if self._k + self._step > high:
            self._step = -1
        elif self._k + self._step < low:
            self._step = 1
        due = self._k + self._step
        self._k = self.jumps.pop(due, due)
        self.jumped += self._k != due
        k, scene = self._k, self.scene
        pixels = scene.sequence.frames[k]
        header: Header = frame_header(scene.sequence, k, self.next_seq, time.time_ns(), "carm0")
        self.next_seq += 1
        now = time.time()
        altered = self._alter_frames(header, pixels)
        if altered:
            self._frames_at = now
            self.sent_at.append(now)
        for changed, shown in altered:
            self._indices[changed["seq"]] = k
            self._exposures[changed["seq"]] = Exposure(
                now, changed["seq"], scene.sequence.T_camera_ct[k], scene.tips_ct[k], scene.distances_mm[k]
            )
            socket.send_multipart([b"frame/carm0", encode(changed), np.ascontiguousarray(shown).tobytes()])

    def _send_tools(self) -> None:
        socket = publisher_of_tools(self._context, self.endpoints["tools"])
        try:
            due, seq = time.perf_counter(), 0
            while not self._ending.is_set():
                # In bunches, since sleeps are too coarse for the single messages of a flood.
                bunch = max(round(self.tools_per_s / 300), 1)
                due = _paced(due, bunch / self.tools_per_s)
                for _ in range(bunch if self.tools_on else 0):
                    seq += 1
                    for message in self._alter_tools(self.scene.tools(self._k, seq, time.time_ns())):
                        socket.send_multipart([b"tool/tracker0", encode(message)])
                        self.tools_sent += 1
                    if self._tools_good:
                        self._tools_at = time.time()
        finally:
            socket.setsockopt(zmq.LINGER, 0)
            socket.close()

    def _listen(self) -> None:
        socket = self.subscriber(b"overlay/", b"alert/", b"health/", held=100_000)
        try:
            while not self._ending.is_set():
                if socket.poll(50):
                    topic, body = socket.recv_multipart()[:2]
                    t = time.time()
                    message, kind = msgpack.unpackb(body), topic.split(b"/")[0].decode()
                    try:
                        verdict = self._judged(t, kind, message)
                    except (LookupError, TypeError, ValueError) as error:
                        verdict = self.judge.unreadable(t, kind, f"{type(error).__name__}: {error}")
                    self.heard.append(Heard(t, kind, message, verdict))
        finally:
            socket.close()

    def _judged(self, t: float, kind: str, message: dict[str, Any]) -> Verdict:
        if kind == "overlay":
            return self.judge.overlay(t, message, self._exposures.get(message["seq"]))
        if kind == "alert":
            self.judge.alert(t, message)
        else:
            self.judge.health(t, message, Outside(self._frames_at, self._tools_at))
        return Verdict(False, False)


def request(op: str, /, **args: Any) -> dict[str, Any]:
    """A request as our clients send it, with a new id and the time."""
    return {
        "v": PROTOCOL_VERSION, "id": uuid.uuid4().hex, "t": time.time_ns(), "op": op, "args": args, "user": "bench",
    }  # fmt: skip


def _paced(due: float, step: float) -> float:
    """Sleeps until the next period; periods more than 0.2 s in the past are left out."""
    due = max(due + step, time.perf_counter() - 0.2)
    left = due - time.perf_counter()
    if left > 0:
        time.sleep(left)
    return due
