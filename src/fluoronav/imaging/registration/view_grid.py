"""The coarse step of the initial search: DRRs of a grid of views, matched with the frame by Fourier transforms.

The frame is rotated and scaled once for each in-plane rotation and depth. For each pair of out-of-plane angles, a DRR
is rendered by a camera whose axis goes through the model's centre (:mod:`.views_around`). One Fourier transform of the
DRR gives its correlation with all rotated and scaled frames at all shifts. A shift of the image is interpreted as a
rotation of the camera about the source, which is a homography and does not change the appearance. The patient may
therefore be 100 mm off the axis.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, moved_about
from fluoronav.imaging.projector import Projector, padded_rays
from fluoronav.imaging.registration.agreement import locally_normalised
from fluoronav.imaging.registration.views_around import SETTINGS, ViewsAround, halved, images_of, spectra_of

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """A pose from the coarse grid and its correlation with the frame."""

    T_camera_ct: Float
    correlation: float


class ViewGrid:
    """Finds candidates for the pose around a prior.

    Parameters
    ----------
    model, bones : Projector
        All tissue, and the rigid bones alone, which are what is matched where the CT is a part of the patient. Coarse
        ones suffice.
    camera : Camera
        At full resolution.
    centre_ct : ndarray, shape (3,)
        Centre of the model, LPS mm.
    spread : fluoronav.case.Spread
        Largest error of the prior.
    side : int
        Longer side of the compared images, pixels, even.
    sigma_px : float
        Neighbourhood in which mean and contrast are equalised (:func:`.agreement.locally_normalised`).
    """

    def __init__(
        self,
        model: Projector,
        bones: Projector,
        camera: Camera,
        centre_ct: Float,
        spread,
        side: int,
        sigma_px: float,
    ) -> None:
        self._model, self._bones = model, bones
        self._spread, self._side, self._sigma_px = spread, side, sigma_px
        self._centre_ct = np.asarray(centre_ct, dtype=np.float64)
        self.camera = camera.scaled(side / max(camera.rows, camera.cols))
        K = self.camera.K.copy()
        K[0, 2] = K[1, 2] = (side - 1) / 2
        frontal = replace(self.camera, K=K, rows=side, cols=side)
        self._directions, self._count = padded_rays(frontal.rays(frontal.pixel_grid()))
        self._known: list[ViewsAround] = []

    def around(self, T_prior: Float) -> ViewsAround:
        """The views around a prior, shape (4, 4): those of the last few priors are kept."""
        for known in self._known:
            if np.array_equal(known.T_prior, T_prior):
                return known
        views = ViewsAround(
            T_prior, self.camera, self._centre_ct, self._spread, self._side, self._sigma_px, self._frontal
        )
        self._known = [*self._known[1 - SETTINGS.kept_priors :], views]
        return views

    def matched(self, T_prior: Float, image: Float32, field_mask: NDArray[np.bool_]) -> FrameMatch:
        """A frame that is ready to be matched with the views around a prior.

        Parameters
        ----------
        T_prior : ndarray, shape (4, 4)
            Patient to camera, mm.
        image : ndarray of float32
            Attenuation of the frame at this grid's resolution.
        field_mask : ndarray of bool
            Field of view without its penumbra, any size.
        """
        return FrameMatch(self.around(T_prior), image, field_mask, self._side, self._sigma_px, self._centre_ct)

    def _frontal(self, R_camera_ct: Float, distance: float) -> tuple[Float32, Float32]:
        """The DRR by a camera whose axis goes through the model's centre, and the area that is matched, 0 or 1."""
        T = np.eye(4)
        T[:3, :3] = R_camera_ct
        T[:3, 3] = [0, 0, distance] - R_camera_ct @ self._centre_ct
        integrals = np.empty(self._directions.shape[1], np.float32)
        self._model.line_integrals(T, self._directions, integrals)
        drr = integrals[: self._count].reshape(self._side, self._side).copy()
        if self._model.grid.known_ct is not None:
            self._bones.line_integrals(T, self._directions, integrals)
        area = integrals[: self._count].reshape(self._side, self._side)
        there = (area > SETTINGS.min_drr * float(area.max())).astype(np.float32)
        border = np.ones((SETTINGS.border_px, SETTINGS.border_px), np.uint8)
        return drr, np.asarray(cv2.dilate(there, border), np.float32)


