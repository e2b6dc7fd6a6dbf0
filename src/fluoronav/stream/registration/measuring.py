"""The pose measured in one frame: refinement from the last pose, within the frame's time."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.confidence import covariance_in_camera
from fluoronav.imaging.registration.gauss_newton import PoseEstimate, refine
from fluoronav.imaging.registration.graph_backend import GraphBackend
from fluoronav.imaging.registration.search import COARSE_SIDE, FINE_SIDE
from fluoronav.stream.frame import RESERVE_MS, Budget, FrameRecord
from fluoronav.stream.registration.motion import LIMITS as MOTION
from fluoronav.stream.registration.motion import change_between, motion_information
from fluoronav.stream.registration.patch_sets import Patches
from fluoronav.stream.registration.settings import SETTINGS

Float = NDArray[np.float64]


class PoseMeasurement:
    """Refines the pose in each frame.

    Parameters
    ----------
    model : Projector
        Of the patient's tissue.
    inference : InferenceSettings
        Whether the step is a graph on another engine.
    patches : Patches
        Placed for `T_camera_ct`: kernels are compiled, and graphs loaded, with them.
    T_camera_ct : ndarray, shape (4, 4)
    centre_ct : ndarray, shape (3,)

    Attributes
    ----------
    iteration_ms : float
        What an iteration is expected to take.
    settling : int
        So many frames more are refined without a prior on the motion.
    """

    def __init__(
        self, model: Projector, inference: InferenceSettings, patches: Patches, T_camera_ct: Float, centre_ct: Float
    ) -> None:
        self._centre_ct = centre_ct
        self._steps: Projector | GraphBackend = model
        self.iteration_ms, self.settling = SETTINGS.first_iteration_ms, 0
        # The model's own image is measured: in an empty one no patch has weight, and half of the code is not compiled.
        levels = [(level, model.render(T_camera_ct, level.camera), 1) for level in (patches.coarse, patches.fine)]
        estimate = refine(model, levels, T_camera_ct, centre_ct)
        if inference.registration == "graph":
            self._steps = GraphBackend(model, inference)
            # For each axis: the C-arm may turn past a diagonal in mid-stream, and nothing is loaded there.
            for (level, _, _), axis in product(levels, range(3)):
                self._steps.prepare(level, axis)
            estimate = refine(self._steps, levels, T_camera_ct, centre_ct)
        covariance_in_camera(estimate.information, T_camera_ct)

    @property
    def engine(self) -> str:
        """What it computes on."""
        return self._steps.engine if isinstance(self._steps, GraphBackend) else "cpu (numba)"

    @property
    def fault(self) -> str:
        """Why it does not run on what was asked for; empty when it does."""
        return self._steps.fault if isinstance(self._steps, GraphBackend) else ""

    def begin(self) -> None:
        """A pose has just been found."""
        self.settling = SETTINGS.settling_frames

    def has_time(self, budget: Budget) -> bool:
        """Whether an iteration fits into what is left."""
        return budget.left_ms() > self.iteration_ms + RESERVE_MS

    def skip(self) -> None:
        """No iteration is done in this frame. Without forgetting, one slow iteration would be the last."""
        self.iteration_ms *= SETTINGS.forgets

    def measure(
        self, patches: Patches, frame: FrameRecord, T_camera_ct: Float, budget: Budget, *, frames: int, overdue: bool
    ) -> PoseEstimate:
        """Refines a pose.

        Parameters
        ----------
        patches : Patches
        frame : FrameRecord
            With its pyramid.
        T_camera_ct : ndarray, shape (4, 4)
            Start.
        budget : Budget
        frames : int
            Since the pose was measured last: how far the patient may have moved.
        overdue : bool
            It takes as many iterations as it needs, late if need be.
        """
        settling = self.settling > 0
        self.settling = max(self.settling - 1, 0)
        levels = [
            (patches.coarse, frame.pyramid[COARSE_SIDE], SETTINGS.most_coarse),
            (patches.fine, frame.pyramid[FINE_SIDE], SETTINGS.most_fine),
        ]
        start = time.perf_counter()

        def refined(T_start: Float, information: Float | None) -> PoseEstimate:
            def go_on() -> bool:
                return overdue or self.has_time(budget)

            return refine(self._steps, levels, T_start, self._centre_ct, information, go_on, SETTINGS.still_mm)

        estimate = refined(T_camera_ct, None if settling else motion_information(T_camera_ct, frames))
        shift_mm, turn_deg = change_between(T_camera_ct, estimate.T_camera_ct, self._centre_ct)
        if not settling and (np.linalg.norm(shift_mm[:2]) > MOTION.jump_mm or turn_deg > MOTION.jump_deg):
            # More than a patient moves by breathing: a prior on the motion would only hold the pose back.
            again = refined(estimate.T_camera_ct, None)
            estimate = replace(again, iterations=again.iterations + estimate.iterations)
        spent_ms = (time.perf_counter() - start) * 1000 / max(estimate.iterations, 1)
        most_ms = SETTINGS.most_slower * self.iteration_ms
        self.iteration_ms += SETTINGS.learned * (min(spent_ms, most_ms) - self.iteration_ms)
        return estimate
