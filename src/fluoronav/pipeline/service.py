"""One process: it loads the case, opens the sockets, runs the frame path and ends when it is told to."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time

import zmq

from fluoronav.case import Case, load_case
from fluoronav.geometry import Camera
from fluoronav.pipeline.accounting import FrameAccount
from fluoronav.pipeline.chain import Chain
from fluoronav.pipeline.frames import FrameLoop, Publisher
from fluoronav.pipeline.launch import LaunchFile
from fluoronav.pipeline.watch import Watch
from fluoronav.wire import bind

log = logging.getLogger("fluoronav")

_WAKE = "inproc://wake"


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
        self._stop = threading.Event()
        self._error: BaseException | None = None

    def stop(self) -> None:
        """Ends the service; may be called from any thread or signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Runs until stopped by :meth:`stop`, SIGTERM, SIGINT or a request.

        Raises
        ------
        CaseError, CameraError, EndpointInUse
            When it cannot start.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        # A thread that wants the interpreter back from a background job waits this long at most (Python's 5 ms is
        # a sixth of a frame).
        sys.setswitchinterval(0.0005)
        context = zmq.Context()
        out = context.socket(zmq.PUB)
        router = context.socket(zmq.ROUTER)
        wake = context.socket(zmq.PAIR)
        for socket in (out, router, wake):
            socket.setsockopt(zmq.LINGER, 200)
        router.setsockopt(zmq.MAXMSGSIZE, 2**20)
        try:
            bind(out, self._launch.endpoints.out, "out")
            bind(router, self._launch.endpoints.requests, "requests")
            wake.bind(_WAKE)
            self._serve(context, out, router, wake)
        finally:
            for socket in (out, router, wake):
                socket.close()
            context.term()
        if self._error is not None:
            raise self._error

    def _serve(self, context: zmq.Context, out: zmq.Socket, router: zmq.Socket, wake: zmq.Socket) -> None:
        publisher = Publisher(out, self._launch.source)
        watch = Watch(self._launch, router, publisher, self.stop)
        watch.start()
        chain = Chain(self._launch.stages, self._launch.inference)
        try:
            start = time.monotonic()
            camera = Camera.load(self._launch.camera)
            case: Case = load_case(self._launch.case, progress=self._progress)
            chain.prepare(case, camera, self._progress)
            account = FrameAccount(camera.rows, camera.cols, int(self._launch.max_future_ms * 1e6))
            loop = FrameLoop(context, self._launch, chain, account, publisher, _WAKE)
            # What exists now lives as long as the process: the collector need never look at it again.
            gc.collect()
            gc.freeze()
            gc.disable()
            frames = threading.Thread(target=self._frames, args=(loop, watch), name="frames")
            frames.start()
            lock = threading.Lock()

            def rouse() -> None:
                with lock:
                    wake.send(b"", zmq.NOBLOCK)

            watch.attach(case, chain, account, loop, rouse)
            log.info("ready after %.1f s: case %s, process %d", time.monotonic() - start, case.id, os.getpid())
            self._stop.wait()
            loop.commands.append(loop.stop)
            rouse()
            frames.join()
        finally:
            watch.end()
            chain.close()
            gc.enable()
            gc.unfreeze()

    def _frames(self, loop: FrameLoop, watch: Watch) -> None:
        try:
            loop.run()
        except BaseException as error:
            log.exception("the frame path has ended")
            self._error = error
            watch.fail(f"{type(error).__name__}: {error}")
            self._stop.set()
