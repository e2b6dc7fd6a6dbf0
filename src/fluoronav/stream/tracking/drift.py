"""Drift of an external tracker against what the images show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.frame import Drift

Float = NDArray[np.float64]


@dataclass(frozen=True)
class DriftLimits:
    """Model and limits of the drift filter; all chosen, on simulated drifts of 2 mm (`bench instruments`)."""

    walk_mm: float = 0.06  # random walk from frame to frame, 1 sigma: a stand that warms up, a marker that was touched
    first_mm: float = 3.0  # offset before anything is known, 1 sigma
    max_corrected_mm: float = 4.0  # beyond it the tracker is not believed
    # Mean squared innovation for each dimension, in expected variances, above which the offset is not steady; and the
    # number of frames over which the mean is taken.
    max_innovation: float = 6.0
    innovation_frames: float = 15.0
    min_frames: int = 8  # before a drift is reported


LIMITS = DriftLimits()


class DriftFilter:
    """A Kalman filter of the offset between tracker and patient, in CT axes.

    One view shows two of its three components. The third, along the ray, is known only roughly until the C-arm has
    turned far: small turns make it up from what the registration gets wrong in each. Drift is what the last view shows.
    """

    def __init__(self) -> None:
        self._offset = np.zeros(3)
        self._covariance = np.eye(3) * LIMITS.first_mm**2
        self._across = np.zeros((2, 3))  # x and y of the last camera, in CT axes
        self._innovation = 1.0
        self._frames = 0

    def predict(self) -> None:
        """Advances the random walk by a frame."""
        self._covariance += np.eye(3) * LIMITS.walk_mm**2

    def update(self, R_camera_ct: Float, offset_mm: Float, covariance_mm2: Float) -> None:
        """Takes what an image shows.

        Parameters
        ----------
        R_camera_ct : ndarray, shape (3, 3)
        offset_mm : ndarray, shape (2,)
            Tip in the image minus tip by the tracker, at the tip's depth, along the camera's x and y: that part which
            the image's own errors do not explain (:func:`unexplained`).
        covariance_mm2 : ndarray, shape (2, 2)
            Of its error.
        """
        H = self._across = R_camera_ct[:2]
        innovation = offset_mm - H @ self._offset
        S = H @ self._covariance @ H.T + covariance_mm2
        gain = self._covariance @ H.T @ np.linalg.inv(S)
        squared = float(innovation @ np.linalg.solve(S, innovation)) / 2
        self._frames += 1
        if self._frames > LIMITS.min_frames:
            self._innovation += (squared - self._innovation) / LIMITS.innovation_frames
        self._offset = self._offset + gain @ innovation
        self._covariance = (np.eye(3) - gain @ H) @ self._covariance

    @property
    def offset_ct(self) -> Float:
        """Correction of the tracker's positions, mm, CT axes; 0 while it is unknown or not believed."""
        drift = self.drift
        if drift is None or not drift.corrected:
            return np.zeros(3)
        return self._across.T @ (self._across @ self._offset)

    @property
    def sigma_mm(self) -> float:
        """Error of the offset in the best known direction, 1 sigma."""
        return float(np.sqrt(np.linalg.eigvalsh(self._covariance)[0]))

    @property
    def drift(self) -> Drift | None:
        """The drift; None before enough frames."""
        if self._frames < LIMITS.min_frames:
            return None
        size = float(np.linalg.norm(self._across @ self._offset))
        steady = self._innovation < LIMITS.max_innovation
        return Drift(size, steady, steady and size <= LIMITS.max_corrected_mm)


def unexplained(offset_mm: Float, explained_mm: Float) -> Float:
    """The part of each offset that errors do not explain: none of a small one, nearly all of a large one.

    The non-negative garrote of L. Breiman, Technometrics 37:373, 1995.

    Parameters
    ----------
    offset_mm, explained_mm : ndarray, shape (n,)
        The latter is the largest offset that errors explain.
    """
    return offset_mm * np.maximum(1 - (explained_mm / np.maximum(np.abs(offset_mm), 1e-9)) ** 2, 0)
