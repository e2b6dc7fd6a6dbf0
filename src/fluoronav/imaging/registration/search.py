"""The initial search: a pose from a prior that may be wrong by 10 cm and tens of degrees.

Candidates of the coarse grid (:mod:`.view_grid`) are refined at 64 pixels, the best distinct ones at 128, and the best
of these at 256 pixels. Hypotheses are ranked by their agreement over the whole field. This goes in steps: half of the
grid and its few best candidates first, the whole grid and many candidates last. A hypothesis that agrees clearly ends
the search. If none does, refinements are also started from the neighbours of the best one, the poses that are most
often confused with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, exp_so3, moved_in_camera
from fluoronav.imaging.registration.agreement import Agreement
from fluoronav.imaging.registration.confidence import MIN_PATCHES, TRACKING_SCORE
from fluoronav.imaging.registration.gauss_newton import PoseEstimate, refine
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.view_grid import DistinctPoses, ViewGrid, orbit_priors
from fluoronav.kernels import load_numba

if TYPE_CHECKING:
    from fluoronav.imaging.registration.layered_fit import LayeredPose

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Pyramid = dict[int, Float32]

GRID_SIDE, COARSE_SIDE, FINE_SIDE = SEARCH_SIDES = 64, 128, 256


@dataclass(frozen=True)
class SearchStep:
    """A step of the search: how much of the grid is matched, and how many hypotheses are refined at each resolution."""

    halves: int  # of the grid, of two
    at_64: int
    at_128: int
    at_256: int
    hopeless: float  # agreement at 128 pixels below which a hypothesis is not refined at 256


@dataclass(frozen=True)
class SearchSettings:
    """Size of the search and when hypotheses are dropped; all chosen on the embedded case."""

    grid_sigma_px: float = 4.0  # neighbourhood of the grid's images in which mean and contrast are equalised
    threads: int = 2
    # The candidate with the highest correlation is mostly right, so few come first.
    steps: tuple[SearchStep, ...] = (
        SearchStep(halves=1, at_64=6, at_128=1, at_256=1, hopeless=0.7),
        SearchStep(halves=1, at_64=24, at_128=4, at_256=2, hopeless=0.7),
        SearchStep(halves=2, at_64=140, at_128=12, at_256=4, hopeless=-1.0),
    )
    # Of a CT that is a part of the patient the right candidate is one of many: on 140 mm cubes of a lumbar spine it was
    # the 174th.
    part_steps: tuple[SearchStep, ...] = (
        SearchStep(halves=1, at_64=24, at_128=4, at_256=2, hopeless=0.6),
        SearchStep(halves=2, at_64=400, at_128=30, at_256=8, hopeless=-1.0),
    )
    kept_neighbours: int = 4  # that are refined at 256 pixels
    # Poses that are this close after a refinement have converged to the same pose.
    same_deg: float = 3.0
    same_in_plane_mm: float = 3.0
    same_depth_mm: float = 12.0
    hopeless: float = 0.1  # a neighbour whose agreement is lower by more after the coarse refinement is dropped
    clear: float = 0.8  # agreement that ends the search where the patches fit, too; no wrong pose has reached it
    # Patches (size in pixels, maximum number) by resolution.
    grid_patches: tuple[int, int] = (9, 40)
    coarse_patches: tuple[int, int] = (12, 50)
    fine_patches: tuple[int, int] = (15, 60)
    # Iterations by resolution, each done twice.
    grid_iterations: int = 4
    coarse_iterations: int = 5
    fine_iterations: int = 3


SETTINGS = SearchSettings()
# Neighbours of a pose: rotation (degrees) and shift (mm) in camera axes. A spine fits nearly as well when it is rotated
# out of the plane with the depth changed to match, or shifted by one vertebra.
_NEIGHBOURS = (
    ((7.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ((-7.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ((0.0, 7.0, 0.0), (0.0, 0.0, 0.0)),
    ((0.0, -7.0, 0.0), (0.0, 0.0, 0.0)),
    ((0.0, 0.0, 0.0), (0.0, 0.0, 20.0)),
    ((0.0, 0.0, 0.0), (0.0, 0.0, -20.0)),
    ((0.0, 0.0, 0.0), (0.0, 24.0, 0.0)),
    ((0.0, 0.0, 0.0), (0.0, -24.0, 0.0)),
)


@dataclass(frozen=True)
class Hypothesis:
    """A refined pose and its agreement with the frame (:mod:`.agreement`).

    Attributes
    ----------
    estimate : PoseEstimate
    agreement : float
    layered : LayeredPose or None
        Where the patient has moved in parts: how they lie. The pose is then the target bone's.
    unexplained : ndarray, shape (6, 6), or None
        Covariance of what the model may have wrong of this patient, twist about the search's centre, CT axes, rad and
        mm. None where nobody has looked.
    bone : ndarray, shape (6, 6), or None
        Covariance of the target bone's pose by its own patches, where the pose is that of all tissue; the same twist.
    """

    estimate: PoseEstimate
    agreement: float
    layered: LayeredPose | None = None
    unexplained: Float | None = None
    bone: Float | None = None


def is_clear(found: Hypothesis) -> bool:
    """Whether a hypothesis agrees so well that nothing else has to be tried: more than is asked of a tracked pose."""
    e = found.estimate
    return found.agreement >= SETTINGS.clear and e.score >= TRACKING_SCORE and e.patches >= MIN_PATCHES


def _poses(found: list[Hypothesis]) -> list[Float]:
    return [h.estimate.T_camera_ct for h in found]


@dataclass
class _Known:
    """Results of one search at each resolution, by the bytes of the pose that they were refined from."""

    at_64: dict[bytes, Hypothesis] = field(default_factory=dict)
    at_128: dict[bytes, Hypothesis] = field(default_factory=dict)
    at_256: dict[bytes, Hypothesis] = field(default_factory=dict)


class _Buffers:
    """Patch levels with which one thread refines a hypothesis."""

    def __init__(self, camera: Camera) -> None:
        self.grid = PatchLevel(camera, GRID_SIDE, *SETTINGS.grid_patches)
        self.coarse = PatchLevel(camera, COARSE_SIDE, *SETTINGS.coarse_patches)
        self.fine = PatchLevel(camera, FINE_SIDE, *SETTINGS.fine_patches)


class InitialSearch:
    """Search around a prior pose or over the orbital angle.

    Parameters
    ----------
    model : RegistrationModel
    camera : Camera
        At full resolution.
    T_prior : ndarray, shape (4, 4)
        Patient to camera, mm.
    spread : fluoronav.case.Spread
        Largest error of the prior.
    centre_ct : ndarray, shape (3,)
        Centre of rotations, LPS mm.
    """

    def __init__(
        self,
        model: RegistrationModel,
        camera: Camera,
        T_prior: Float,
        spread,
        centre_ct: Float,
    ) -> None:
        self._model, self._bones = model.tissue, model.bones
        self._coarse_model, self._coarse_bones = model.coarse_tissue, model.coarse_bones
        self._T_prior = np.array(T_prior)
        self._centre_ct = np.asarray(centre_ct, dtype=np.float64)
        self._grid = ViewGrid(
            self._coarse_model, self._coarse_bones, camera, self._centre_ct, spread, GRID_SIDE, SETTINGS.grid_sigma_px
        )
        self.agreement = Agreement(self._model, self._bones, camera, COARSE_SIDE, self._T_prior)
        self._first_agreement = Agreement(self._coarse_model, self._coarse_bones, camera, GRID_SIDE, self._T_prior)
        load_numba()
        self._pool = ThreadPoolExecutor(SETTINGS.threads, thread_name_prefix="search")
        self._buffers: SimpleQueue[_Buffers] = SimpleQueue()
        for _ in range(SETTINGS.threads):
            self._buffers.put(_Buffers(camera))
        # For `refined`, which another thread may call during a search.
        self._own = _Buffers(camera)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def prepare(self) -> None:
        """Begins to render the views around the prior, so that the first search finds them made; returns at once."""
        # A search that finds one not made renders it itself, and raises what went wrong here.
        views = self._grid.around(self._T_prior)
        for tilt in range(len(views.tilts)):
            self._pool.submit(views.view, tilt)

    def search(
        self,
        pyramid: Pyramid,
        field_mask: NDArray[np.bool_],
        go_on: Callable[[], bool] = lambda: True,
        *,
        orbit: bool = False,
        T_prior: Float | None = None,
    ) -> Hypothesis | None:
        """The pose with the highest agreement, or None if the search was abandoned or found nothing.

        Parameters
        ----------
        pyramid : dict
            Attenuation by the longer side of the image: 256, 128 and 64 pixels.
        field_mask : ndarray of bool
            Field of view without its penumbra, any size.
        go_on : callable
            False abandons the search.
        orbit : bool
            Also search at other orbital angles (:func:`.view_grid.orbit_priors`).
        T_prior : ndarray, shape (4, 4), optional
            Search around this pose instead of the one given at construction.
        """
        T_prior = self._T_prior if T_prior is None else T_prior
        priors = orbit_priors(T_prior, self._centre_ct) if orbit else [T_prior]
        image = pyramid[GRID_SIDE]
        matches = [self._grid.matched(T, image, field_mask) for T in priors]
        known, halves, best = _Known(), 0, None
        for step in SETTINGS.steps if self._model.grid.known_ct is None else SETTINGS.part_steps:
            for _ in range(halves, step.halves):
                for match in matches:
                    match.match_half(self._pool, go_on)
            halves = step.halves
            candidates = [c for match in matches for c in match.candidates(step.at_64)]
            candidates.sort(key=lambda c: -c.correlation)
            settled = self._each(
                lambda buffers, T: self._settled(buffers, T, image, field_mask),
                [c.T_camera_ct for c in candidates[: step.at_64]],
                go_on,
                known.at_64,
            )
            best = self._best_of(settled, step, pyramid, field_mask, go_on, known)
            if not go_on():
                return None
            if best is not None and is_clear(best):
                return best
        return None if best is None else self.second_opinion(best, pyramid, field_mask, go_on)

    def _best_of(
        self,
        settled: list[Hypothesis],
        step: SearchStep,
        pyramid: Pyramid,
        field_mask: NDArray[np.bool_],
        go_on: Callable[[], bool],
        known: _Known,
    ) -> Hypothesis | None:
        """The hypothesis with the highest agreement after both finer resolutions; None where there is none."""
        coarse = self._each(
            lambda buffers, T: self._refined(buffers, T, pyramid, field_mask, False),
            _poses(self._different(settled, step.at_128)),
            go_on,
            known.at_128,
        )
        self._each(
            lambda buffers, T: self._refined(buffers, T, pyramid, field_mask, True),
            _poses(self._different([h for h in coarse if h.agreement >= step.hopeless], step.at_256)),
            go_on,
            known.at_256,
        )
        # Also those of the steps before: of more hypotheses, others may come first at 128 pixels.
        return max(known.at_256.values(), key=lambda h: h.agreement, default=None)

    def second_opinion(
        self,
        best: Hypothesis,
        pyramid: Pyramid,
        field_mask: NDArray[np.bool_],
        go_on: Callable[[], bool] = lambda: True,
    ) -> Hypothesis | None:
        """Refines the neighbours of a hypothesis and compares their agreement.

        Returns
        -------
        Hypothesis or None
            The one with the highest agreement, or None if the check was abandoned.
        """
        around = [
            moved_in_camera(best.estimate.T_camera_ct, self._centre_ct, exp_so3(np.deg2rad(turn)), shift)
            for turn, shift in _NEIGHBOURS
        ]
        coarse = self._each(lambda buffers, T: self._refined(buffers, T, pyramid, field_mask, False), around, go_on, {})
        promising = [h for h in coarse if h.agreement > best.agreement - SETTINGS.hopeless]
        fine = self._each(
            lambda buffers, T: self._refined(buffers, T, pyramid, field_mask, True),
            _poses(self._different(promising, SETTINGS.kept_neighbours)),
            go_on,
            {},
        )
        return max([best, *fine], key=lambda h: h.agreement) if go_on() else None

    def refined(self, T_camera_ct: Float, pyramid: Pyramid, field_mask: NDArray[np.bool_]) -> Hypothesis:
        """One pose after Gauss-Newton at both resolutions. Not reentrant: one caller at a time."""
        return self._refined(self._own, T_camera_ct, pyramid, field_mask, True)

    def _refined(
        self, buffers: _Buffers, T_camera_ct: Float, pyramid: Pyramid, field_mask: NDArray[np.bool_], fine: bool
    ) -> Hypothesis:
        """One candidate after two rounds of Gauss-Newton, since the patches depend on the pose."""
        estimate = None
        for _ in range(2):
            buffers.coarse.choose(self._bones, T_camera_ct, field_mask)
            levels = [(buffers.coarse, pyramid[COARSE_SIDE], SETTINGS.coarse_iterations)]
            if fine:
                buffers.fine.choose(self._bones, T_camera_ct, field_mask)
                levels.append((buffers.fine, pyramid[FINE_SIDE], SETTINGS.fine_iterations))
            estimate = refine(self._model, levels, T_camera_ct, self._centre_ct)
            T_camera_ct = estimate.T_camera_ct
        assert estimate is not None
        return Hypothesis(estimate, self.agreement(estimate.T_camera_ct, pyramid[COARSE_SIDE], field_mask))

    def _settled(
        self, buffers: _Buffers, T_camera_ct: Float, image: Float32, field_mask: NDArray[np.bool_]
    ) -> Hypothesis:
        """A candidate of the grid after Gauss-Newton at the grid's resolution."""
        estimate = None
        for _ in range(2):
            buffers.grid.choose(self._coarse_bones, T_camera_ct, field_mask)
            estimate = refine(
                self._coarse_model, [(buffers.grid, image, SETTINGS.grid_iterations)], T_camera_ct, self._centre_ct
            )
            T_camera_ct = estimate.T_camera_ct
        assert estimate is not None
        return Hypothesis(estimate, self._first_agreement(T_camera_ct, image, field_mask))

    def _each(
        self,
        work: Callable[[_Buffers, Float], Hypothesis],
        poses: Sequence[Float],
        go_on: Callable[[], bool],
        known: dict[bytes, Hypothesis],
    ) -> list[Hypothesis]:
        """Does the work on all threads for every pose that it is not known of; drops results that are not finite."""

        def one(T_camera_ct: Float) -> Hypothesis | None:
            if not go_on():
                return None
            buffers = self._buffers.get()
            try:
                return work(buffers, T_camera_ct)
            finally:
                self._buffers.put(buffers)

        new = [T for T in poses if T.tobytes() not in known]
        for T, h in zip(new, self._pool.map(one, new), strict=True):
            if h is not None and np.isfinite(h.estimate.T_camera_ct).all():
                known[T.tobytes()] = h
        return [known[key] for key in (T.tobytes() for T in poses) if key in known]

    def _different(self, found: list[Hypothesis], keep: int) -> list[Hypothesis]:
        """The best distinct hypotheses, best first."""
        distinct = DistinctPoses(self._centre_ct, SETTINGS.same_deg, SETTINGS.same_in_plane_mm, SETTINGS.same_depth_mm)
        ranked = sorted(found, key=lambda h: -h.agreement)
        return [h for h in ranked if distinct.is_new(h.estimate.T_camera_ct)][:keep]
