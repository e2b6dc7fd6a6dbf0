"""The frame path: one thread that receives, processes and sends, and waits for nothing but frames."""

from __future__ import annotations

import gc
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import zmq
from numpy.typing import NDArray

from fluoronav.site.launch import LaunchFile
from fluoronav.stream.frame import Alert, Budget, FrameRecord, ToolSample
from fluoronav.stream.pipeline.accounting import FrameAccount
from fluoronav.stream.pipeline.chain import Chain
from fluoronav.stream.pipeline.messages import alert_message, overlay_message
from fluoronav.stream.pipeline.standing import RecentFrames, Standing
from fluoronav.stream.tracking.stage import InstrumentStage
from fluoronav.stream.view.stage import Picture, ViewStage
from fluoronav.wire import FrameHeader, InvalidMessage, decode_frame, decode_tools, encode
from fluoronav.wire.clock import ClockOffset
from fluoronav.wire.messages import PROTOCOL_VERSION

log = logging.getLogger("fluoronav")

# At most so many messages are looked at before a frame is processed, whatever a sender floods us with.
_MOST_AT_ONCE = 64
# Room for a whole frame in the kernel: a sender then need not wait for our I/O thread to be scheduled.
_SOCKET_BUFFER = 4 * 2**20
_LATENCIES = 512
_LONGEST_PERIOD_S = 2.0
# How often the tracker's messages are taken up at the most, ms, and how many are looked at and read each time: a sender
# that floods us costs no frame, and the newest are what matters.
_TOOLS_EVERY_MS, _MOST_TOOLS_AT_ONCE, _NEWEST_TOOLS = 8, 512, 16
# So many rows are compared with those of the frame before: a detector's noise never repeats.
_COMPARED_ROWS = 4
# Delays of a tracker's messages up to here are transport and its own work; beyond, its clock is another. No operating
# theatre has more trackers than this.
_TRACKER_TRANSPORT_MS, _MOST_TRACKERS = 50.0, 8
_COLLECT_EVERY_S, _COLLECT_ALL_EVERY_S = 1.0, 60.0


class Publisher:
    """The one socket that everything leaves by; the lock is held for one non-blocking send.

    Attributes
    ----------
    instance : str
        Tells one start of the pipeline from another.
    """

    def __init__(self, socket: zmq.Socket[bytes], source: str) -> None:
        self._socket, self._source = socket, source
        self.instance = uuid.uuid4().hex[:16]
        self._lock = threading.Lock()
        self._topics = {kind: f"{kind}/{source}".encode() for kind in ("overlay", "alert", "health", "view")}

    def alert(self, alert: Alert, seq: int, t_acq: int) -> dict[str, Any]:
        """An alert's message as of a frame; 0 and 0 where there has been none."""
        return alert_message(alert, self._source, self.instance, seq, t_acq)

    def send(self, kind: str, message: dict[str, Any], payload: NDArray[np.uint8] | None = None) -> None:
        parts: list[Any] = [self._topics[kind], encode(message)]
        if payload is not None:
            parts.append(payload.tobytes())  # the array is overwritten with the next one
        with self._lock:
            self._socket.send_multipart(parts)


