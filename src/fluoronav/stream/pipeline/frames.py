"""The frame path: one thread that receives, processes and sends, and waits for nothing but frames."""

from __future__ import annotations

import gc
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import zmq
from numpy.typing import NDArray

from fluoronav.site.launch import LaunchFile
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.pipeline.accounting import FrameAccount
from fluoronav.stream.pipeline.chain import Chain
from fluoronav.stream.pipeline.messages import overlay_message, view_header
from fluoronav.stream.pipeline.publisher import Publisher
from fluoronav.stream.pipeline.repeats import PictureRepeats
from fluoronav.stream.pipeline.standing import RecentFrames, Standing
from fluoronav.stream.pipeline.tool_intake import LIMITS as TOOL_LIMITS
from fluoronav.stream.pipeline.tool_intake import ToolIntake
from fluoronav.stream.stage import HoldsAlerts, HoldsPose, MakesPictures, ObservesTools, ViewPicture
from fluoronav.wire import FrameHeader, InvalidMessage, decode_frame, subscriber
from fluoronav.wire.clock import ClockOffset

log = logging.getLogger("fluoronav")

# At most so many messages are looked at before a frame is processed, whatever a sender floods us with.
_MOST_AT_ONCE = 64
# Room for a whole frame in the kernel: a sender then need not wait for our I/O thread to be scheduled.
_SOCKET_BUFFER = 4 * 2**20
_LATENCIES = 512
# Weight of the newest period in the mean, and the longest that counts, s: a pause is no slow pulse.
_PERIOD_LEARNED, _LONGEST_PERIOD_S = 0.2, 2.0
_COLLECT_EVERY_S, _COLLECT_ALL_EVERY_S = 1.0, 60.0


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
        self._frames = subscriber(
            context, launch.endpoints.frames, [self._topic],
            high_water=launch.queue_frames, max_bytes=2**28, receive_buffer=_SOCKET_BUFFER,
        )  # fmt: skip
        self._wake = context.socket(zmq.PAIR)
        self._wake.connect(wake_endpoint)
        view = chain.find(MakesPictures)
        if view is not None:
            view.on_picture = self._send_picture
        self._pose, self._alerts, self._observer = (
            chain.find(HoldsPose),
            chain.find(HoldsAlerts),
            chain.find(ObservesTools),
        )
        self.tools: ToolIntake | None = None
        if launch.endpoints.tools is not None and self._observer is not None:
            self.tools = ToolIntake(context, launch.endpoints.tools, self._observer, launch.max_future_ms)
        self._poller, self._poller_with_tools = zmq.Poller(), zmq.Poller()
        for poller in (self._poller, self._poller_with_tools):
            for socket in (self._frames, self._wake):
                poller.register(socket, zmq.POLLIN)
        if self.tools is not None:
            self._poller_with_tools.register(self.tools.socket, zmq.POLLIN)
        self.commands: deque[Callable[[], None]] = deque()
        self.mode: Literal["live", "shadow"] = launch.mode
        self._stopping = False
        # What the watchdog reads: written here, whole words at a time.
        self.last_frame_at = self.first_frame_at = 0.0
        self.last_seq, self.last_t_acq = 0, 0
        self.busy_since = 0.0
        self.period_s = 0.0
        self.latencies_ms = np.zeros(_LATENCIES)
        self.latency_count = 0
        self.clock_offset_ms = 0.0
        self.invalid_text = ""
        self.repeats = PictureRepeats()
        self.recent = RecentFrames()
        self.standing = Standing()
        self.clock = ClockOffset(launch.deadline_ms / 2)
        self._collected = self._collected_all = time.monotonic()

    def run(self) -> None:
        """Until told to stop by a command."""
        try:
            while not self._stopping:
                ready = dict(self._poll())
                if self._wake in ready:
                    self._obey()
                if self.tools is not None and self.tools.socket in ready:
                    self.tools.take()
                if self._frames in ready:
                    newest = self._newest()
                    if newest is not None:
                        self._one(*newest)
        finally:
            self._frames.close()
            self._wake.close()
            if self.tools is not None:
                self.tools.close()

    def _poll(self) -> list[tuple[Any, int]]:
        """Waits for a frame or a command, and for the tracker, unless that was heard just now."""
        if self.tools is not None and not self.tools.is_due():
            ready = self._poller.poll(TOOL_LIMITS.every_ms)
            if ready:
                return ready
        return self._poller_with_tools.poll()

    def stop(self, why: str = "") -> None:
        """A command: ends `run` after the frame at hand.

        Parameters
        ----------
        why : str
            Where the alerts at hand are of nothing any more: why. They are cleared.
        """
        if why and self._alerts is not None:
            for alert in self._alerts.alerts.end_all(why):
                self._publisher.send("alert", self._publisher.alert(alert, self.last_seq, self.last_t_acq))
        self._stopping = True

    def _obey(self) -> None:
        while self._wake.poll(0):
            self._wake.recv()
        while self.commands:
            self.commands.popleft()()
            self.standing.follow(self._pose, self._alerts, self._observer)

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

    def _one(self, header: FrameHeader, counts: NDArray[Any], t_recv: int) -> None:
        now = time.monotonic()
        self._note_arrival(header, now)
        if self.tools is not None:
            self.tools.take()
        frame, delay_ms = self._record(header, counts, t_recv, now)
        budget = Budget(self._launch.deadline_ms - delay_ms)
        dropped = self._account.take_up()
        stages = self._chain.process(frame, budget)
        message = overlay_message(
            frame, self._launch.source, self._launch.deadline_ms, dropped, {"receive": delay_ms, **stages}, self.mode
        )
        if header.replayed:
            message.replayed = True
        for alert in frame.alerts:
            self._publisher.send("alert", self._publisher.alert(alert, frame.seq, frame.t_acq))
        t_sent = max(time.time_ns(), t_recv)
        message.t_sent = t_sent
        message.missed = missed = budget.left_ms() < 0
        self._publisher.send("overlay", message)
        self._account.finished(missed)
        self.recent.taken(now, missed, dropped["network"] + dropped["overload"], dropped["overload"])
        self.standing.take(now, frame)
        self.standing.follow(self._pose, self._alerts, self._observer)
        self.latencies_ms[self.latency_count % _LATENCIES] = (t_sent - header.t_acq) / 1e6 - self.clock_offset_ms
        self.latency_count += 1
        self.busy_since = 0.0
        since_ms = (time.monotonic() - now) * 1000
        self._chain.idle(frame, Budget(1000 * self.period_s - since_ms))
        self._collect_garbage()

    def _note_arrival(self, header: FrameHeader, now: float) -> None:
        if self.last_frame_at:
            # One silence is no slow pulse: it counts as four periods at the most.
            most = min(4 * self.period_s, _LONGEST_PERIOD_S) if self.period_s else _LONGEST_PERIOD_S
            self.period_s += _PERIOD_LEARNED * (min(now - self.last_frame_at, most) - self.period_s)
        self.first_frame_at = self.first_frame_at or now
        self.last_frame_at = self.busy_since = now
        self.last_seq, self.last_t_acq = header.seq, header.t_acq

    def _record(self, header: FrameHeader, counts: NDArray[Any], t_recv: int, now: float) -> tuple[FrameRecord, float]:
        """The frame's record, and how long ago it was exposed, ms."""
        delay_ms = max(self.clock.add(now, (t_recv - header.t_acq) / 1e6), 0.0)
        self.clock_offset_ms = self.clock.ms
        frame = FrameRecord(
            seq=header.seq,
            t_acq=header.t_acq,
            t_recv=t_recv,
            counts=counts,
            bits=header.bits,
            inverse=header.polarity == "inverse",
            open_beam=header.i0,
            joints=header.joints(),
            clock_offset_ns=t_recv - round(delay_ms * 1e6) - header.t_acq,
            unchanged_ms=self.repeats.unchanged_ms(counts, now, t_recv),
        )
        return frame, delay_ms

    def _send_picture(self, picture: ViewPicture) -> None:
        """The display's picture, from the thread that makes it."""
        header = view_header(self._launch.source, picture.seq, picture.t_acq, picture.pixels)
        self._publisher.send("view", header, picture.pixels)

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
