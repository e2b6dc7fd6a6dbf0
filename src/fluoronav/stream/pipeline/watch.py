"""Beside the frame path: a thread that runs the watchdog, says health once a second, and answers requests."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from fluoronav.site.launch import LaunchFile
from fluoronav.stream.pipeline.desk import RequestDesk
from fluoronav.stream.pipeline.health import Health
from fluoronav.stream.pipeline.judge import LIMITS
from fluoronav.stream.pipeline.operations import Operations
from fluoronav.stream.pipeline.publisher import Publisher
from fluoronav.stream.pipeline.recording_process import RecordingProcess
from fluoronav.stream.pipeline.rests import Rests
from fluoronav.stream.pipeline.session import Session
from fluoronav.stream.pipeline.session_keeper import SessionKeeper
from fluoronav.stream.pipeline.watchdog import Watchdog
from fluoronav.stream.pipeline.work import Work

log = logging.getLogger("fluoronav")


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """How often the thread does what.

    Attributes
    ----------
    tend_every_s : float
        What had no room on the disk, and a session in which alerts have changed, are written so often.
    waits_s : float
        Health and that wait so long at the most for a moment between two frames.
    longest_poll_s : float
        It looks at the frames so often at the least.
    session_held_s : float
        The frame path takes up a session within milliseconds, unless it has ended by an error.
    after_error_s : float
        It waits so long after an error of its own.
    """

    tend_every_s: float = 0.3
    waits_s: float = 0.1
    longest_poll_s: float = 0.1
    session_held_s: float = 0.5
    after_error_s: float = 1.0


TIMES = WatchTimes()


class Watch:
    """The thread beside the frame path.

    Parameters
    ----------
    launch : LaunchFile
    router : zmq.Socket
        ROUTER, bound.
    publisher : Publisher
    stop : callable
        Ends the service.
    load : callable
        Has another case of the launch file loaded, by its name there.
    """

    def __init__(
        self, launch: LaunchFile, router: zmq.Socket[bytes], publisher: Publisher, stop: Callable[[], None],
        load: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._recording = RecordingProcess(launch)
        self._watchdog = Watchdog(launch.stale_ms, publisher, self._recording)
        self._rests = Rests(launch.deadline_ms)
        self._health = Health(launch, publisher, self._watchdog, self._recording, self._rests)
        self._keeper = SessionKeeper(launch)
        operations = Operations(launch, self._health, self._watchdog, self._recording, self._keeper, stop, load)
        self._desk = RequestDesk(launch, router, operations)
        self._work: Work | None = None
        self._next_tending = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def attach(self, work: Work, session: Session | None = None) -> None:
        """Watches the case at work, of a patient whom nobody has confirmed yet; the service is ready from now on.

        Parameters
        ----------
        work : Work
        session : Session, optional
            What to go on with, of the same case.
        """
        work.loop.mode = "shadow"
        if session is not None:
            self._keeper.go_on(work, session)
        self._keeper.keep(work)
        self._work = self._watchdog.work = self._desk.work = work
        self._health.attach(work)
        # What a session has open is held by the frame path before the first health says what is.
        held = threading.Event()
        work.loop.commands.append(held.set)
        work.wake()
        held.wait(TIMES.session_held_s)
        self._health.say()  # a display that waits for it is told now

    def detach(self) -> None:
        """The case at hand has ended."""
        self._work = self._watchdog.work = self._desk.work = self._health.work = None

    def not_loaded(self, text: str) -> None:
        """The case that was asked for cannot be loaded."""
        self._health.loading = ""
        self._health.not_loaded.note(text, LIMITS.not_loaded_s)
        self._health.say()

    def fail(self, text: str) -> None:
        """The frame path has ended by an error."""
        self._health.failure = text
        self._health.say()

    def session_before(self) -> Session | None:
        """The session that this start goes on with."""
        session, fault = self._keeper.before()
        if fault:
            self.not_taken_up(fault)
        return session

    def not_taken_up(self, why: str) -> None:
        """The session before the restart is not gone on with; a person hears why."""
        text = f"the session before the restart is not taken up: {why}; the launch file's first case is"
        self._health.session_fault = text
        log.warning("%s", text)

    def end(self, *, over: bool) -> None:
        """Ends the thread; `over`: the operation has ended, too, and a next start has nothing to go on with."""
        self._ending.set()
        self._thread.join(2)
        if over:
            self._keeper.end()
        self._desk.close()
        self._recording.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._once()
            except Exception as error:
                # The watchdog must outlive its own mistakes, and says so in the next health.
                self._health.stumbled.note(f"watchdog: {type(error).__name__}: {error}", LIMITS.failed_s)
                log.exception("the watchdog stumbled and goes on")
                self._ending.wait(TIMES.after_error_s)

    def _once(self) -> None:
        now = time.monotonic()
        self._watchdog.check(now)
        self._rests.check(self._work, now)
        if self._watchdog.check_recording() or self._health.changed():
            self._health.say()
        waits = 0.0 if self._between_frames(now) else TIMES.waits_s
        if now >= self._health.next_at + waits:
            self._health.say()
        if now >= self._next_tending + waits:
            self._next_tending = now + TIMES.tend_every_s
            self._desk.tend()
        wait = max(min(self._health.next_at, self._watchdog.stale_at(now)) - time.monotonic(), 0.002)
        if self._desk.poll(round(min(wait, TIMES.longest_poll_s) * 1000)):
            self._desk.answer()

    def _between_frames(self, now: float) -> bool:
        """Whether no frame is in work, nor due at once: milliseconds of Python beside one would make it wait."""
        loop = self._work.loop if self._work is not None else None
        if loop is None or not loop.last_frame_at:
            return True
        since = now - loop.last_frame_at
        return not loop.busy_since and (since < 0.6 * loop.period_s or since > 2 * loop.period_s)