class FrameLoop:
    """Takes up the newest frame, runs the chain, sends the overlay.

    Parameters
    ----------
    context : zmq.Context
    launch : LaunchFile
    chain : Chain
        Prepared.
    account : FrameAccount
    publisher : Publisher
    wake_endpoint : str
        Inproc endpoint of a PAIR socket; a message on it makes the loop look at `commands`.
    """

    def __init__(
        self,
        context: zmq.Context,
        launch: LaunchFile,
        chain: Chain,
        account: FrameAccount,
        publisher: Publisher,
        wake_endpoint: str,
    ) -> None:
        self._launch, self._chain, self._account, self._publisher = launch, chain, account, publisher
        self._topic = f"frame/{launch.source}".encode()
        self._frames = context.socket(zmq.SUB)
        self._frames.setsockopt(zmq.RCVHWM, launch.queue_frames)
        self._frames.setsockopt(zmq.RCVBUF, _SOCKET_BUFFER)
        self._frames.setsockopt(zmq.LINGER, 0)
        self._frames.setsockopt(zmq.MAXMSGSIZE, 2**28)
        self._frames.setsockopt(zmq.SUBSCRIBE, self._topic)
        self._frames.connect(launch.endpoints.frames)
        self._wake = context.socket(zmq.PAIR)
        self._wake.connect(wake_endpoint)
        view = chain.find(ViewStage)
        if view is not None:
            view.on_picture = self._send_picture
        self._tools = None
        self._instruments = chain.find(InstrumentStage)
        if launch.endpoints.tools is not None and self._instruments is not None:
            self._tools = context.socket(zmq.SUB)
            self._tools.setsockopt(zmq.RCVHWM, 256)
            self._tools.setsockopt(zmq.LINGER, 0)
            self._tools.setsockopt(zmq.MAXMSGSIZE, 2**20)
            self._tools.setsockopt(zmq.SUBSCRIBE, b"tool/")
            self._tools.connect(launch.endpoints.tools)
        self._poller, self._poller_with_tools = zmq.Poller(), zmq.Poller()
        for poller in (self._poller, self._poller_with_tools):
            for socket in (self._frames, self._wake):
                poller.register(socket, zmq.POLLIN)
        if self._tools is not None:
            self._poller_with_tools.register(self._tools, zmq.POLLIN)
        self._tools_taken_at = 0.0
        self.commands: deque[Callable[[], None]] = deque()
        self.mode: Literal["live", "shadow"] = launch.mode
        self._stopping = False
        # What the watchdog reads: written here, whole words at a time.
        self.last_frame_at = 0.0
        self.last_seq, self.last_t_acq = 0, 0
        self.busy_since = 0.0
        self.period_s = 0.0
        self.latencies_ms = np.zeros(_LATENCIES)
        self.latency_count = 0
        self.clock_offset_ms = 0.0
        self.tools_invalid = self.tools_skipped = 0
        self.last_tool_at = 0.0
        self.tool_clocks: dict[bytes, ClockOffset] = {}
        self.invalid_text = ""
        self.first_frame_at = self.picture_changed_at = 0.0
        self.change_period_s = 0.0
        self.recent = RecentFrames()
        self.standing = Standing()
        self._compared: NDArray[Any] | None = None
        self._changed_at_ns = 0
        self.clock = ClockOffset(launch.deadline_ms / 2)
        self._collected = self._collected_all = time.monotonic()

    def run(self) -> None:
        """Until told to stop by a command."""
        try:
            while not self._stopping:
                ready = dict(self._poll())
                if self._wake in ready:
                    self._obey()
                if self._tools is not None and self._tools in ready:
                    self._take_tools()
                if self._frames in ready:
                    newest = self._newest()
                    if newest is not None:
                        self._one(*newest)
        finally:
            for socket in (self._frames, self._tools, self._wake):
                if socket is not None:
                    socket.close()

    def _poll(self) -> list[tuple[Any, int]]:
        """Waits for a frame or a command, and for the tracker, unless that was heard just now."""
        if self._tools is not None and (time.monotonic() - self._tools_taken_at) * 1000 < _TOOLS_EVERY_MS:
            ready = self._poller.poll(_TOOLS_EVERY_MS)
            if ready:
                return ready
        return self._poller_with_tools.poll()

    def stop(self) -> None:
        """A command: ends `run` after the frame at hand."""
        self._stopping = True

    def _obey(self) -> None:
        while self._wake.poll(0):
            self._wake.recv()
        while self.commands:
            self.commands.popleft()()

    def _newest(self):
        """Receives all that has arrived; what is older than the newest is counted as skipped."""
        newest = None
        for _ in range(_MOST_AT_ONCE):
            try:
                parts = self._frames.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            t_recv = time.time_ns()
            if parts[0].bytes != self._topic:
                continue  # another source whose name begins like ours
            try:
                header, counts = decode_frame([p.buffer for p in parts])
            except InvalidMessage as error:
                self._account.reject(error.field, error.seq)
                self._refused(str(error))
                continue
            refused = self._account.admit(header, t_recv)
            if refused is not None:
                self._refused(refused)
                continue
            if newest is not None:
                self._account.skip()
            newest = header, counts, t_recv
        return newest

    def _refused(self, text: str) -> None:
        self.invalid_text = text
        self.recent.refused(time.monotonic())

    def _one(self, header: FrameHeader, counts, t_recv: int) -> None:
        now = time.monotonic()
        if self.last_frame_at:
            # One silence is no slow pulse: it counts as four periods at the most.
            most = min(4 * self.period_s, _LONGEST_PERIOD_S) if self.period_s else _LONGEST_PERIOD_S
            self.period_s += 0.2 * (min(now - self.last_frame_at, most) - self.period_s)
        self.first_frame_at = self.first_frame_at or now
        self.last_frame_at = self.busy_since = now
        self.last_seq, self.last_t_acq = header.seq, header.t_acq
        if self._tools is not None:
            self._take_tools()
        delay_ms = max(self.clock.add(now, (t_recv - header.t_acq) / 1e6), 0.0)
        self.clock_offset_ms = self.clock.ms
        budget = Budget(self._launch.deadline_ms - delay_ms)
        frame = FrameRecord(
            header.seq,
            header.t_acq,
            t_recv,
            counts,
            header.bits,
            header.polarity == "inverse",
            header.i0,
            header.joints(),
            t_recv - round(delay_ms * 1e6) - header.t_acq,
            self._unchanged_ms(counts, now, t_recv),
        )
        dropped = self._account.take_up()
        stages = self._chain.process(frame, budget)
        message = overlay_message(
            frame, self._launch.source, self._launch.deadline_ms, dropped, {"receive": delay_ms, **stages}, self.mode
        )
        for alert in frame.alerts:
            self._publisher.send("alert", self._publisher.alert(alert, frame.seq, frame.t_acq))
        t_sent = max(time.time_ns(), t_recv)
        message["t_sent"] = t_sent
        message["missed"] = missed = budget.left_ms() < 0
        self._publisher.send("overlay", message)
        self._account.finished(missed)
        self.recent.taken(now, missed, dropped["network"] + dropped["overload"])
        self.standing.take(now, frame)
        self.latencies_ms[self.latency_count % _LATENCIES] = (t_sent - header.t_acq) / 1e6 - self.clock_offset_ms
        self.latency_count += 1
        self.busy_since = 0.0
        since_ms = (time.monotonic() - now) * 1000
        self._chain.idle(Budget(1000 * self.period_s - since_ms))
        self._collect_garbage()

    def _send_picture(self, picture: Picture) -> None:
        """The display's picture, from the thread that makes it."""
        rows, cols = picture.pixels.shape
        header = {
            "v": PROTOCOL_VERSION, "source": self._launch.source, "seq": picture.seq, "t_acq": picture.t_acq,
            "rows": rows, "cols": cols, "dtype": "u1", "bits": 8, "polarity": "counts",
        }  # fmt: skip
        self._publisher.send("view", header, picture.pixels)

    def _unchanged_ms(self, counts: NDArray[Any], now: float, t_recv: int) -> float:
        """For how long the picture has been the same to the last bit; 0 for one that has changed."""
        apart = max(len(counts) // _COMPARED_ROWS, 1)
        every = counts[apart // 2 :: apart]
        if self._compared is not None and np.array_equal(every, self._compared):
            return (t_recv - self._changed_at_ns) / 1e6
        if self._compared is None or self._compared.shape != every.shape or self._compared.dtype != every.dtype:
            self._compared = np.empty_like(every)
        np.copyto(self._compared, every)
        if self.picture_changed_at:
            self.change_period_s += 0.2 * (min(now - self.picture_changed_at, 2.0) - self.change_period_s)
        self.picture_changed_at, self._changed_at_ns = now, t_recv
        return 0.0

    def _take_tools(self) -> None:
        """Reads the newest messages of the tracker, oldest first; the others of a flood are counted and left out."""
        assert self._tools is not None and self._instruments is not None
        self._tools_taken_at = time.monotonic()
        newest: deque[list[bytes]] = deque(maxlen=_NEWEST_TOOLS)
        for _ in range(_MOST_TOOLS_AT_ONCE):
            try:
                parts = self._tools.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self.tools_skipped += len(newest) == _NEWEST_TOOLS
            newest.append(parts)
        for parts in newest:
            self._take_tool(parts)

    def _take_tool(self, parts: list[bytes]) -> None:
        assert self._instruments is not None
        now_ns, now = time.time_ns(), time.monotonic()
        try:
            message = decode_tools(parts)
        except InvalidMessage as error:
            self.tools_invalid += 1
            self.invalid_text = f"tool {error}"
            return
        clock = self.tool_clocks.get(parts[0])
        if clock is None:
            if len(self.tool_clocks) >= _MOST_TRACKERS:
                self.tools_invalid += 1
                self.invalid_text = f"tool source: more than {_MOST_TRACKERS} trackers send"
                return
            clock = self.tool_clocks[parts[0]] = ClockOffset(_TRACKER_TRANSPORT_MS)
        delay_ms = (now_ns - message.t_acq) / 1e6
        clock.add(now, delay_ms)
        if clock.is_early(delay_ms, self._launch.max_future_ms):
            # Believed, it would make every later sample look old.
            self.tools_invalid += 1
            self.invalid_text = "tool t_acq: lies in the future of the messages beside it"
            return
        self.last_tool_at = now
        t_local = message.t_acq + round(clock.ms * 1e6)
        for tool in message.tools:
            pose = tool.T_tracker_tool if tool.visible else None
            self._instruments.observe(
                ToolSample(
                    tool.id, t_local, None if pose is None else np.array(pose).reshape(4, 4), tool.error_mm or 0.0
                )
            )

    def _collect_garbage(self) -> None:
        """Collects when the overlay has left and no frame is waiting; collection is off otherwise."""
        now = time.monotonic()
        if now - self._collected < _COLLECT_EVERY_S or self._frames.poll(0):
            return
        self._collected = now
        if now - self._collected_all > _COLLECT_ALL_EVERY_S:
            self._collected_all = now
            gc.collect()
        else:
            gc.collect(1)
