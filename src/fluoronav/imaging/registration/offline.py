"""Registration of still images: one view, or several of one moment.

From a start up to 10 degrees and 10 mm wrong, or, with a search, from a prior that is wrong by much more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, inverse, moved_about, transform_points
from fluoronav.imaging.projector import AttenuationGrid, Projector
from fluoronav.imaging.registration.agreement import Agreement
from fluoronav.imaging.registration.confidence import TRACKING_AGREEMENT, covariance_in_camera, error_bounds_mm
from fluoronav.imaging.registration.gauss_newton import PoseEstimate, refine_views, twist_between
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import COARSE_SIDE, GRID_SIDE, GRID_SIGMA_PX
from fluoronav.imaging.registration.view_grid import Apart, ViewGrid

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

# Coarse to fine: side of the image (pixels), patch size, patches, iterations, hypotheses that are refined there.
_BONE_ROUNDS = ((220, 11, 40, 6, None), (440, 11, 80, 6, 10), (880, 11, 120, 5, 4))
# A trunk lets few photons through: small patches of a fine image would be noise.
_TRUNK_ROUNDS = ((128, 12, 50, 5, None), (256, 15, 150, 8, 6))
# Of a small bone every bit counts: its patches overlap.
_APART = 0.7
# How wrong a start may be (1 sigma).
_START_DEG, _START_MM = 10.0, 10.0
# One view of a small bone pulls its depth tens of mm away to follow what it does not model; it is held at the start's.
_ONE_VIEW_DEPTH_MM = 2.0
_TURN_DEG, _SHIFT_MM, _RANDOM_STARTS = 8.0, 8.0, 30
# Mean correlation over all patches, none left out. On the wrist: right poses 0.81 to 0.86, wrong ones below 0.7, a
# mirrored radius 0.73 in two views.
ACCEPTED_FIT = 0.78
# In one view a bone must fit by so much better than its mirror image. On the wrist: 0.024 and 0.016 in the first view;
# in the second the mirror image fits as well as the bone (0.806 beside 0.805, 0.806 beside 0.809), and cannot be told.
CLEARER_THAN_MIRROR = 0.01
# The search: side of the images that are matched and neighbourhood (pixels), for a bone alone and for a whole trunk;
# how many hypotheses of each view are refined. On the wrist a good one was always among the first 84.
_BONE_SEARCH, _TRUNK_SEARCH, _KEPT_OF_SEARCH = (192, 2.5), (GRID_SIDE, GRID_SIGMA_PX), 90
# Of several views: so many of each are also tried at the depth where the other views show them.
_DEPTHS_OF, _DEPTH_STEP_MM = 40, 8.0
_TURNS_ABOUT_SHAFT_DEG = (0.0, 25.0, -25.0, 45.0, -45.0)
_SHIFTS_ALONG_SHAFT_MM = (0.0, 9.0, -9.0, 17.0, -17.0)
_SHIFTS_BESIDE_SHAFT_MM = (10.0, 18.0)
# Places are looked around, best first, until one is accepted; not those so close to one that was. Hypotheses this close
# have settled in the same place.
_BESIDE_DEG, _BESIDE_MM = 8.0, 3.0
_MOST_LOOKS, _SAME_DEG, _SAME_MM = 4, 2.0, 1.0


@dataclass(frozen=True)
class View:
    """One image with its camera.

    Attributes
    ----------
    camera : Camera
    attenuation : ndarray of float32, shape (rows, cols)
    seen : ndarray of bool
        Inside the aperture, any size.
    """

    camera: Camera
    attenuation: Float32
    field_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class OfflineResult:
    """What was found.

    Attributes
    ----------
    accepted : bool
    reason : str
        Why not, where it is not.
    views : list of PoseEstimate
    fit : float
        Mean correlation over all patches and views, at the finest resolution.
    sigma : list of ndarray, shape (6,)
        Per view: rotations (degrees) and translations (mm) about the camera's axes.
    tre_mm, tre_image_mm : list of float
        95 % bounds at the centre of the model, in space and across the ray.
    """

    accepted: bool
    reason: str
    views: list[PoseEstimate]
    fit: float
    sigma: list[Float]
    tre_mm: list[float]
    tre_image_mm: list[float]


@dataclass
class _Hypothesis:
    T_start: Float  # of the first view; what the views do not determine stays near it
    poses: list[Float]
    estimates: list[PoseEstimate]
    fit: float


class OfflineRegistration:
    """Registers views of one moment to a volume.

    Parameters
    ----------
    model, bone : AttenuationGrid
        From :mod:`fluoronav.imaging.registration.model`.
    views : list of View
        With more than one, each camera needs ``T_camera_world``.
    segmented : bool
        The volume is a bone cut out of its surroundings. What a whole trunk shows can be compared with the whole frame,
        a bone's picture only where the bone is.
    start_sigma : tuple of float
        How wrong a start may be (1 sigma, degrees and mm): what the views do not determine stays near it.
    """

    def __init__(
        self,
        model: AttenuationGrid,
        bone: AttenuationGrid,
        views: list[View],
        *,
        segmented: bool = True,
        start_sigma: tuple[float, float] = (_START_DEG, _START_MM),
    ) -> None:
        self._views, self._segmented = views, segmented
        self._start_rad, self._start_mm = np.deg2rad(start_sigma[0]), start_sigma[1]
        self._rounds = _BONE_ROUNDS if segmented else _TRUNK_ROUNDS
        self._grids = model, bone
        self._model, self._bones = Projector(model, threads=2), Projector(bone, threads=2)
        self._centre_ct = bone.centre_ct
        self._T_view_first = [np.eye(4)]
        for view in views[1:]:
            first, other = views[0].camera.T_camera_world, view.camera.T_camera_world
            if first is None or other is None:
                raise ValueError(
                    f"{view.camera.name}: several views need T_camera_world in every camera file, to know how the "
                    "cameras stand to one another"
                )
            self._T_view_first.append(other @ inverse(first))
        self._levels = {
            (side, v): PatchLevel(view.camera, side, size, count, _APART if segmented else 1.0)
            for side, size, count, _, _ in self._rounds
            for v, view in enumerate(views)
        }
        self._images = {
            (side, v): _resized(view.attenuation, level.camera)
            for (side, v), level in self._levels.items()
            for view in [views[v]]
        }

    @property
    def centre_ct(self) -> Float:
        """What rotations turn about: the middle of the bones, LPS mm."""
        return self._centre_ct

    def run(self, T_camera_ct: Float, progress: Callable[[str], None] = lambda text: None) -> OfflineResult:
        """Registers from a start pose of the first view.

        Parameters
        ----------
        T_camera_ct : ndarray, shape (4, 4)
        progress : callable
            Told what is being done.
        """
        T_first = np.array(T_camera_ct, dtype=np.float64)
        return self._told_from_mirror_image(self._judged(self._from(T_first, progress)[0]), progress)

    def search(
        self, T_priors: Sequence[Float], spread, progress: Callable[[str], None] = lambda text: None
    ) -> OfflineResult:
        """Registers from priors of the first view that may be wrong by all of `spread`.

        Parameters
        ----------
        T_priors : sequence of ndarray, shape (4, 4)
        spread : fluoronav.case.Spread
            How far the nearest of them may be wrong.
        progress : callable
        """
        side, sigma_px = _BONE_SEARCH if self._segmented else _TRUNK_SEARCH
        found: list[Float] = []
        with ThreadPoolExecutor(2) as pool:
            for v, view in enumerate(self._views):
                grid = ViewGrid(self._model, view.camera, self._centre_ct, spread, side, sigma_px)
                image = _resized(view.attenuation, grid.camera)
                of_view: list[tuple[float, Float]] = []
                for k, T_prior in enumerate(T_priors):
                    progress(f"view {v + 1} of {len(self._views)}: searching around pose {k + 1} of {len(T_priors)}")
                    T_view = self._T_view_first[v] @ T_prior
                    candidates = grid.candidates(T_view, image, view.field_mask, pool, _KEPT_OF_SEARCH)
                    of_view += [(c.correlation, inverse(self._T_view_first[v]) @ c.T_camera_ct) for c in candidates]
                best_of_view = [T for _, T in sorted(of_view, key=lambda f: -f[0])[:_KEPT_OF_SEARCH]]
                found += best_of_view
                if len(self._views) > 1:
                    progress(f"view {v + 1} of {len(self._views)}: depths by the other views")
                    found += [self._at_its_depth(T, v, spread.depth_mm) for T in best_of_view[:_DEPTHS_OF]]
        best = self._refined([self._at(T, np.zeros(6)) for T in found], progress)
        around_it = [*_starts(), *_elsewhere(_axes(self._bones.grid))]
        apart = Apart(self._centre_ct, _BESIDE_DEG, _BESIDE_MM, _BESIDE_MM)
        for k in range(_MOST_LOOKS):
            unseen = next((h for h in best if apart.is_new(h.poses[0])), None)
            if unseen is None or self._judged(best[0]).accepted:
                break
            progress(f"looking around, {k + 1} of at most {_MOST_LOOKS}")
            around = self._refined([self._at(unseen.poses[0], twist) for twist in around_it], progress)
            best = self._different([*best, *around])
        return self._told_from_mirror_image(self._judged(best[0]), progress)

    def _at_its_depth(self, T_first: Float, v: int, depth_mm: float) -> Float:
        """A pose that view v found, moved along that view's ray to where the other views show it.

        One view hardly knows the depth, and the other views' optimum lies millimetres wide: what is 20 mm off there
        settles on the bone beside.
        """
        others = [k for k in range(len(self._views)) if k != v]
        side, _, _, _, _ = self._rounds[0]
        T_view = self._T_view_first[v] @ T_first
        at = transform_points(T_view, self._centre_ct)
        best, highest = T_first, -1.0
        for step in np.arange(-depth_mm, depth_mm + 1, _DEPTH_STEP_MM):
            moved = T_view.copy()
            moved[:3, 3] += step * at / np.linalg.norm(at)
            first = inverse(self._T_view_first[v]) @ moved
            fit = 0.0
            for k in others:
                level, T = self._levels[side, k], self._T_view_first[k] @ first
                level.choose(self._bones, T, self._views[k].field_mask)
                if level.count:
                    refine_views(
                        self._model, [([(level, self._images[side, k])], 1)], [T], self._centre_ct,
                        self._start_information(T),
                    )  # fmt: skip
                    fit += float(level.ncc[: level.count].clip(0).mean())
            if fit > highest:
                best, highest = first, fit
        return best

    def refine_near(self, T_camera_ct: Float) -> OfflineResult:
        """Refines one pose of the first view that is already good, without trying others."""
        hypothesis = self._at(np.array(T_camera_ct, dtype=np.float64), np.zeros(6))
        for side, _, _, iterations, _ in self._rounds[1:]:
            self._refine(hypothesis, side, iterations)
        return self._judged(hypothesis)

    def _from(self, T_first: Float, progress: Callable[[str], None]) -> list[_Hypothesis]:
        return self._refined([self._at(T_first, twist) for twist in _starts()], progress)

    def _told_from_mirror_image(self, result: OfflineResult, progress: Callable[[str], None]) -> OfflineResult:
        """The result, or that it is not accepted: in one view a bone of the other side may fit just as well.

        Seen from far away, a bone and its reflection in the image plane look alike; only perspective tells them apart.
        """
        if not (result.accepted and self._segmented and len(self._views) == 1):
            return result
        progress("comparing with the mirror image")
        x_ct = float(self._centre_ct[0])
        model, bone = (grid.mirrored(x_ct) for grid in self._grids)
        other = OfflineRegistration(model, bone, self._views)
        T = result.views[0].T_camera_ct
        ray = T[:3, :3].T @ transform_points(T, self._centre_ct)
        start = T @ _reflection(ray, self._centre_ct) @ _reflection(np.array([1.0, 0, 0]), self._centre_ct)
        fit = other._from(start, progress)[0].fit
        if result.fit - fit >= CLEARER_THAN_MIRROR:
            return result
        reason = (
            f"the model fits with {result.fit:.2f}, its mirror image with {fit:.2f}: from this view alone it cannot be "
            "told whether the volume is mirrored; add a second view"
        )
        return replace(result, accepted=False, reason=reason)

    def _refined(self, hypotheses: list[_Hypothesis], progress: Callable[[str], None]) -> list[_Hypothesis]:
        """Those that are left at the finest resolution, best first."""
        for side, _, _, iterations, keep in self._rounds:
            hypotheses = self._different(hypotheses)[:keep]
            progress(f"{len(hypotheses)} hypotheses at {side} pixels")
            for hypothesis in hypotheses:
                self._refine(hypothesis, side, iterations)
        return self._different(hypotheses)

    def _different(self, hypotheses: list[_Hypothesis]) -> list[_Hypothesis]:
        """Best first; those that have settled in the same place are one, or they would crowd out all others."""
        apart = Apart(self._centre_ct, _SAME_DEG, _SAME_MM, _SAME_MM)
        return [h for h in sorted(hypotheses, key=lambda h: -h.fit) if apart.is_new(h.poses[0])]

    def _at(self, T_first: Float, twist: Float) -> _Hypothesis:
        first = inverse(moved_about(self._centre_ct, twist) @ inverse(T_first))
        return _Hypothesis(T_first, [T @ first for T in self._T_view_first], [], 0.0)

    def _refine(self, hypothesis: _Hypothesis, side: int, iterations: int) -> None:
        levels = [self._levels[side, v] for v in range(len(self._views))]
        for _ in range(2):  # patches move with the pose
            for level, view, T in zip(levels, self._views, hypothesis.poses, strict=True):
                level.choose(self._bones, T, view.field_mask)
            pairs = [(level, self._images[side, v]) for v, level in enumerate(levels)]
            hypothesis.estimates = refine_views(
                self._model,
                [(pairs, iterations)],
                hypothesis.poses,
                self._centre_ct,
                self._start_information(hypothesis.poses[0], held=True),
                from_prior=twist_between(hypothesis.T_start, hypothesis.poses[0], self._centre_ct),
            )
            hypothesis.poses = [e.T_camera_ct for e in hypothesis.estimates]
        fits = [float(level.ncc[: level.count].clip(0).mean()) if level.count else 0.0 for level in levels]
        hypothesis.fit = float(np.mean(fits))

    def _start_information(self, T_camera_ct: Float, held: bool = False) -> Float:
        information = np.zeros((6, 6))
        information[:3, :3] = np.eye(3) / self._start_rad**2
        depth = _ONE_VIEW_DEPTH_MM if held and len(self._views) == 1 else self._start_mm
        R = T_camera_ct[:3, :3]
        information[3:, 3:] = R.T @ np.diag(1 / np.array([self._start_mm, self._start_mm, depth]) ** 2) @ R
        return information

    def _judged(self, best: _Hypothesis) -> OfflineResult:
        sigma, space, image = [], [], []
        for e in best.estimates:
            # The start's own spread belongs to what is known: without it one view's depth would be unbounded.
            information = e.information + self._start_information(e.T_camera_ct)
            covariance = covariance_in_camera(information, e.T_camera_ct, len(self._views))
            if len(self._views) == 1:
                covariance[5, 5] += self._start_mm**2  # held at the start's, so no better known than the start
            s = np.sqrt(np.diag(covariance))
            s[:3] = np.rad2deg(s[:3])
            point = e.T_camera_ct[:3, :3] @ self._centre_ct + e.T_camera_ct[:3, 3]
            in_space, across = error_bounds_mm(covariance, point)
            sigma.append(s)
            space.append(in_space)
            image.append(across)
        reason = ""
        if not all(np.isfinite(e.T_camera_ct).all() and e.patches for e in best.estimates):
            reason = "no part of the bones is in view"
        elif self._segmented:
            if best.fit < ACCEPTED_FIT:
                reason = f"the model fits the image with {best.fit:.2f}; {ACCEPTED_FIT} is asked"
        else:
            agreement = min(self._agreement(v, e.T_camera_ct) for v, e in enumerate(best.estimates))
            if agreement < TRACKING_AGREEMENT:
                reason = f"the model agrees with the image with {agreement:.2f}; {TRACKING_AGREEMENT} is asked"
        return OfflineResult(not reason, reason, best.estimates, best.fit, sigma, space, image)

    def _agreement(self, v: int, T_camera_ct: Float) -> float:
        view = self._views[v]
        agreement = Agreement(self._model, view.camera, COARSE_SIDE, T_camera_ct)
        small = view.camera.scaled(COARSE_SIDE / max(view.camera.rows, view.camera.cols))
        return agreement(T_camera_ct, _resized(view.attenuation, small), view.field_mask)


def _starts() -> list[Float]:
    """Twists about the centre from which a refinement is tried: the start, along and about each axis, and at random."""
    scale = np.array([np.deg2rad(_TURN_DEG)] * 3 + [_SHIFT_MM] * 3)
    axes = [sign * scale[i] * np.eye(6)[i] for i in range(6) for sign in (1, -1)]
    random = np.random.default_rng(1).standard_normal((_RANDOM_STARTS, 6)) * scale / np.sqrt(3)
    return [np.zeros(6), *axes, *random]


def _axes(bone: AttenuationGrid) -> Float:
    """Principal axes of the bone, CT axes, columns of a (3, 3); the long one is the last."""
    at = np.argwhere(bone.voxels > 0)[:, ::-1].astype(np.float64)
    return np.linalg.eigh(np.cov(at.T))[1]


def _elsewhere(axes: Float) -> list[Float]:
    """Twists to the places where a bone fits nearly as well: along and about its shaft, and on the bone beside it."""
    shaft = axes[:, 2]
    along = [
        np.concatenate([np.deg2rad(turn) * shaft, shift * shaft])
        for turn in _TURNS_ABOUT_SHAFT_DEG
        for shift in _SHIFTS_ALONG_SHAFT_MM
    ]
    beside = [
        np.concatenate([np.zeros(3), shift * (np.cos(angle) * axes[:, 0] + np.sin(angle) * axes[:, 1])])
        for angle in np.arange(8) * np.pi / 4
        for shift in _SHIFTS_BESIDE_SHAFT_MM
    ]
    return along + beside


def _reflection(normal: Float, point: Float) -> Float:
    """Reflection in the plane through a point, shape (4, 4); not a motion."""
    n = normal / np.linalg.norm(normal)
    T = np.eye(4)
    T[:3, :3] -= 2 * np.outer(n, n)
    T[:3, 3] = point - T[:3, :3] @ point
    return T


def _resized(image: Float32, camera: Camera) -> Float32:
    return np.asarray(cv2.resize(image, (camera.cols, camera.rows), interpolation=cv2.INTER_AREA), dtype=np.float32)
