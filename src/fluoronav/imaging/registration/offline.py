"""Registration of still images: one view, or several of one moment.

It starts from a pose that is wrong by up to 10 degrees and 10 mm, or searches around a prior that is wrong by more.
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
from fluoronav.imaging.registration.handedness import (
    Hand,
    MirrorImage,
    reason_of_hand,
    reversed_camera,
    reversed_columns,
    told_hand,
)
from fluoronav.imaging.registration.offline_settings import SETTINGS
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import COARSE_SIDE, FINE_SIDE
from fluoronav.imaging.registration.starts import reflection, twists_around_start, twists_to_similar_poses
from fluoronav.imaging.registration.view_grid import DistinctPoses, ViewGrid
from fluoronav.kernels import load_numba

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class XrayView:
    """One X-ray image with its camera.

    Attributes
    ----------
    camera : Camera
    attenuation : ndarray of float32, shape (rows, cols)
    field_mask : ndarray of bool
        The pixels that may be compared: the field of view without its penumbra, any size; for a whole trunk without
        metal (:mod:`fluoronav.imaging.xray.anatomy_mask`).
    """

    camera: Camera
    attenuation: Float32
    field_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class OfflineResult:
    """Result of a registration.

    Attributes
    ----------
    accepted : bool
    reason : str
        Why it is not accepted; empty if it is.
    views : list of PoseEstimate
        One per view.
    fit : float
        Mean correlation over all patches and views, at the finest resolution.
    sigma : list of ndarray, shape (6,)
        Per view: 1 sigma of rotations (degrees) and translations (mm), camera axes.
    tre_mm, tre_image_mm : list of float
        Per view: 95 % bounds of the error at the centre of the bones, in space and across the ray.
    hand : str or None
        Of a trunk's pictures, as told by their mirror images; None where they have not been compared.
    """

    accepted: bool
    reason: str
    views: list[PoseEstimate]
    fit: float
    sigma: list[Float]
    tre_mm: list[float]
    tre_image_mm: list[float]
    hand: Hand | None = None


@dataclass
class _Hypothesis:
    """Poses of all views, and the start pose of the first view, which is the prior of the refinement."""

    T_start: Float
    poses: list[Float]
    estimates: list[PoseEstimate]
    fit: float


class OfflineRegistration:
    """Registers X-ray views of one moment to a volume.

    Parameters
    ----------
    model, bone : AttenuationGrid
        From :mod:`fluoronav.imaging.registration.model`.
    views : list of XrayView
        With more than one, each camera needs ``T_camera_world``.
    segmented : bool
        The volume is a segmented bone. A bone is compared with the image only where it projects; a whole trunk is
        compared with the whole field.
    start_sigma : tuple of float
        Error of a start, 1 sigma, degrees and mm. The start is the prior of the refinement with this covariance.

    Raises
    ------
    ValueError
        There are several views, and a camera lacks ``T_camera_world``.
    """

    def __init__(
        self,
        model: AttenuationGrid,
        bone: AttenuationGrid,
        views: list[XrayView],
        *,
        segmented: bool = True,
        start_sigma: tuple[float, float] = (SETTINGS.start_deg, SETTINGS.start_mm),
    ) -> None:
        self._views, self._segmented = views, segmented
        self._start_rad, self._start_mm = np.deg2rad(start_sigma[0]), start_sigma[1]
        self._rounds = SETTINGS.bone_rounds if segmented else SETTINGS.trunk_rounds
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
            (r.side, v): PatchLevel(view.camera, r.side, r.patch, r.patches, SETTINGS.bone_apart if segmented else 1.0)
            for r in self._rounds
            for v, view in enumerate(views)
        }
        self._images = {
            (side, v): _resized(view.attenuation, level.camera)
            for (side, v), level in self._levels.items()
            for view in [views[v]]
        }

    @property
    def centre_ct(self) -> Float:
        """Centre of rotations: the middle of the bones, LPS mm."""
        return self._centre_ct

    def run(self, T_camera_ct: Float, progress: Callable[[str], None] = lambda text: None) -> OfflineResult:
        """Registers from a start pose of the first view.

        Parameters
        ----------
        T_camera_ct : ndarray, shape (4, 4)
        progress : callable
            Called with a line of text for each step.
        """
        T_first = np.array(T_camera_ct, dtype=np.float64)
        return self._compared_with_mirror_image(self._judged(self._from(T_first, progress)[0]), progress)

    def search(
        self, T_priors: Sequence[Float], spread, progress: Callable[[str], None] = lambda text: None
    ) -> OfflineResult:
        """Registers by a search around priors of the first view.

        Parameters
        ----------
        T_priors : sequence of ndarray, shape (4, 4)
        spread : fluoronav.case.Spread
            Largest error of the nearest prior.
        progress : callable
            Called with a line of text for each step.
        """
        found = self._candidates(T_priors, spread, progress)
        best = self._refined([self._at(T, np.zeros(6)) for T in found], progress)
        neighbours = [*twists_around_start(), *twists_to_similar_poses(self._bones.grid)]
        mm = SETTINGS.neighbourhood_mm
        distinct = DistinctPoses(self._centre_ct, SETTINGS.neighbourhood_deg, mm, mm)
        for k in range(SETTINGS.max_neighbourhoods):
            untried = next((h for h in best if distinct.is_new(h.poses[0])), None)
            if untried is None or self._judged(best[0]).accepted:
                break
            progress(f"looking around, {k + 1} of at most {SETTINGS.max_neighbourhoods}")
            around = self._refined([self._at(untried.poses[0], twist) for twist in neighbours], progress)
            best = self._different([*best, *around])
        return self._compared_with_mirror_image(self._judged(best[0]), progress)

    def _candidates(self, T_priors: Sequence[Float], spread, progress: Callable[[str], None]) -> list[Float]:
        """Poses of the first view from the search of each view, shape (4, 4) each."""
        side, sigma_px = SETTINGS.bone_search if self._segmented else SETTINGS.trunk_search
        found: list[Float] = []
        load_numba()
        with ThreadPoolExecutor(2) as pool:
            for v, view in enumerate(self._views):
                grid = ViewGrid(self._model, self._bones, view.camera, self._centre_ct, spread, side, sigma_px)
                image = _resized(view.attenuation, grid.camera)
                of_view: list[tuple[float, Float]] = []
                for k, T_prior in enumerate(T_priors):
                    progress(f"view {v + 1} of {len(self._views)}: searching around pose {k + 1} of {len(T_priors)}")
                    T_view = self._T_view_first[v] @ T_prior
                    match = grid.matched(T_view, image, view.field_mask)
                    match.match_half(pool)
                    match.match_half(pool)
                    candidates = match.candidates(SETTINGS.kept_of_search)
                    of_view += [(c.correlation, inverse(self._T_view_first[v]) @ c.T_camera_ct) for c in candidates]
                best_of_view = [T for _, T in sorted(of_view, key=lambda f: -f[0])[: SETTINGS.kept_of_search]]
                found += best_of_view
                if len(self._views) > 1:
                    progress(f"view {v + 1} of {len(self._views)}: depths by the other views")
                    found += [self._at_its_depth(T, v, spread.depth_mm) for T in best_of_view[: SETTINGS.depth_tried]]
        return found

    def _at_its_depth(self, T_first: Float, v: int, depth_mm: float) -> Float:
        """A pose found in view v, moved along the ray of that view to the depth at which the other views fit best.

        One view hardly determines the depth, and the other views converge only from a few millimetres: from 20 mm they
        converge to the adjacent bone.
        """
        others = [k for k in range(len(self._views)) if k != v]
        side = self._rounds[0].side
        T_view = self._T_view_first[v] @ T_first
        at = transform_points(T_view, self._centre_ct)
        best, highest = T_first, -1.0
        for step in np.arange(-depth_mm, depth_mm + 1, SETTINGS.depth_step_mm):
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
        """Refines a good pose of the first view, at all resolutions but the coarsest."""
        hypothesis = self._at(np.array(T_camera_ct, dtype=np.float64), np.zeros(6))
        for r in self._rounds[1:]:
            self._refine(hypothesis, r.side, r.iterations)
        return self._judged(hypothesis)

    def _from(self, T_first: Float, progress: Callable[[str], None]) -> list[_Hypothesis]:
        return self._refined([self._at(T_first, twist) for twist in twists_around_start()], progress)

    def _compared_with_mirror_image(self, result: OfflineResult, progress: Callable[[str], None]) -> OfflineResult:
        """The result; not accepted if the mirror image of a trunk, or in one view that of a bone, fits as well.

        In parallel projection, a bone and its reflection in the image plane look alike; only perspective distinguishes
        them.
        """
        if not result.accepted or (self._segmented and len(self._views) > 1):
            return result
        progress("comparing with the mirror image")
        if not self._segmented:
            return self._told_hand(result)
        x_ct = float(self._centre_ct[0])
        model, bone = (grid.mirrored(x_ct) for grid in self._grids)
        other = OfflineRegistration(model, bone, self._views)
        T = result.views[0].T_camera_ct
        ray = T[:3, :3].T @ transform_points(T, self._centre_ct)
        start = T @ reflection(ray, self._centre_ct) @ reflection(np.array([1.0, 0, 0]), self._centre_ct)
        fit = other._from(start, progress)[0].fit
        if result.fit - fit >= SETTINGS.mirror_margin:
            return result
        reason = (
            f"the model fits with {result.fit:.2f}, its mirror image with {fit:.2f}: from this view alone it cannot be "
            "told whether the volume is mirrored; add a second view"
        )
        return replace(result, accepted=False, reason=reason)

    def _told_hand(self, result: OfflineResult) -> OfflineResult:
        """The result of a trunk; not accepted if the mirror images of the views fit as well, on the mean."""
        own, other = [], []
        for v, (view, estimate) in enumerate(zip(self._views, result.views, strict=True)):
            T = estimate.T_camera_ct
            mirror = MirrorImage(self._model, self._bones, view.camera, self._centre_ct, T)
            pyramid = {
                side: _resized(view.attenuation, view.camera.scaled(side / max(view.camera.rows, view.camera.cols)))
                for side in (COARSE_SIDE, FINE_SIDE)
            }
            own.append(self._agreement(v, T))
            other.append(mirror.agreement(T, pyramid, view.field_mask))
        agreement, mirrored = float(np.mean(own)), float(np.mean(other))
        hand = told_hand(agreement, mirrored)
        reason = reason_of_hand(hand, len(self._views), agreement, mirrored)
        return replace(result, accepted=not reason, reason=reason, hand=hand)

    def _refined(self, hypotheses: list[_Hypothesis], progress: Callable[[str], None]) -> list[_Hypothesis]:
        """The distinct hypotheses at the finest resolution, best first."""
        for r in self._rounds:
            hypotheses = self._different(hypotheses)[: r.kept]
            progress(f"{len(hypotheses)} hypotheses at {r.side} pixels")
            for hypothesis in hypotheses:
                self._refine(hypothesis, r.side, r.iterations)
        return self._different(hypotheses)

    def _different(self, hypotheses: list[_Hypothesis]) -> list[_Hypothesis]:
        """The distinct hypotheses, best first. Of those that have converged to the same pose, the best is kept."""
        distinct = DistinctPoses(self._centre_ct, SETTINGS.same_deg, SETTINGS.same_mm, SETTINGS.same_mm)
        return [h for h in sorted(hypotheses, key=lambda h: -h.fit) if distinct.is_new(h.poses[0])]

    def _at(self, T_first: Float, twist: Float) -> _Hypothesis:
        first = inverse(moved_about(self._centre_ct, twist) @ inverse(T_first))
        return _Hypothesis(T_first, [T @ first for T in self._T_view_first], [], 0.0)

    def _refine(self, hypothesis: _Hypothesis, side: int, iterations: int) -> None:
        levels = [self._levels[side, v] for v in range(len(self._views))]
        for _ in range(2):  # the patches depend on the pose
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
        depth = SETTINGS.one_view_depth_mm if held and len(self._views) == 1 else self._start_mm
        R = T_camera_ct[:3, :3]
        information[3:, 3:] = R.T @ np.diag(1 / np.array([self._start_mm, self._start_mm, depth]) ** 2) @ R
        return information

    def _judged(self, best: _Hypothesis) -> OfflineResult:
        sigma, space, image = [], [], []
        for e in best.estimates:
            # The covariance of the start bounds what the views do not determine, such as the depth of one view.
            information = e.information + self._start_information(e.T_camera_ct)
            covariance = covariance_in_camera(information, e.T_camera_ct, len(self._views))
            if len(self._views) == 1:
                covariance[5, 5] += self._start_mm**2  # held at the start's depth, so not better known
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
            if best.fit < SETTINGS.accepted_fit:
                reason = f"the model fits the image with {best.fit:.2f}; {SETTINGS.accepted_fit} is asked"
        else:
            agreement = min(self._agreement(v, e.T_camera_ct) for v, e in enumerate(best.estimates))
            if agreement < TRACKING_AGREEMENT:
                reason = f"the model agrees with the image with {agreement:.2f}; {TRACKING_AGREEMENT} is asked"
        return OfflineResult(not reason, reason, best.estimates, best.fit, sigma, space, image)

    def _agreement(self, v: int, T_camera_ct: Float) -> float:
        view = self._views[v]
        agreement = Agreement(self._model, self._bones, view.camera, COARSE_SIDE, T_camera_ct)
        small = view.camera.scaled(COARSE_SIDE / max(view.camera.rows, view.camera.cols))
        return agreement(T_camera_ct, _resized(view.attenuation, small), view.field_mask)


def reversed_view(view: XrayView) -> XrayView:
    """A view of the picture with its columns reversed, left for right, by the camera where it stands."""
    image, mask = (reversed_columns(array) for array in (view.attenuation, view.field_mask))
    return XrayView(reversed_camera(view.camera), image, mask)


def _resized(image: Float32, camera: Camera) -> Float32:
    """The image at the resolution of a camera."""
    return np.asarray(cv2.resize(image, (camera.cols, camera.rows), interpolation=cv2.INTER_AREA), dtype=np.float32)
