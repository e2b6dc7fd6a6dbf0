"""The pose measured in one frame: refinement from the last pose, within the frame's time."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.confidence import TRACKING_SCORE, covariance_in_camera
from fluoronav.imaging.registration.gauss_newton import PoseEstimate, refine
from fluoronav.imaging.registration.graph_backend import GraphBackend
from fluoronav.imaging.registration.keyframes import KeyframeModel
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import COARSE_SIDE, FINE_SIDE
from fluoronav.stream.frame import RESERVE_MS, Budget, FrameRecord
from fluoronav.stream.registration.keyframe_ahead import KeyframeAhead
from fluoronav.stream.registration.motion import LIMITS as MOTION
from fluoronav.stream.registration.motion import change_between, motion_information
from fluoronav.stream.registration.patch_sets import PatchSets
from fluoronav.stream.registration.settings import SETTINGS

Float = NDArray[np.float64]


class PoseMeasurement:
    """Refines the pose in each frame, from keyframes or with a graph.

    Parameters
    ----------
    model : Projector
        Of the patient's tissue.
    inference : InferenceSettings
        Whether the step is a graph on another engine.
    patch_sets : PatchSets
        Placed for `T_camera_ct`: kernels are compiled, and graphs loaded, with them.
    T_camera_ct : ndarray, shape (4, 4)
    centre_ct : ndarray, shape (3,)

    Attributes
    ----------
    iteration_ms, render_ms : float
        What an iteration, and the render of a keyframe in a frame, are expected to take.
    settling : int
        So many frames more are refined without a prior on the motion.
    """

    def __init__(
        self,
        model: Projector,
        inference: InferenceSettings,
        patch_sets: PatchSets,
        T_camera_ct: Float,
        centre_ct: Float,
    ) -> None:
        self._centre_ct, self._sets = centre_ct, patch_sets
        self._steps: KeyframeModel | GraphBackend = patch_sets.keyframes
        self._ahead = KeyframeAhead(patch_sets)
        self.iteration_ms, self.render_ms = SETTINGS.first_iteration_ms, SETTINGS.first_render_ms
        self.settling = 0
        patches = patch_sets.in_use
        # The model's own image is measured: in an empty one no patch has weight, and half of the code is not compiled.
        levels = [(level, model.render(T_camera_ct, level.camera), 1) for level in (patches.coarse, patches.fine)]
        estimate = refine(self._steps, levels, T_camera_ct, centre_ct)
        patch_sets.render_next(patches, estimate.T_camera_ct)
        if inference.registration == "graph":
            self._steps = GraphBackend(model, inference)
            patch_sets.with_keyframes = False
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
        self._ahead.begin()

    def wait(self) -> None:
        """Returns when no keyframe is being rendered; for benches and tests, never on the frame path."""
        self._ahead.wait()

    def close(self) -> None:
        self._ahead.close()

    def has_time(self, budget: Budget) -> bool:
        """Whether an iteration fits into what is left."""
        return budget.left_ms() > self.iteration_ms + RESERVE_MS

    def skip(self) -> None:
        """No iteration is done in this frame. Without forgetting, one slow iteration would be the last."""
        self.iteration_ms *= SETTINGS.forgets
        self.render_ms *= SETTINGS.forgets

    def measure(
        self, frame: FrameRecord, T_camera_ct: Float, budget: Budget, *, frames: int, overdue: bool
    ) -> PoseEstimate | None:
        """Refines a pose with the patches in use; None where its keyframe is late and there is no time to render one.

        Parameters
        ----------
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
        patches = self._sets.in_use
        settling = self.settling > 0
        self._ahead.take(patches, T_camera_ct)

        def go_on(level: PatchLevel, T: Float) -> bool:
            return overdue or budget.left_ms() > self._expected_ms(level, T) + RESERVE_MS

        def refined(T_start: Float, information: Float | None, coarse: bool) -> PoseEstimate:
            return refine(
                self._steps, levels if coarse else levels[1:], T_start, self._centre_ct, information, go_on,
                SETTINGS.still_mm,
            )  # fmt: skip

        levels = [
            (patches.coarse, frame.pyramid[COARSE_SIDE], SETTINGS.most_coarse),
            (patches.fine, frame.pyramid[FINE_SIDE], SETTINGS.most_fine),
        ]
        near = not settling and frames == 1 and isinstance(self._steps, KeyframeModel)
        if not settling and not go_on(patches.fine if near else patches.coarse, T_camera_ct):
            self.skip()
            return None
        self.settling = max(self.settling - 1, 0)
        start, renders = time.perf_counter(), self._sets.keyframes.rendered_in_frames
        information = None if settling else motion_information(T_camera_ct, frames)
        estimate = refined(T_camera_ct, information, not near)
        if near and (self._has_jumped(T_camera_ct, estimate) or estimate.score < TRACKING_SCORE):
            # Too far for the fine level alone.
            coarse = refined(T_camera_ct, information, True)
            estimate = replace(coarse, iterations=coarse.iterations + estimate.iterations)
        if not settling and self._has_jumped(T_camera_ct, estimate):
            # More than a patient moves by breathing: a prior on the motion would only hold the pose back.
            again = refined(estimate.T_camera_ct, None, True)
            estimate = replace(again, iterations=again.iterations + estimate.iterations)
        self._learn(time.perf_counter() - start, estimate.iterations, renders)
        return estimate

    def render_ahead(self, T_camera_ct: Float) -> None:
        """Has the next keyframe rendered beside the frame path, where a pose that was measured nears the edge."""
        if isinstance(self._steps, KeyframeModel):
            self._ahead.ask(self._sets.in_use, T_camera_ct)

    def _has_jumped(self, T_camera_ct: Float, estimate: PoseEstimate) -> bool:
        shift_mm, turn_deg = change_between(T_camera_ct, estimate.T_camera_ct, self._centre_ct)
        return bool(np.linalg.norm(shift_mm[:2]) > MOTION.jump_mm or turn_deg > MOTION.jump_deg)

    def _expected_ms(self, level: PatchLevel, T_camera_ct: Float) -> float:
        """What the next iteration is expected to take: a keyframe that is too far is rendered first."""
        if isinstance(self._steps, KeyframeModel) and self._steps.distance(level, T_camera_ct) > 1:
            return self.iteration_ms + self.render_ms
        return self.iteration_ms

    def _learn(self, spent_s: float, iterations: int, renders: int) -> None:
        """Corrects the expected times by what a frame took."""
        keyframes = self._sets.keyframes
        rendered = keyframes.rendered_in_frames - renders
        spent_ms = spent_s * 1000
        if rendered:
            spent_ms -= rendered * keyframes.render_ms
            most_ms = SETTINGS.most_slower * self.render_ms
            self.render_ms += SETTINGS.learned * (min(keyframes.render_ms, most_ms) - self.render_ms)
        each_ms, most_ms = max(spent_ms, 0.0) / max(iterations, 1), SETTINGS.most_slower * self.iteration_ms
        self.iteration_ms += SETTINGS.learned * (min(each_ms, most_ms) - self.iteration_ms)
