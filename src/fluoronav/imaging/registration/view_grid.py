"""The coarse half of the initial search: a grid of views matched with the frame by Fourier transforms.

The frame is turned and scaled once for every in-plane turn and depth. A DRR of the model, seen by a camera that looks
straight at it, is rendered for every pair of out-of-plane angles; one Fourier transform of it then gives its
correlation with every turned and scaled frame at every shift. A shift of the image is taken for a turn of the camera
about its source, which is a homography and leaves the appearance as it is: that is what lets the patient be 100 mm off
the axis.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, exp_so3, moved_about
from fluoronav.imaging.projector import Projector, padded_rays
from fluoronav.imaging.registration.agreement import locally_normalised

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

# Steps of the grid: Gauss-Newton at 64 pixels gets home from half of each.
_STEP_DEG, _SCALE_STEP = 8.3, 0.07
_ORBIT_DEG = (0.0, 45.0, -45.0, 90.0, -90.0)
# The grid reaches this much farther than the spread, so that a pose at its edge is not found by half a step's luck.
_MARGIN = 1.1
# Poses closer than this to a better one are the same hypothesis: degrees, mm in the plane, mm in depth.
_SAME_DEG, _SAME_IN_PLANE_MM, _SAME_DEPTH_MM = 6.0, 8.0, 20.0
# The rim around the model counts, too: a bone ends there.
_RIM = np.ones((9, 9), np.uint8)
# Share of its mean power below which a region of the frame is taken to be empty.
_LEAST_POWER = 0.3


@dataclass(frozen=True)
class Candidate:
    """A pose from the coarse grid and its correlation with the frame."""

    T_camera_ct: Float
    correlation: float


@dataclass(frozen=True)
class _Variant:
    """A frame turned by `turn_deg` and shrunk by `scale`; the affine map takes its pixels to the variant's."""

    turn_deg: float
    scale: float
    affine: Float


