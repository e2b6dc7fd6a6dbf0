"""The initial search: from a prior that may be centimetres and tens of degrees wrong to a pose worth refining.

DRRs of 64 pixels are rendered over a grid of out-of-plane angles and depths; each is turned in the plane, and one
Fourier transform then gives its correlation with the frame for every shift. The best few, kept apart from one another,
are refined by Gauss-Newton, and the best of those wins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, exp_so3, rotation_distance_deg
from fluoronav.projector import Projector, padded_rays
from fluoronav.registration.agreement import Agreement, locally_normalised
from fluoronav.registration.gauss_newton import PoseEstimate, refine
from fluoronav.registration.patches import PatchLevel

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

_ANGLE_STEP_DEG = 6.0
_DEPTH_STEP_MM = 25.0
_TURN_STEP_DEG = 6.0
_GRID_SIGMA_PX = 4.0
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
_CLEAR = 0.55
GRID_SIDE = 64
COARSE_SIDE = 128
FINE_SIDE = 256


@dataclass(frozen=True)
class Candidate:
    """A pose from the coarse grid and its correlation with the frame."""

    T_camera_ct: Float
    correlation: float


@dataclass(frozen=True)
class Hypothesis:
    """A refined pose and how well the whole model agrees with the frame there (:mod:`.agreement`)."""

    estimate: PoseEstimate
    agreement: float


class InitialSearch:
    """Searches around a prior pose.

    Parameters
    ----------
    model, bones : Projector
    camera : Camera
        At full resolution.
    prior : fluoronav.case.PriorPose
        With its spread: rotation about every axis, in-plane and depth translation.
    centre_ct : ndarray, shape (3,)
        What rotations turn about.
    """

    def __init__(self, model: Projector, bones: Projector, camera: Camera, prior, centre_ct: Float) -> None:
        self._model, self._bones, self._prior = model, bones, prior
        self._centre_ct = np.asarray(centre_ct, dtype=np.float64)
        self._camera = camera.scaled(GRID_SIDE / max(camera.rows, camera.cols))
        self._directions, self._count = padded_rays(self._camera.rays(self._camera.pixel_grid()))
        self._integrals = np.empty(self._directions.shape[1], np.float32)
        self.agreement = Agreement(model, camera, COARSE_SIDE)
        self.coarse = PatchLevel(camera, COARSE_SIDE, 12, 50)
        self.fine = PatchLevel(camera, FINE_SIDE, 15, 60)

    def candidates(
        self, small: Float32, seen: NDArray[np.bool_], keep: int, go_on: Callable[[], bool] = lambda: True
    ) -> list[Candidate]:
        """The best poses of the grid, best first.

        Parameters
        ----------
        small : ndarray of float32, shape (64, 64) or the camera's aspect
            Attenuation of the frame.
        seen : ndarray of bool
            What lies inside the aperture, any size.
        keep : int
        go_on : callable
            False abandons the search.
        """
        rows, cols = self._camera.rows, self._camera.cols
        mask = cv2.resize(seen.astype(np.uint8), (cols, rows), interpolation=cv2.INTER_NEAREST).astype(np.float32)
        frame = locally_normalised(small, mask, _GRID_SIGMA_PX)
        shape = (2 * rows, 2 * cols)
        frame_spectrum = np.fft.rfft2(frame, shape)
        mask_spectrum = np.fft.rfft2(mask, shape)
        T0 = self._prior.T_camera_ct()
        s = self._prior.spread
        tilts = _steps(s.rotation_deg, _ANGLE_STEP_DEG)
        turns = _steps(s.rotation_deg, _TURN_STEP_DEG)
        depths = _steps(s.depth_mm, _DEPTH_STEP_MM)
        centre_px = (cols - 1) / 2, (rows - 1) / 2
        found: list[Candidate] = []
        for tilt_x in tilts:
            for tilt_y in tilts:
                for depth in depths:
                    if not go_on():
                        return []
                    T = self._moved(T0, exp_so3(np.deg2rad([tilt_x, tilt_y, 0])), np.array([0, 0, depth]))
                    self._model.line_integrals(T, self._directions, self._integrals)
                    drr = self._integrals[: self._count].reshape(rows, cols)
                    z = (T[:3, :3] @ self._centre_ct + T[:3, 3])[2]
                    reach = s.in_plane_mm / z * self._camera.focal_px
                    for turn in turns:
                        turned, there = _turned(drr, mask, turn, centre_px)
                        best, shift = _best_shift(turned, there, frame_spectrum, mask_spectrum, shape, reach)
                        found.append(Candidate(self._placed(T, turn, shift, z), best))
        found.sort(key=lambda c: -c.correlation)
        return self._apart(found, keep)

    def search(
        self,
        pyramid: dict[int, Float32],
        seen: NDArray[np.bool_],
        keep: int = 16,
        go_on: Callable[[], bool] = lambda: True,
    ) -> Hypothesis | None:
        """The best pose that the search finds, or None when it was abandoned.

        Parameters
        ----------
        pyramid : dict
            Attenuation by the longer side of the image: 256, 128 and 64 pixels.
        seen : ndarray of bool
        keep : int
            How many poses of the grid are refined.
        """
        found: list[Hypothesis] = []
        for candidate in self.candidates(pyramid[GRID_SIDE], seen, keep, go_on):
            if not go_on():
                return None
            found.append(self.refined(candidate.T_camera_ct, pyramid, seen))
        if not found:
            return None
        found.sort(key=lambda h: -h.agreement)
        again = [self.refined(h.estimate.T_camera_ct, pyramid, seen, fine=True) for h in found[:3] if go_on()]
        if not again:
            return None
        best = max(again, key=lambda h: h.agreement)
        return best if best.agreement >= _CLEAR else self.second_opinion(best, pyramid, seen, go_on)

    def second_opinion(
        self,
        best: Hypothesis,
        pyramid: dict[int, Float32],
        seen: NDArray[np.bool_],
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
        for turn_deg, shift_mm in _NEIGHBOURS:
            if not go_on():
                return None
            start = self._moved(best.estimate.T_camera_ct, exp_so3(np.deg2rad(turn_deg)), np.array(shift_mm))
            other = self.refined(start, pyramid, seen)
            if other.agreement > best.agreement - _HOPELESS:
                other = self.refined(other.estimate.T_camera_ct, pyramid, seen, fine=True)
                if other.agreement > best.agreement:
                    best = other
        return best

    def refined(
        self, T_camera_ct: Float, pyramid: dict[int, Float32], seen: NDArray[np.bool_], *, fine: bool = False
    ) -> Hypothesis:
        """One candidate after Gauss-Newton, twice, since patches move with the pose."""
        estimate = None
        for _ in range(2):
            self.coarse.choose(self._bones, T_camera_ct, seen)
            levels = [(self.coarse, pyramid[COARSE_SIDE], 5)]
            if fine:
                self.fine.choose(self._bones, T_camera_ct, seen)
                levels.append((self.fine, pyramid[FINE_SIDE], 3))
            estimate = refine(self._model, levels, T_camera_ct, self._centre_ct)
            T_camera_ct = estimate.T_camera_ct
        assert estimate is not None
        return Hypothesis(estimate, self.agreement(estimate.T_camera_ct, pyramid[COARSE_SIDE], seen))

    def _moved(self, T_camera_ct: Float, R_camera: Float, shift_camera: Float) -> Float:
        """The pose after turning the patient about the centre, in camera axes, and shifting it."""
        T = np.array(T_camera_ct)
        c = T[:3, :3] @ self._centre_ct + T[:3, 3]
        T[:3, :3] = R_camera @ T[:3, :3]
        T[:3, 3] = c + shift_camera - T[:3, :3] @ self._centre_ct
        return T

    def _placed(self, T: Float, turn_deg: float, shift_px: tuple[float, float], z: float) -> Float:
        """The grid's pose turned about the optical axis and shifted in the image."""
        K = self._camera.K
        out = np.array(T)
        centre_px = (self._camera.cols - 1) / 2, (self._camera.rows - 1) / 2
        # The DRR was turned about the image's middle, which the principal point need not be: shift for the difference.
        R = exp_so3([0, 0, np.deg2rad(turn_deg)])
        pp = np.array([K[0, 2] - centre_px[0], K[1, 2] - centre_px[1]])
        rest = R[:2, :2] @ pp - pp
        out[:3, :] = R @ out[:3, :]
        out[0, 3] += (shift_px[0] + rest[0]) * z / K[0, 0]
        out[1, 3] += (shift_px[1] + rest[1]) * z / K[1, 1]
        return out

    def _apart(self, found: list[Candidate], keep: int) -> list[Candidate]:
        kept: list[Candidate] = []
        for c in found:
            if len(kept) == keep:
                break
            at = c.T_camera_ct[:3, :3] @ self._centre_ct + c.T_camera_ct[:3, 3]
            for other in kept:
                o = other.T_camera_ct[:3, :3] @ self._centre_ct + other.T_camera_ct[:3, 3]
                near = np.linalg.norm((at - o)[:2]) < 6 and abs(at[2] - o[2]) < 0.9 * _DEPTH_STEP_MM
                if near and rotation_distance_deg(c.T_camera_ct, other.T_camera_ct) < 0.9 * _ANGLE_STEP_DEG:
                    break
            else:
                kept.append(c)
        return kept


