"""The stages in their order, and the one place that runs them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain as joined
from typing import Any, TypeVar

from fluoronav.kernels import load_numba
from fluoronav.stream.frame import Budget, FrameRecord, Status
from fluoronav.stream.stage import FailsWith, HandlesRequests, MayRest, RunsNetworks, Stage

log = logging.getLogger("fluoronav")

# A stage that fails is logged so often at the most, s; chosen so that a log of an hour can be read.
_LOG_EVERY_S = 1.0

C = TypeVar("C")


def steps_of(stages: Sequence[Stage]) -> list[tuple[Stage, Stage | None]]:
    """Which stages run one after the other, and which two side by side.

    Two neighbours run side by side where neither reads or writes a field that the other writes. A stage that writes
    nothing has no work on the frame path.
    """
    steps: list[tuple[Stage, Stage | None]] = []
    for stage in stages:
        if steps and steps[-1][1] is None and _independent(steps[-1][0], stage):
            steps[-1] = (steps[-1][0], stage)
        else:
            steps.append((stage, None))
    return steps


def _independent(one: Stage, other: Stage) -> bool:
    if not one.writes or not other.writes:
        return False
    return not (one.writes & (other.reads | other.writes) or other.writes & one.reads)


class Chain:
    """Runs the stages on each frame.

    A stage that raises must not cost the surgeon the overlay: its results are left out, the error is kept for
    `health`, logged once a second at the most, and the chain goes on.

    Parameters
    ----------
    stages : sequence of Stage
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = list(stages)
        self.milliseconds = {stage.name: 0.0 for stage in self.stages}
        self.prepared_s: dict[str, float] = {}
        self.failures = 0
        self.last_failure = ""
        self._logged = 0.0
        self._last_status: Status = "no_model"
        self._models: dict[str, str] = {}
        self._steps = steps_of(self.stages)
        self._networks = [[s for s in step if isinstance(s, RunsNetworks)] for step in self._steps]
        self._resting = frozenset[str]()
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="beside")

    def prepare(self, case, camera, progress: Callable[[str], None], *, at_once: bool = False) -> None:
        """Prepares every stage.

        Parameters
        ----------
        case : Case
        camera : Camera
        progress : callable
            Told what is being done.
        at_once : bool
            All of them at once: sooner ready, but on every core, and so not beside a frame path.
        """
        self._beside.submit(int).result()  # its thread begins here, and not with a frame

        def prepare(stage: Stage) -> None:
            began = time.monotonic()
            stage.prepare(case, camera, progress)
            self.prepared_s[stage.name] = time.monotonic() - began

        if not at_once:
            for stage in self.stages:
                prepare(stage)
            return
        load_numba()
        with ThreadPoolExecutor(len(self.stages), thread_name_prefix="prepare") as threads:
            for prepared in [threads.submit(prepare, stage) for stage in self.stages]:
                prepared.result()

    def let_rest(self, names: frozenset[str]) -> None:
        """Has these stages rest, and all others work; between two frames, on the frame path's thread."""
        self._resting = names

    def process(self, frame: FrameRecord, budget: Budget) -> dict[str, float]:
        """Runs every stage; returns the milliseconds that each took, whatever ran beside it."""
        frame.last_status = self._last_status
        for (stage, other), networks in zip(self._steps, self._networks, strict=True):
            beside: Future[None] | None = None
            if other is not None and other.name not in self._resting:
                beside = self._beside.submit(self._run, other, frame, budget)
            self._run(stage, frame, budget)
            if other is not None and beside is None:
                self._run(other, frame, budget)
            if beside is not None:
                beside.result()
            for one in networks:
                self._models.update(one.models)
                frame.engine_fault = frame.engine_fault or one.fault
        frame.models = self._models
        self._last_status = frame.status
        return self.milliseconds

    def _run(self, stage: Stage, frame: FrameRecord, budget: Budget) -> None:
        start = time.perf_counter()
        try:
            if stage.name in self._resting and isinstance(stage, MayRest):
                stage.rest(frame)
            else:
                stage.process(frame, budget)
        except Exception as error:
            self._failed(stage, frame, error)
        self.milliseconds[stage.name] = (time.perf_counter() - start) * 1000

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        """Work that no overlay waits for; see :class:`.stage.Stage`."""
        for stage in self.stages:
            if stage.name in self._resting:
                continue
            try:
                stage.idle(frame, budget)
            except Exception as error:
                self._failed(stage, frame, error)

    def close(self) -> None:
        """Ends the stages' threads."""
        self._beside.shutdown()
        for stage in self.stages:
            stage.close()

    def find(self, capability: type[C]) -> C | None:
        """The first stage with a capability; None where no stage has it.

        Parameters
        ----------
        capability : type
            One of the protocols of `stage.py`.
        """
        return next((s for s in self.stages if isinstance(s, capability)), None)

    @property
    def handles(self) -> Mapping[str, Callable[..., Any]]:
        """What carries out requests, by `op`, of all stages."""
        return dict(joined.from_iterable(s.handles.items() for s in self.stages if isinstance(s, HandlesRequests)))

    @property
    def engines(self) -> dict[str, str]:
        """What each stage computes on."""
        return {stage.name: stage.engine for stage in self.stages}

    def _failed(self, stage: Stage, frame: FrameRecord, error: Exception) -> None:
        self.failures += 1
        self.last_failure = f"{stage.name}: {type(error).__name__}: {error}"
        if isinstance(stage, FailsWith):
            for name, value in stage.on_failure.items():
                setattr(frame, name, value)
        if time.monotonic() - self._logged > _LOG_EVERY_S:
            self._logged = time.monotonic()
            log.exception("stage %s failed on frame %d (%d failures so far)", stage.name, frame.seq, self.failures)
