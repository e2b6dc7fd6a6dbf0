"""The stages in their order, and the one place that runs them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import Budget, FrameRecord, Stage
from fluoronav.stream.guidance import GuidanceStage
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.stage import RegistrationStage
from fluoronav.stream.tracking.stage import InstrumentStage
from fluoronav.stream.view.stage import ViewStage

log = logging.getLogger("fluoronav")

S = TypeVar("S")

STAGES: dict[str, Callable[[InferenceSettings], Stage]] = {
    "attenuation": lambda _: AttenuationStage(),
    "registration": RegistrationStage,
    "detection": DetectionStage,
    "instruments": lambda _: InstrumentStage(),
    "guidance": lambda _: GuidanceStage(),
    "view": ViewStage,
}


class Chain:
    """A list of stages and a loop.

    A stage that raises must not cost the surgeon the overlay: its results are left out, the error is kept for
    `health`, logged once a second at the most, and the chain goes on.

    Stages run one after the other, but for one pair: the detection reads nothing of the registration's, and runs beside
    it on the other core. Not before there is a pose: a search needs both, and nothing is detected meanwhile.
    """

    def __init__(self, names: tuple[str, ...], inference: InferenceSettings | None = None) -> None:
        self.stages = [STAGES[name](inference or InferenceSettings()) for name in names]
        self.milliseconds = {stage.name: 0.0 for stage in self.stages}
        self.failures = 0
        self.last_failure = ""
        self._logged = 0.0
        self._registration = self.find(RegistrationStage)
        # Each step is a stage, and what runs beside it once there is a pose.
        self._steps: list[tuple[Stage, Stage | None]] = []
        for stage in self.stages:
            if isinstance(stage, DetectionStage) and self._steps and self._steps[-1][0] is self._registration:
                self._steps[-1] = (self._steps[-1][0], stage)
            else:
                self._steps.append((stage, None))
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
        if not at_once:
            for stage in self.stages:
                stage.prepare(case, camera, progress)
            return
        with ThreadPoolExecutor(len(self.stages), thread_name_prefix="prepare") as threads:
            for prepared in [threads.submit(stage.prepare, case, camera, progress) for stage in self.stages]:
                prepared.result()

    def process(self, frame: FrameRecord, budget: Budget) -> dict[str, float]:
        """Runs every stage; returns the milliseconds that each took, whatever ran beside it."""
        for stage, other in self._steps:
            begun: Future[None] | None = None
            if other is not None and self._registration is not None and self._registration.latest is not None:
                begun = self._beside.submit(self._run, other, frame, budget)
            self._run(stage, frame, budget)
            if begun is not None:
                begun.result()
            elif other is not None:
                self._run(other, frame, budget)
        return self.milliseconds

    def _run(self, stage: Stage, frame: FrameRecord, budget: Budget) -> None:
        start = time.perf_counter()
        try:
            stage.process(frame, budget)
        except Exception as error:
            self._failed(stage, frame, error)
        self.milliseconds[stage.name] = (time.perf_counter() - start) * 1000

    def idle(self, budget: Budget) -> None:
        for stage in self.stages:
            stage.idle(budget)

    def close(self) -> None:
        self._beside.shutdown()
        for stage in self.stages:
            stage.close()

    def find(self, kind: type[S]) -> S | None:
        """The stage of a class, or None."""
        return next((s for s in self.stages if isinstance(s, kind)), None)

    @property
    def engines(self) -> dict[str, str]:
        return {stage.name: stage.engine for stage in self.stages}

    def _failed(self, stage: Stage, frame: FrameRecord, error: Exception) -> None:
        self.failures += 1
        self.last_failure = f"{stage.name}: {type(error).__name__}: {error}"
        if isinstance(stage, RegistrationStage):
            frame.status, frame.registration = "lost", None
        if time.monotonic() - self._logged > 1:
            self._logged = time.monotonic()
            log.exception("stage %s failed on frame %d (%d failures so far)", stage.name, frame.seq, self.failures)