def _steps(half_width: float, step: float) -> Float:
    n = int(np.ceil(half_width / step))
    return np.linspace(-half_width, half_width, 2 * n + 1)


def _turned(drr: Float32, mask: Float32, turn_deg: float, centre: tuple[float, float]) -> tuple[Float32, Float32]:
    """The DRR turned in the plane and normalised where the model has something to show."""
    M = cv2.getRotationMatrix2D(centre, -turn_deg, 1.0)
    turned = np.asarray(cv2.warpAffine(drr, M, drr.shape[::-1], flags=cv2.INTER_LINEAR), dtype=np.float32)
    there = (turned > 0.02 * float(drr.max())).astype(np.float32)
    return locally_normalised(turned, there, _GRID_SIGMA_PX), there


def _best_shift(
    drr: Float32, there: Float32, frame_spectrum, mask_spectrum, shape: tuple[int, int], reach: float
) -> tuple[float, tuple[float, float]]:
    """Highest correlation within ``reach`` pixels, discounted where the shifted model leaves the aperture."""
    spectrum = np.fft.rfft2(drr, shape)
    correlation = np.fft.irfft2(frame_spectrum * np.conj(spectrum), shape)
    shared = np.fft.irfft2(mask_spectrum * np.conj(np.fft.rfft2(there, shape)), shape) / max(float(there.sum()), 1)
    correlation /= np.sqrt(np.clip(shared, 0.25, 1))
    n = int(min(reach, min(shape) / 2 - 1))
    window = np.roll(correlation, (n, n), (0, 1))[: 2 * n + 1, : 2 * n + 1]
    i, j = divmod(int(window.argmax()), 2 * n + 1)
    return float(window[i, j]), (j - n, i - n)
