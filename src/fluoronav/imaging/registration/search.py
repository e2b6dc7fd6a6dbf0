"""The initial search: from a prior that may be 10 cm and tens of degrees wrong to a pose worth refining.

Candidates of the coarse grid (:mod:`.grid`) are refined at 64 pixels, the best of those that are different at 128, the
best of these at 256; hypotheses are compared by their agreement over the whole field, and unless one agrees clearly,
the places are tried where a wrong one comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, exp_so3, moved_in_camera
from fluoronav.imaging.registration.agreement import Agreement
from fluoronav.imaging.registration.gauss_newton import PoseEstimate, refine
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.view_grid import Apart, Candidate, ViewGrid, orbit_priors

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Pyramid = dict[int, Float32]
Item = TypeVar("Item")

GRID_SIDE, COARSE_SIDE, FINE_SIDE = SEARCH_SIDES = 64, 128, 256
GRID_SIGMA_PX = 4.0
_THREADS = 2
# How many hypotheses are taken to each resolution.
_KEPT_AT_64, _KEPT_AT_128, _KEPT_AT_256 = 140, 12, 4
# After the coarse refinement, poses this close have settled in the same place.
_SAME_DEG, _SAME_IN_PLANE_MM, _SAME_DEPTH_MM = 3.0, 3.0, 12.0
# Neighbours of a pose that are tried against it: turn (degrees) and shift (mm) in camera axes.
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
# A neighbour that agrees so much less after the coarse refinement is not worth the finer look.
_HOPELESS = 0.1
# Above this no wrong pose has been seen: there is nothing to doubt.
_CLEAR = 0.8


@dataclass(frozen=True)
class Hypothesis:
    """A refined pose and how well the whole model agrees with the frame there (:mod:`.agreement`)."""

    estimate: PoseEstimate
    agreement: float


class _Workplace:
    """The buffers that one thread needs to refine a hypothesis."""

    def __init__(self, camera: Camera) -> None:
        self.grid = PatchLevel(camera, GRID_SIDE, 9, 40)
        self.coarse = PatchLevel(camera, COARSE_SIDE, 12, 50)
        self.fine = PatchLevel(camera, FINE_SIDE, 15, 60)


class InitialSearch:
    """Searches around a prior pose, or the whole orbit.

    Parameters
    ----------
    model : RegistrationModel
    camera : Camera
        At full resolution.
    T_prior : ndarray, shape (4, 4)
        Patient to camera, mm.
    spread : fluoronav.case.Spread
        How far the prior may be wrong.
    centre_ct : ndarray, shape (3,)
        What rotations turn about.
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
        self._grid = ViewGrid(self._coarse_model, camera, self._centre_ct, spread, GRID_SIDE, GRID_SIGMA_PX)
        self.agreement = Agreement(self._model, camera, COARSE_SIDE, self._T_prior)
        self._first_agreement = Agreement(self._coarse_model, camera, GRID_SIDE, self._T_prior)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="search")
        self._places: SimpleQueue[_Workplace] = SimpleQueue()
        for _ in range(_THREADS):
            self._places.put(_Workplace(camera))
        # Another thread may refine one hypothesis while a search is under way.
        self._own = _Workplace(camera)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def search(
        self,
        pyramid: Pyramid,
        field_mask: NDArray[np.bool_],
        go_on: Callable[[], bool] = lambda: True,
        *,
        orbit: bool = False,
        T_prior: Float | None = None,
    ) -> Hypothesis | None:
        """The best pose that the search finds, or None when it was abandoned.

        Parameters
        ----------
        pyramid : dict
            Attenuation by the longer side of the image: 256, 128 and 64 pixels.
        seen : ndarray of bool
        go_on : callable
            False abandons the search.
        orbit : bool
            Look from other sides, too (:func:`.grid.orbit_priors`).
        T_prior : ndarray, shape (4, 4), optional
            Search around this pose instead.
        """
        candidates: list[Candidate] = []
        T_prior = self._T_prior if T_prior is None else T_prior
        for T_around in orbit_priors(T_prior, self._centre_ct) if orbit else [T_prior]:
            candidates += self._grid.candidates(
                T_around, pyramid[GRID_SIDE], field_mask, self._pool, _KEPT_AT_64, go_on
            )
        candidates.sort(key=lambda c: -c.correlation)
        first = self._each(
            lambda place, c: self._settled(place, c.T_camera_ct, pyramid[GRID_SIDE], field_mask),
            candidates[:_KEPT_AT_64],
            go_on,
        )
        coarse = self._each(
            lambda place, h: self._refined(place, h.estimate.T_camera_ct, pyramid, field_mask, False),
            self._different(first, _KEPT_AT_128),
            go_on,
        )
        fine = self._each(
            lambda place, h: self._refined(place, h.estimate.T_camera_ct, pyramid, field_mask, True),
            self._different(coarse, _KEPT_AT_256),
            go_on,
        )
        if not fine or not go_on():
            return None
        best = max(fine, key=lambda h: h.agreement)
        return best if best.agreement >= _CLEAR else self.second_opinion(best, pyramid, field_mask, go_on)

    def second_opinion(
        self,
        best: Hypothesis,
        pyramid: Pyramid,
        field_mask: NDArray[np.bool_],
        go_on: Callable[[], bool] = lambda: True,
    ) -> Hypothesis | None:
        """Looks for a better pose in the places where a wrong one comes from.

        A spine fits itself nearly as well when it is turned out of the plane with the depth changed to match, or moved
        by one vertebra. From each of these neighbours of the best hypothesis a refinement is tried.

        Returns
        -------
        Hypothesis or None
            The one that agrees best with the frame, or None when the check was abandoned.
        """
        around = [
            moved_in_camera(best.estimate.T_camera_ct, self._centre_ct, exp_so3(np.deg2rad(turn)), shift)
            for turn, shift in _NEIGHBOURS
        ]
        coarse = self._each(lambda place, T: self._refined(place, T, pyramid, field_mask, False), around, go_on)
        hopeful = [h for h in coarse if h.agreement > best.agreement - _HOPELESS]
        fine = self._each(
            lambda place, h: self._refined(place, h.estimate.T_camera_ct, pyramid, field_mask, True),
            self._different(hopeful, _KEPT_AT_256),
            go_on,
        )
        return max([best, *fine], key=lambda h: h.agreement) if go_on() else None

    def refined(self, T_camera_ct: Float, pyramid: Pyramid, field_mask: NDArray[np.bool_]) -> Hypothesis:
        """One pose after Gauss-Newton at both resolutions; for one caller at a time."""
        return self._refined(self._own, T_camera_ct, pyramid, field_mask, True)

    def _refined(
        self, place: _Workplace, T_camera_ct: Float, pyramid: Pyramid, field_mask: NDArray[np.bool_], fine: bool
    ) -> Hypothesis:
        """One candidate after Gauss-Newton, twice, since patches move with the pose."""
        estimate = None
        for _ in range(2):
            place.coarse.choose(self._bones, T_camera_ct, field_mask)
            levels = [(place.coarse, pyramid[COARSE_SIDE], 5)]
            if fine:
                place.fine.choose(self._bones, T_camera_ct, field_mask)
                levels.append((place.fine, pyramid[FINE_SIDE], 3))
            estimate = refine(self._model, levels, T_camera_ct, self._centre_ct)
            T_camera_ct = estimate.T_camera_ct
        assert estimate is not None
        return Hypothesis(estimate, self.agreement(estimate.T_camera_ct, pyramid[COARSE_SIDE], field_mask))

    def _settled(
        self, place: _Workplace, T_camera_ct: Float, image: Float32, field_mask: NDArray[np.bool_]
    ) -> Hypothesis:
        """A candidate of the grid after a few cheap steps."""
        estimate = None
        for _ in range(2):
            place.grid.choose(self._coarse_bones, T_camera_ct, field_mask)
            estimate = refine(self._coarse_model, [(place.grid, image, 4)], T_camera_ct, self._centre_ct)
            T_camera_ct = estimate.T_camera_ct
        assert estimate is not None
        return Hypothesis(estimate, self._first_agreement(T_camera_ct, image, field_mask))

    def _each(
        self, work: Callable[[_Workplace, Item], Hypothesis], items: Sequence[Item], go_on: Callable[[], bool]
    ) -> list[Hypothesis]:
        """Does the work for every item, on all threads; what does not come out finite is left out."""

        def one(item: Item) -> Hypothesis | None:
            if not go_on():
                return None
            place = self._places.get()
            try:
                return work(place, item)
            finally:
                self._places.put(place)

        done = self._pool.map(one, items)
        return [h for h in done if h is not None and np.isfinite(h.estimate.T_camera_ct).all()]

    def _different(self, found: list[Hypothesis], keep: int) -> list[Hypothesis]:
        """The best hypotheses that are not the same place found twice, best first."""
        apart = Apart(self._centre_ct, _SAME_DEG, _SAME_IN_PLANE_MM, _SAME_DEPTH_MM)
        ranked = sorted(found, key=lambda h: -h.agreement)
        return [h for h in ranked if apart.is_new(h.estimate.T_camera_ct)][:keep]