class ViewGrid:
    """Finds candidates for the pose around a prior.

    Parameters
    ----------
    model : Projector
        A coarse one is enough.
    camera : Camera
        At full resolution.
    centre_ct : ndarray, shape (3,)
        Middle of the model, LPS mm.
    spread : fluoronav.case.Spread
        How far the prior may be wrong.
    side : int
        Longer side of the images that are compared, pixels.
    sigma_px : float
        Neighbourhood over which mean and contrast are made equal.
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
        """The best poses of the grid, best first, each a hypothesis of its own.

        Parameters
        ----------
        T_prior : ndarray, shape (4, 4)
            Patient to camera, mm.
        image : ndarray of float32
            Attenuation of the frame at this grid's resolution.
        seen : ndarray of bool
            What lies inside the aperture, any size.
        pool : Executor
            The tilts are shared among its threads.
        keep : int
        go_on : callable
            False abandons the search; the list is empty then.
        """
        n = self._side
        centre = T_prior[:3, :3] @ self._centre_ct + T_prior[:3, 3]
        variants, spectra, powers, masks = self._variants(image, field_mask, centre[2])
        windows = [self._window(v, centre) for v in variants]
        towards = _onto_axis(centre) @ T_prior[:3, :3]
        angles = _steps(self._spread.rotation_deg * _MARGIN, _STEP_DEG)
        tilts = [exp_so3(np.deg2rad([x, y, 0])) @ towards for x in angles for y in angles]
        distance = float(np.linalg.norm(centre))

        def row(R: Float) -> list[tuple[float, int, int, int]]:
            """For one view: the best correlation with each variant, and the shift (u, v) at which it is."""
            if not go_on():
                return []
            drr = self._frontal(R, distance)
            there = np.asarray(cv2.dilate((drr > 0.02 * float(drr.max())).astype(np.float32), _RIM), np.float32)
            total = float(there.sum())
            if total == 0:
                return []
            shape = (2 * n, 2 * n)
            spectrum = np.fft.rfft2(locally_normalised(drr, there, self._sigma_px), shape)
            correlation = np.fft.irfft2(spectra * np.conj(spectrum), shape)
            over = np.conj(np.fft.rfft2(there, shape) / total)
            shared = np.fft.irfft2(masks * over, shape)
            power = np.fft.irfft2(powers * over, shape)
            correlation *= np.sqrt(np.clip(2 * shared, 0, 1) / np.maximum(power * total, _LEAST_POWER * total / n**2))
            best = []
            for k, (us, vs) in enumerate(windows):
                if len(us) == 0 or len(vs) == 0:
                    continue
                window = correlation[k][np.ix_(vs, us)]
                i, j = divmod(int(window.argmax()), len(us))
                best.append((float(window[i, j]), k, int(us[j]), int(vs[i])))
            return best

        found = [
            (value, tilt, k, u, v)
            for tilt, best in zip(tilts, pool.map(row, tilts), strict=True)
            for value, k, u, v in best
        ]
        if not go_on():
            return []
        found.sort(key=lambda f: -f[0])
        apart = Apart(self._centre_ct, _SAME_DEG, _SAME_IN_PLANE_MM, _SAME_DEPTH_MM)
        kept: list[Candidate] = []
        for value, tilt, k, u, v in found:
            T = self._placed(tilt, distance, variants[k], (u, v))
            if apart.is_new(T):
                kept.append(Candidate(T, value))
                if len(kept) == keep:
                    break
        return kept

    def _frontal(self, R_camera_ct: Float, distance: float) -> Float32:
        """The DRR seen by a camera that looks straight at the model's middle, shape (side, side)."""
        T = np.eye(4)
        T[:3, :3] = R_camera_ct
        T[:3, 3] = [0, 0, distance] - R_camera_ct @ self._centre_ct
        integrals = np.empty(self._directions.shape[1], np.float32)
        self._model.line_integrals(T, self._directions, integrals)
        return integrals[: self._count].reshape(self._side, self._side)

    def _variants(self, image: Float32, field_mask: NDArray[np.bool_], z: float):
        """The frame in every turn and scale, locally normalised: the spectra of it, its square and its mask."""
        n = self._side
        mask = cv2.resize(field_mask.astype(np.uint8), image.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(
            np.float32
        )
        reach = _MARGIN * self._spread.depth_mm / z
        near, far = max(1 - reach, 0.3), 1 + reach
        scales = np.geomspace(near, far, max(int(np.ceil(np.log(far / near) / _SCALE_STEP)), 1) + 1)
        scales = np.sqrt(scales[1:] * scales[:-1])  # middles of the steps
        middle = ((self.camera.cols - 1) / 2, (self.camera.rows - 1) / 2)
        variants, images, masks = [], [], []
        for turn in _steps(self._spread.rotation_deg * _MARGIN, _STEP_DEG):
            for scale in scales:
                # `scale` is the model's distance over the prior's: a model farther away is smaller in the frame.
                affine = np.asarray(cv2.getRotationMatrix2D(middle, turn, float(scale)), dtype=np.float64)
                affine[:, 2] += (n - 1) / 2 - np.array(middle)
                turned = np.asarray(
                    cv2.warpAffine(image, affine, (n, n), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
                    dtype=np.float32,
                )
                there = (cv2.warpAffine(mask, affine, (n, n), flags=cv2.INTER_LINEAR) > 0.99).astype(np.float32)
                variants.append(_Variant(float(turn), float(scale), affine))
                images.append(locally_normalised(turned, there, self._sigma_px))
                masks.append(there)
        shape = (2 * n, 2 * n)
        frames = np.array(images)
        return (
            variants,
            np.fft.rfft2(frames, shape),
            np.fft.rfft2(frames * frames, shape),
            np.fft.rfft2(np.array(masks), shape),
        )

    def _window(self, variant: _Variant, centre: Float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The shifts (u, v) that put the model's middle within reach of where the prior has it."""
        n, K = self._side, self.camera.K
        at = K[:2, :2] @ (centre[:2] / centre[2]) + K[:2, 2]
        middle = variant.affine @ np.append(at, 1) - (n - 1) / 2
        reach = _MARGIN * self._spread.in_plane_mm / centre[2] * K[0, 0] * variant.scale
        return tuple(
            np.arange(max(int(np.ceil(m - reach)), 1 - n), min(int(np.floor(m + reach)), n - 1) + 1) for m in middle
        )  # pyright: ignore[reportReturnType]

    def _placed(self, R_frontal: Float, distance: float, variant: _Variant, shift: tuple[int, int]) -> Float:
        """The pose whose picture is the frontal view turned, scaled and shifted to where it was found."""
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
    """The prior, and what it would be at other orbital angles: AP to lateral on both sides.

    For a fluoroscope that does not know its angle.

    Parameters
    ----------
    T_camera_ct : ndarray, shape (4, 4)
    centre_ct : ndarray, shape (3,)
        Point that the arm turns about, LPS mm; the axis is the patient's long one.
    """
    return [T_camera_ct @ moved_about(centre_ct, [0, 0, np.deg2rad(angle), 0, 0, 0]) for angle in _ORBIT_DEG]


class Apart:
    """Remembers poses and tells whether a further one is another hypothesis or the same again."""

    def __init__(self, centre_ct: Float, degrees: float, in_plane_mm: float, depth_mm: float) -> None:
        self._centre_ct = centre_ct
        self._cosine, self._in_plane_mm, self._depth_mm = np.cos(np.deg2rad(degrees)), in_plane_mm, depth_mm
        self._places: list[Float] = []
        self._rotations: list[Float] = []

    def is_new(self, T_camera_ct: Float) -> bool:
        """True, and the pose is remembered, unless one like it was there before."""
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


def _steps(half_width: float, step: float) -> Float:
    n = int(np.ceil(half_width / step - 1e-9))
    return np.linspace(-half_width, half_width, 2 * n + 1)


def _onto_axis(ray: Float) -> Float:
    """The smallest turn that brings a ray onto the optical axis, shape (3, 3)."""
    ray = ray / np.linalg.norm(ray)
    axis = np.cross(ray, [0, 0, 1.0])
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3)
    return exp_so3(axis / sine * np.arctan2(sine, ray[2]))
