"""The views that are compared with a frame around one prior: all of the coarse step that does not depend on the frame.

For each pair of out-of-plane angles, a DRR is rendered by a camera whose axis goes through the model's centre. The
Fourier transforms of the DRRs are kept where they take little memory: a search around the same prior, the first one in
a stream above all, then renders nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from fluoronav.geometry import Camera, exp_so3
from fluoronav.imaging.registration.agreement import locally_normalised

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]
Indices = NDArray[np.intp]


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
    # The views of a prior are kept if they take at most this, MB: those of the stream's search take 4.
    kept_mb: float = 8.0
    kept_priors: int = 5  # whose views are kept: a prior at its five orbital angles


SETTINGS = GridSettings()


@dataclass(frozen=True)
class Variant:
    """A frame rotated by `turn_deg` and scaled by `scale`; `affine` maps its pixels to those of the variant."""

    turn_deg: float
    scale: float
    affine: Float


@dataclass(frozen=True)
class View:
    """Fourier transforms of a DRR.

    Attributes
    ----------
    spectrum : ndarray of complex64
        Conjugate transform of the DRR, locally normalised.
    over : ndarray of complex64
        Conjugate transform of the model's area, divided by its size, at half the resolution.
    area_px : float
        Size of the model's area.
    """

    spectrum: Complex64
    over: Complex64
    area_px: float


class ViewsAround:
    """The views, and the variants of a frame with their shifts, around one prior.

    Parameters
    ----------
    T_prior : ndarray, shape (4, 4)
        Patient to camera, mm.
    camera : Camera
        At the resolution of the comparison.
    centre_ct : ndarray, shape (3,)
        Centre of the model, LPS mm.
    spread : fluoronav.case.Spread
        Largest error of the prior.
    side : int
        Side of the compared images, pixels, even.
    sigma_px : float
        Neighbourhood in which mean and contrast are equalised.
    rendered : callable
        Renders the DRR of a camera whose axis goes through the model's centre, and the area (0 or 1) in which it is
        matched, shape (side, side) both, given its rotation and its distance in mm.

    Attributes
    ----------
    variants : list of Variant
    windows : list of tuple
        Per variant the shifts (u, v), pixels, for which the model's centre is within the spread around its place at the
        prior.
    tilts : list of ndarray, shape (3, 3)
        Rotations of the views, patient to camera. The second half of them lies between those of the first half.
    first_half : int
        Number of tilts in the first half.
    shape : tuple of int
        Of the Fourier transforms. The shifts of all windows do not wrap around.
    """

    def __init__(
        self,
        T_prior: Float,
        camera: Camera,
        centre_ct: Float,
        spread,
        side: int,
        sigma_px: float,
        rendered: Callable[[Float, float], tuple[Float32, Float32]],
    ) -> None:
        self.T_prior = np.array(T_prior)
        self._camera, self._centre_ct, self._spread = camera, centre_ct, spread
        self._side, self._sigma_px, self._rendered = side, sigma_px, rendered
        centre = T_prior[:3, :3] @ centre_ct + T_prior[:3, 3]
        self._distance = float(np.linalg.norm(centre))
        self.variants = self._variants(centre[2])
        self.windows = [self._window(v, centre) for v in self.variants]
        most = max((int(abs(shifts).max()) for window in self.windows for shifts in window if len(shifts)), default=0)
        size = 2 * int(fft.next_fast_len(-(-(side + most) // 2), real=True))  # pyright: ignore[reportArgumentType]
        self.shape, half = (size, size), size // 2
        self._cells = [((vs[:, None] % size) * size + us % size).ravel() for us, vs in self.windows]
        self._half_cells = [((vs[:, None] % size // 2) * half + us % size // 2).ravel() for us, vs in self.windows]
        towards = onto_axis(centre) @ T_prior[:3, :3]
        angles = _steps(spread.rotation_deg * SETTINGS.margin, SETTINGS.step_deg)
        places = sorted(((i, j) for i in range(len(angles)) for j in range(len(angles))), key=lambda ij: sum(ij) % 2)
        self.tilts = [exp_so3(np.deg2rad([angles[i], angles[j], 0])) @ towards for i, j in places]
        self.first_half = sum((i + j) % 2 == 0 for i, j in places)
        of_view = 8 * (size * (size // 2 + 1) + half * (half // 2 + 1))
        self._keeps = of_view * len(self.tilts) <= SETTINGS.kept_mb * 1e6
        self._kept: dict[int, View | None] = {}

    def view(self, tilt: int) -> View | None:
        """The view at a tilt, kept or rendered; None where the model is not in it. Threads may call it at a time."""
        if tilt in self._kept:
            return self._kept[tilt]
        view = self._made(*self._rendered(self.tilts[tilt], self._distance))
        if self._keeps:
            self._kept[tilt] = view
        return view

    def best_shift(self, k: int, correlation: Float32, weight: Float32) -> tuple[float, int, int] | None:
        """The highest correlation with a variant inside its window, and the shift (u, v); None where it has none.

        Parameters
        ----------
        k : int
            Index of the variant.
        correlation, weight : ndarray of float32
            At all shifts, cyclic; the weight at half the resolution.
        """
        if not self._cells[k].size:
            return None
        us, vs = self.windows[k]
        window = correlation.ravel()[self._cells[k]] * weight.ravel()[self._half_cells[k]]
        at = int(window.argmax())
        return float(window[at]), int(us[at % len(us)]), int(vs[at // len(us)])

    def placed(self, tilt: int, k: int, shift: tuple[int, int]) -> Float:
        """The pose, shape (4, 4), whose image is the view at a tilt with a variant's rotation and scale, at a shift."""
        K, variant = self._camera.K, self.variants[k]
        found = np.array(shift) + (self._side - 1) / 2
        at = np.linalg.solve(variant.affine[:, :2], found - variant.affine[:, 2])
        ray = np.append((at - K[:2, 2]) / [K[0, 0], K[1, 1]], 1)
        ray /= np.linalg.norm(ray)
        T = np.eye(4)
        T[:3, :3] = onto_axis(ray).T @ exp_so3([0, 0, np.deg2rad(variant.turn_deg)]) @ self.tilts[tilt]
        T[:3, 3] = ray * self._distance * variant.scale - T[:3, :3] @ self._centre_ct
        return T

    def _made(self, drr: Float32, there: Float32) -> View | None:
        area_px = float(there.sum())
        if area_px == 0:
            return None
        spectrum = spectra_of(locally_normalised(drr, there, self._sigma_px), self.shape)
        over = spectra_of(halved(there), (self.shape[0] // 2, self.shape[1] // 2)) / np.float32(area_px / 4)
        return View(np.conj(spectrum), np.conj(over), area_px)

    def _variants(self, z: float) -> list[Variant]:
        """All rotations and scales of a frame whose patient is expected at depth `z`, mm."""
        reach = SETTINGS.margin * self._spread.depth_mm / z
        near, far = max(1 - reach, SETTINGS.min_scale), 1 + reach
        scales = np.geomspace(near, far, max(int(np.ceil(np.log(far / near) / SETTINGS.scale_step)), 1) + 1)
        scales = np.sqrt(scales[1:] * scales[:-1])  # middles of the steps
        middle = ((self._camera.cols - 1) / 2, (self._camera.rows - 1) / 2)
        variants = []
        for turn in _steps(self._spread.rotation_deg * SETTINGS.margin, SETTINGS.step_deg):
            for scale in scales:
                # `scale` is the model's distance as a multiple of the prior's: farther away it looks smaller.
                affine = np.asarray(cv2.getRotationMatrix2D(middle, turn, float(scale)), dtype=np.float64)
                affine[:, 2] += (self._side - 1) / 2 - np.array(middle)
                variants.append(Variant(float(turn), float(scale), affine))
        return variants

    def _window(self, variant: Variant, centre: Float) -> tuple[Indices, Indices]:
        n, K = self._side, self._camera.K
        at = K[:2, :2] @ (centre[:2] / centre[2]) + K[:2, 2]
        middle = variant.affine @ np.append(at, 1) - (n - 1) / 2
        reach = SETTINGS.margin * self._spread.in_plane_mm / centre[2] * K[0, 0] * variant.scale
        return tuple(
            np.arange(max(int(np.ceil(m - reach)), 1 - n), min(int(np.floor(m + reach)), n - 1) + 1) for m in middle
        )  # pyright: ignore[reportReturnType]


def spectra_of(images: Float32, shape: tuple[int, int]) -> Complex64:
    """Fourier transforms of one image or several, padded with zeros to a shape."""
    return np.asarray(fft.rfft2(images, shape), dtype=np.complex64)


def images_of(spectra: Complex64, shape: tuple[int, int]) -> Float32:
    """The images whose transforms :func:`spectra_of` are these."""
    return np.asarray(fft.irfft2(spectra, shape), dtype=np.float32)


def halved(images: Float32) -> Float32:
    """Means of 2 x 2 pixels of one image or several; sides are even."""
    sums = images[..., ::2, ::2] + images[..., 1::2, ::2] + images[..., ::2, 1::2] + images[..., 1::2, 1::2]
    return np.asarray(sums / 4, dtype=np.float32)


def onto_axis(ray: Float) -> Float:
    """The smallest rotation of a ray onto the optical axis, shape (3, 3)."""
    ray = ray / np.linalg.norm(ray)
    axis = np.cross(ray, [0, 0, 1.0])
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3)
    return exp_so3(axis / sine * np.arctan2(sine, ray[2]))


def _steps(half_width: float, step: float) -> Float:
    n = int(np.ceil(half_width / step - 1e-9))
    return np.linspace(-half_width, half_width, 2 * n + 1)