class FrameMatch:
    """One frame, matched with the views around one prior, in two halves.

    Parameters
    ----------
    views : ViewsAround
    image, field_mask
        As for :meth:`ViewGrid.matched`.
    side, sigma_px, centre_ct
        Those of the grid.
    """

    def __init__(
        self,
        views: ViewsAround,
        image: Float32,
        field_mask: NDArray[np.bool_],
        side: int,
        sigma_px: float,
        centre_ct: Float,
    ) -> None:
        self._views, self._centre_ct = views, centre_ct
        self._least_power = SETTINGS.min_power / side**2
        self._matched = 0  # tilts
        # Correlation, tilt, variant and shift (u, v).
        self._found: list[tuple[float, int, int, int, int]] = []
        mask = cv2.resize(field_mask.astype(np.uint8), image.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(
            np.float32
        )
        images, masks = np.empty((2, len(views.variants), side, side), np.float32)
        for k, variant in enumerate(views.variants):
            turned = np.asarray(
                cv2.warpAffine(
                    image, variant.affine, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
                ),
                dtype=np.float32,
            )
            covered = cv2.warpAffine(mask, variant.affine, (side, side), flags=cv2.INTER_LINEAR)
            masks[k] = covered > SETTINGS.min_coverage
            images[k] = locally_normalised(turned, masks[k], sigma_px)
        # Squares and masks are smooth, so half the resolution does for them.
        half = (views.shape[0] // 2, views.shape[1] // 2)
        self._spectra = spectra_of(images, views.shape)
        self._powers, self._masks = spectra_of(halved(images * images), half), spectra_of(halved(masks), half)

    def match_half(self, pool: Executor, go_on: Callable[[], bool] = lambda: True) -> None:
        """Matches the tilts of the first half, or else those that are left.

        Parameters
        ----------
        pool : Executor
            Matches the tilts in parallel.
        go_on : callable
            False abandons it.
        """
        end = len(self._views.tilts) if self._matched else self._views.first_half

        def one(tilt: int) -> list[tuple[float, int, int, int, int]]:
            return self._best_shifts(tilt) if go_on() else []

        for found in pool.map(one, range(self._matched, end)):
            self._found += found
        self._matched = end

    def candidates(self, keep: int) -> list[Candidate]:
        """The best distinct poses of the tilts that have been matched, best first, at most `keep`."""
        distinct = DistinctPoses(self._centre_ct, SETTINGS.same_deg, SETTINGS.same_in_plane_mm, SETTINGS.same_depth_mm)
        ranked = sorted(self._found, key=lambda f: -f[0])
        poses = ((self._views.placed(tilt, k, (u, v)), value) for value, tilt, k, u, v in ranked)
        return list(islice((Candidate(T, value) for T, value in poses if distinct.is_new(T)), keep))

    def _best_shifts(self, tilt: int) -> list[tuple[float, int, int, int, int]]:
        """For one tilt and each variant: the best correlation, with its shift."""
        view = self._views.view(tilt)
        if view is None:
            return []
        shape = self._views.shape
        half = (shape[0] // 2, shape[1] // 2)
        correlation = images_of(self._spectra * view.spectrum, shape)
        shared, power = images_of(self._masks * view.over, half), images_of(self._powers * view.over, half)
        weight = np.sqrt(np.clip(2 * shared, 0, 1) / (view.area_px * np.maximum(power, self._least_power)))
        best = []
        for k in range(len(self._views.variants)):
            found = self._views.best_shift(k, correlation[k], weight[k])
            if found is not None:
                best.append((found[0], tilt, k, *found[1:]))
        return best


def orbit_priors(T_camera_ct: Float, centre_ct: Float) -> list[Float]:
    """The prior at several orbital angles, AP to lateral on both sides, for a fluoroscope whose angle is unknown.

    Parameters
    ----------
    T_camera_ct : ndarray, shape (4, 4)
        Patient to camera, mm.
    centre_ct : ndarray, shape (3,)
        Point about which the arm rotates, LPS mm; the axis is the patient's longitudinal axis.

    Returns
    -------
    list of ndarray, shape (4, 4)
        The prior itself is the first.
    """
    return [T_camera_ct @ moved_about(centre_ct, [0, 0, np.deg2rad(angle), 0, 0, 0]) for angle in SETTINGS.orbit_deg]


class DistinctPoses:
    """Remembers poses and tells whether another pose is distinct from them.

    Parameters
    ----------
    centre_ct : ndarray, shape (3,)
        Point whose distance is compared, LPS mm.
    degrees, in_plane_mm, depth_mm : float
        Poses that differ by less in all three are the same.
    """

    def __init__(self, centre_ct: Float, degrees: float, in_plane_mm: float, depth_mm: float) -> None:
        self._centre_ct = centre_ct
        self._cosine, self._in_plane_mm, self._depth_mm = np.cos(np.deg2rad(degrees)), in_plane_mm, depth_mm
        self._places: list[Float] = []
        self._rotations: list[Float] = []

    def is_new(self, T_camera_ct: Float) -> bool:
        """True if the pose is distinct; it is then remembered."""
        place = T_camera_ct[:3, :3] @ self._centre_ct + T_camera_ct[:3, 3]
        if self._places:
            off = np.abs(np.array(self._places) - place)
            near = (np.hypot(off[:, 0], off[:, 1]) < self._in_plane_mm) & (off[:, 2] < self._depth_mm)
            if near.any():
                traces = np.einsum("kij,ij->k", np.array(self._rotations)[near], T_camera_ct[:3, :3])
                if (traces > 1 + 2 * self._cosine).any():
                    return False
        self._places.append(place)
        self._rotations.append(T_camera_ct[:3, :3])
        return True
