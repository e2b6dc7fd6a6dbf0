"""The coarse step of the initial search: DRRs of a grid of views, matched with the frame by Fourier transforms.

The frame is rotated and scaled once for each in-plane rotation and depth. For each pair of out-of-plane angles, a DRR
is rendered by a camera whose axis goes through the model's centre. One Fourier transform of the DRR gives its
correlation with all rotated and scaled frames at all shifts. A shift of the image is interpreted as a rotation of the
camera about the source, which is a homography and does not change the appearance. The patient may therefore be 100 mm
off the axis.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from fluoronav.geometry import Camera, exp_so3, moved_about
from fluoronav.imaging.projector import Projector, padded_rays
from fluoronav.imaging.registration.agreement import locally_normalised

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]


@dataclass(frozen=True)
class GridSettings:
    """Steps of the grid and which candidates are distinct; all chosen on the embedded case."""

    # Gauss-Newton at 64 pixels converges from half a step.
    step_deg: float = 8.3
    scale_step: float = 0.07  # of the logarithm of the distance
    orbit_deg: tuple[float, ...] = (0.0, 45.0, -45.0, 90.0, -90.0)  # orbital angles tried where the angle is unknown
    margin: float = 1.1  # reach of the grid as a multiple of the spread, so that poses at its edge are found
    # Poses closer than this to a better one are not candidates of their own.
    same_deg: float = 6.0
    same_in_plane_mm: float = 8.0
    same_depth_mm: float = 20.0
    border_px: int = 9  # side of the square by which the model's area is dilated: its border is compared, too
    min_drr: float = 0.02  # fraction of the DRR's maximum from which a pixel belongs to the model's area
    min_power: float = 0.3  # of a region, fraction of the frame's mean power; with less it counts as having this
    min_scale: float = 0.3  # smallest distance tried, fraction of the prior's
    min_coverage: float = 0.99  # of a pixel of the rotated frame by the field of view


SETTINGS = GridSettings()
_BORDER = np.ones((SETTINGS.border_px, SETTINGS.border_px), np.uint8)


@dataclass(frozen=True)
class Candidate:
    """A pose from the coarse grid and its correlation with the frame."""

    T_camera_ct: Float
    correlation: float


@dataclass(frozen=True)
class _Variant:
    """A frame rotated by `turn_deg` and scaled by `scale`; `affine` maps its pixels to those of the variant."""

    turn_deg: float
    scale: float
    affine: Float


class ViewGrid:
    """Finds candidates for the pose around a prior.

    Parameters
    ----------
    model : Projector
        A coarse one suffices.
    camera : Camera
        At full resolution.
    centre_ct : ndarray, shape (3,)
        Centre of the model, LPS mm.
    spread : fluoronav.case.Spread
        Largest error of the prior.
    side : int
        Longer side of the compared images, pixels.
    sigma_px : float
        Neighbourhood in which mean and contrast are equalised (:func:`.agreement.locally_normalised`).
    """

    def __init__(self, model: Projector, camera: Camera, centre_ct: Float, spread, side: int, sigma_px: float) -> None:
        self._model, self._spread, self._side, self._sigma_px = model, spread, side, sigma_px
        self._centre_ct = np.asarray(centre_ct, dtype=np.float64)
        self.camera = camera.scaled(side / max(camera.rows, camera.cols))
        K = self.camera.K.copy()
        K[0, 2] = K[1, 2] = (side - 1) / 2
        frontal = replace(self.camera, K=K, rows=side, cols=side)
        self._directions, self._count = padded_rays(frontal.rays(frontal.pixel_grid()))

    def candidates(
        self,
        T_prior: Float,
        image: Float32,
        field_mask: NDArray[np.bool_],
        pool: Executor,
        keep: int,
        go_on: Callable[[], bool] = lambda: True,
    ) -> list[Candidate]:
        """The best distinct poses of the grid, best first.

        Parameters
        ----------
        T_prior : ndarray, shape (4, 4)
            Patient to camera, mm.
        image : ndarray of float32
            Attenuation of the frame at this grid's resolution.
        field_mask : ndarray of bool
            Field of view without its penumbra, any size.
        pool : Executor
            Matches the tilts in parallel.
        keep : int
            Maximum number of candidates.
        go_on : callable
            False abandons the search; the list is then empty.
        """
        n = self._side
        centre = T_prior[:3, :3] @ self._centre_ct + T_prior[:3, 3]
        variants = self._variants(centre[2])
        windows = [self._window(v, centre) for v in variants]
        most = max((int(abs(shifts).max()) for window in windows for shifts in window if len(shifts)), default=0)
        # Shifts up to `most` do not wrap around; weights are computed at half the resolution.
        size = fft.next_fast_len(-(-(n + most) // 2), real=True)
        shape, half = (2 * size, 2 * size), (size, size)
        flat = [(vs[:, None] % shape[0] * shape[1] + us % shape[1]).ravel() for us, vs in windows]
        flat_half = [(vs[:, None] % shape[0] // 2 * size + us % shape[1] // 2).ravel() for us, vs in windows]
        spectra, powers, masks = self._spectra(variants, image, field_mask, shape)
        towards = _onto_axis(centre) @ T_prior[:3, :3]
        angles = _steps(self._spread.rotation_deg * SETTINGS.margin, SETTINGS.step_deg)
        tilts = [exp_so3(np.deg2rad([x, y, 0])) @ towards for x in angles for y in angles]
        distance = float(np.linalg.norm(centre))

        def row(R: Float) -> list[tuple[float, int, int, int]]:
            """For one tilt: the best correlation with each variant, its index, and its shift (u, v)."""
            if not go_on():
                return []
            drr = self._frontal(R, distance)
            there = np.asarray(
                cv2.dilate((drr > SETTINGS.min_drr * float(drr.max())).astype(np.float32), _BORDER), np.float32
            )
            total = float(there.sum())
            if total == 0:
                return []
            spectrum = fft.rfft2(locally_normalised(drr, there, self._sigma_px), shape)
            correlation = fft.irfft2(spectra * np.conj(spectrum), shape)
            over = np.conj(fft.rfft2(_halved(there), half)) / np.float32(total / 4)
            shared, power = fft.irfft2(masks * over, half), fft.irfft2(powers * over, half)
            weight = np.sqrt(np.clip(2 * shared, 0, 1) / np.maximum(power * total, SETTINGS.min_power * total / n**2))
            best = []
            for k, (us, vs) in enumerate(windows):
                if not flat[k].size:
                    continue
                window = correlation[k].ravel()[flat[k]] * weight[k].ravel()[flat_half[k]]
                at = int(window.argmax())
                best.append((float(window[at]), k, int(us[at % len(us)]), int(vs[at // len(us)])))
            return best

        found = [
            (value, tilt, k, u, v)
            for tilt, best in zip(tilts, pool.map(row, tilts), strict=True)
            for value, k, u, v in best
        ]
        if not go_on():
            return []
        found.sort(key=lambda f: -f[0])
        distinct = DistinctPoses(self._centre_ct, SETTINGS.same_deg, SETTINGS.same_in_plane_mm, SETTINGS.same_depth_mm)
        poses = ((self._placed(tilt, distance, variants[k], (u, v)), value) for value, tilt, k, u, v in found)
        return list(islice((Candidate(T, value) for T, value in poses if distinct.is_new(T)), keep))

    def _frontal(self, R_camera_ct: Float, distance: float) -> Float32:
        """The DRR by a camera whose axis goes through the model's centre, shape (side, side)."""
        T = np.eye(4)
        T[:3, :3] = R_camera_ct
        T[:3, 3] = [0, 0, distance] - R_camera_ct @ self._centre_ct
        integrals = np.empty(self._directions.shape[1], np.float32)
        self._model.line_integrals(T, self._directions, integrals)
        return integrals[: self._count].reshape(self._side, self._side)

    def _variants(self, z: float) -> list[_Variant]:
        """All rotations and scales of a frame whose patient is expected at depth `z`, mm."""
        n = self._side
        reach = SETTINGS.margin * self._spread.depth_mm / z
        near, far = max(1 - reach, SETTINGS.min_scale), 1 + reach
        scales = np.geomspace(near, far, max(int(np.ceil(np.log(far / near) / SETTINGS.scale_step)), 1) + 1)
        scales = np.sqrt(scales[1:] * scales[:-1])  # middles of the steps
        middle = ((self.camera.cols - 1) / 2, (self.camera.rows - 1) / 2)
        variants = []
        for turn in _steps(self._spread.rotation_deg * SETTINGS.margin, SETTINGS.step_deg):
            for scale in scales:
                # `scale` is the model's distance as a multiple of the prior's: farther away it looks smaller.
                affine = np.asarray(cv2.getRotationMatrix2D(middle, turn, float(scale)), dtype=np.float64)
                affine[:, 2] += (n - 1) / 2 - np.array(middle)
                variants.append(_Variant(float(turn), float(scale), affine))
        return variants

    def _spectra(
        self, variants: list[_Variant], image: Float32, field_mask: NDArray[np.bool_], shape: tuple[int, int]
    ) -> tuple[Complex64, Complex64, Complex64]:
        """Fourier transforms of the variants of a frame, locally normalised.

        Those of their squares and of their masks are at half the resolution, since both are smooth.
        """
        n = self._side
        mask = cv2.resize(field_mask.astype(np.uint8), image.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(
            np.float32
        )
        images, masks = np.empty((2, len(variants), n, n), np.float32)
        for k, variant in enumerate(variants):
            turned = np.asarray(
                cv2.warpAffine(image, variant.affine, (n, n), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
                dtype=np.float32,
            )
            masks[k] = cv2.warpAffine(mask, variant.affine, (n, n), flags=cv2.INTER_LINEAR) > SETTINGS.min_coverage
            images[k] = locally_normalised(turned, masks[k], self._sigma_px)
        half = (shape[0] // 2, shape[1] // 2)
        return fft.rfft2(images, shape), fft.rfft2(_halved(images * images), half), fft.rfft2(_halved(masks), half)

    def _window(self, variant: _Variant, centre: Float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The shifts (u, v) for which the model's centre is within the spread around its place at the prior."""
        n, K = self._side, self.camera.K
        at = K[:2, :2] @ (centre[:2] / centre[2]) + K[:2, 2]
        middle = variant.affine @ np.append(at, 1) - (n - 1) / 2
        reach = SETTINGS.margin * self._spread.in_plane_mm / centre[2] * K[0, 0] * variant.scale
        return tuple(
            np.arange(max(int(np.ceil(m - reach)), 1 - n), min(int(np.floor(m + reach)), n - 1) + 1) for m in middle
        )  # pyright: ignore[reportReturnType]

    def _placed(self, R_frontal: Float, distance: float, variant: _Variant, shift: tuple[int, int]) -> Float:
        """The pose whose image is the frontal view with the variant's rotation and scale at a shift."""
        K = self.camera.K
        found = np.array(shift) + (self._side - 1) / 2
        at = np.linalg.solve(variant.affine[:, :2], found - variant.affine[:, 2])
        ray = np.append((at - K[:2, 2]) / [K[0, 0], K[1, 1]], 1)
        ray /= np.linalg.norm(ray)
        T = np.eye(4)
        T[:3, :3] = _onto_axis(ray).T @ exp_so3([0, 0, np.deg2rad(variant.turn_deg)]) @ R_frontal
        T[:3, 3] = ray * distance * variant.scale - T[:3, :3] @ self._centre_ct
        return T


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


def _halved(images: Float32) -> Float32:
    """Means of 2 x 2 pixels, over the last two axes."""
    return 0.25 * (images[..., ::2, ::2] + images[..., 1::2, ::2] + images[..., ::2, 1::2] + images[..., 1::2, 1::2])


def _steps(half_width: float, step: float) -> Float:
    n = int(np.ceil(half_width / step - 1e-9))
    return np.linspace(-half_width, half_width, 2 * n + 1)


def _onto_axis(ray: Float) -> Float:
    """The smallest rotation of a ray onto the optical axis, shape (3, 3)."""
    ray = ray / np.linalg.norm(ray)
    axis = np.cross(ray, [0, 0, 1.0])
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3)
    return exp_so3(axis / sine * np.arctan2(sine, ray[2]))
