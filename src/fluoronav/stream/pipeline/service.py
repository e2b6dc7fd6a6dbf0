"""One process: it loads the case, opens the sockets, runs the frame path and ends when it is told to."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from itertools import count

import cv2
import zmq

from fluoronav.case import Case, load_case
from fluoronav.geometry import Camera
from fluoronav.process_end import on_end_signals
from fluoronav.site.launch import LaunchFile
from fluoronav.stream.pipeline.accounting import FrameAccount
from fluoronav.stream.pipeline.chain import Chain
from fluoronav.stream.pipeline.frames import FrameLoop
from fluoronav.stream.pipeline.publisher import Publisher
from fluoronav.stream.pipeline.session import Session
from fluoronav.stream.pipeline.stages import check_order, make_stages
from fluoronav.stream.pipeline.start import CASE, STAGES, StartTimes, kernels_beside
from fluoronav.stream.pipeline.watch import Watch
from fluoronav.stream.pipeline.work import Work
from fluoronav.wire import bind
from fluoronav.wire.sockets import OUT_HELD, REPLIES_HELD

log = logging.getLogger("fluoronav")

# Of each client, while the watchdog is at something else.
_REQUESTS_HELD = 16
_WAKES = count()


class _Running:
    """What runs while one case is loaded."""

    def __init__(self, chain: Chain, loop: FrameLoop, frames: threading.Thread, wake: zmq.Socket) -> None:
        self.loop = loop
        self._chain, self._frames, self._wake = chain, frames, wake
        self._lock = threading.Lock()
        self._ended = False

    def rouse(self) -> None:
        """Has the frame path look at its commands."""
        with self._lock:
            if not self._ended:
                with contextlib.suppress(zmq.Again):  # the frame path has ended by an error
                    self._wake.send(b"", zmq.NOBLOCK)

    def end(self, why: str = "") -> None:
        """Ends the frame path after the frame at hand; more than once does no harm.

        Parameters
        ----------
        why : str
            Said of the alerts that this clears; without it they are left as they are.
        """
        if self._ended:
            return
        self.loop.commands.append(lambda: self.loop.stop(why))
        self.rouse()
        self._frames.join()
        with self._lock:
            self._ended = True
            self._wake.close()
        self._chain.close()


class Service:
    """The running pipeline.

    Parameters
    ----------
    launch : LaunchFile
    progress : callable
        Told what the start is doing.
    """

    def __init__(self, launch: LaunchFile, progress=lambda text: None) -> None:
        self._launch = launch
        self._progress = progress
        self._stop, self._call = threading.Event(), threading.Event()
        self._next_case: str | None = None
        self._over = False
        self._error: BaseException | None = None

    def stop(self) -> None:
        """Ends the service; may be called from any thread."""
        self._stop.set()
        self._call.set()

    def _told_to_end(self, number: signal.Signals) -> None:
        """A person at the keyboard ends the operation; whoever else ends the process may start it again."""
        if number == signal.SIGINT:
            self._over = True
        self.stop()

    def run(self) -> None:
        """Runs until stopped by :meth:`stop`, SIGTERM, SIGINT or a request.

        Raises
        ------
        CaseError, CameraError, EndpointInUse, LaunchError
            When it cannot start.
        """
        check_order(self._launch.stages, self._launch.path)
        if threading.current_thread() is threading.main_thread():
            on_end_signals(self._told_to_end)
        # A thread that wants the interpreter back from a background job waits this long at most (Python's 5 ms is
        # a sixth of a frame).
        sys.setswitchinterval(0.0005)
        # The frame path has one core and what is beside it the other: OpenCV's own threads would take both for each,
        # and hand over tenths of a millisecond of work (attenuation took 0.87 ms with them and 0.74 without).
        cv2.setNumThreads(1)
        context = zmq.Context()
        out = context.socket(zmq.PUB)
        router = context.socket(zmq.ROUTER)
        for socket in (out, router):
            socket.setsockopt(zmq.LINGER, 200)
        out.setsockopt(zmq.SNDHWM, OUT_HELD)
        router.setsockopt(zmq.MAXMSGSIZE, 2**20)
        router.setsockopt(zmq.RCVHWM, _REQUESTS_HELD)
        router.setsockopt(zmq.SNDHWM, REPLIES_HELD)
        if self._launch.unauthenticated:
            log.warning(
                "requests are open to other computers, whoever asks: %s (allow_unauthenticated)",
                self._launch.endpoints.requests,
            )
        try:
            bind(out, self._launch.endpoints.out, "out")
            bind(router, self._launch.endpoints.requests, "requests")
            self._serve(context, out, router)
        finally:
            for socket in (out, router):
                socket.close()
            context.term()
        if self._error is not None:
            raise self._error

    def _serve(self, context: zmq.Context, out: zmq.Socket, router: zmq.Socket) -> None:
        publisher = Publisher(out, self._launch.source)
        watch = Watch(self._launch, router, publisher, self.stop, self._load)
        watch.start()
        running: _Running | None = None
        try:
            start, times = time.monotonic(), StartTimes()
            camera = Camera.load(self._launch.camera)
            account = FrameAccount.of(camera, int(self._launch.max_future_ms * 1e6))
            with kernels_beside(self._launch.stages, self._progress, self._stop.is_set, times), times.phase(CASE):
                case, name, session = self._first_case(watch)
            if self._stop.is_set():
                return
            with times.phase(STAGES):
                chain = self._prepared(case, camera, at_once=True)
            times.note({f"stage {stage}": took for stage, took in chain.prepared_s.items()})
            log.info("start: %s", times)
            running = self._run_case(context, case, name, chain, account, publisher, watch, session)
            log.info("ready after %.1f s: case %s, process %d", time.monotonic() - start, case.id, os.getpid())
            while not self._told():
                name, self._next_case = self._next_case, None
                if name is None:
                    continue
                # The case at hand is guided by until the next one is ready, and on if that cannot be loaded.
                try:
                    case = load_case(self._launch.cases[name], progress=self._progress)
                    chain = self._prepared(case, camera, at_once=False)
                except Exception as error:
                    log.exception("the case %r cannot be loaded; the one at hand goes on", name)
                    watch.not_loaded(f"case.load {name}: {error}")
                    continue
                running.end("another case is loaded")
                watch.detach()
                running = self._run_case(context, case, name, chain, account, publisher, watch)
                log.info("case %s is loaded", case.id)
        finally:
            if running is not None:
                running.end()
            watch.end(over=self._over)
            gc.enable()
            gc.unfreeze()

    def _load(self, name: str) -> None:
        """Has the main thread load a case of the launch file."""
        self._next_case = name
        self._call.set()

    def _told(self) -> bool:
        """Waits for a case to load, or the end; true at the end."""
        self._call.wait()
        self._call.clear()
        return self._stop.is_set()

    def _first_case(self, watch: Watch) -> tuple[Case, str, Session | None]:
        """The case to begin with and its name, and the session that was interrupted, if there was one."""
        session = watch.session_before()
        name = session.case_name if session is not None else ""
        if session is not None and name:
            try:
                case = load_case(self._launch.cases[name], progress=self._progress)
                if case.id == session.case:
                    return case, name, session
                watch.not_taken_up(f"the case {name!r} was {session.case} and is {case.id}")
            except Exception as error:
                watch.not_taken_up(f"the case {name!r} cannot be loaded: {error}")
            session = None
        case = load_case(self._launch.case, progress=self._progress)
        if session is not None and case.id != session.case:
            watch.not_taken_up(f"the launch file's case was {session.case} and is {case.id}")
            session = None
        return case, "", session

    def _prepared(self, case: Case, camera: Camera, *, at_once: bool) -> Chain:
        chain = Chain(make_stages(self._launch.stages, self._launch.inference))
        try:
            chain.prepare(case, camera, self._progress, at_once=at_once)
        except BaseException:
            chain.close()
            raise
        return chain

    def _run_case(
        self, context: zmq.Context, case: Case, name: str, chain: Chain, account: FrameAccount, publisher: Publisher,
        watch: Watch, session: Session | None = None,
    ) -> _Running:  # fmt: skip
        wake, endpoint = context.socket(zmq.PAIR), f"inproc://wake-{next(_WAKES)}"
        wake.setsockopt(zmq.LINGER, 200)
        wake.bind(endpoint)
        loop = FrameLoop(context, self._launch, chain, account, publisher, endpoint)
        loop.mode = "shadow"  # until a person has confirmed the patient
        # What exists now lives as long as the case: the collector need never look at it again.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        gc.disable()
        frames = threading.Thread(target=self._frames, args=(loop, watch), name="frames")
        frames.start()
        running = _Running(chain, loop, frames, wake)
        watch.attach(Work(case, name, chain, account, loop, running.rouse), session)
        return running

    def _frames(self, loop: FrameLoop, watch: Watch) -> None:
        try:
            loop.run()
        except BaseException as error:
            log.exception("the frame path has ended")
            self._error = error
            watch.fail(f"{type(error).__name__}: {error}")
            self.stop()
