"""How far an external tracker has drifted from what the pictures show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.frame import Drift

Float = NDArray[np.float64]

# The offset wanders by so much from frame to frame (mm, 1 sigma): a stand that warms up, a marker that was touched.
_WANDERS_MM = 0.06
_FIRST_MM = 3.0  # what it may be before anything is known
# Said from here on, and corrected up to there; beyond, or when it does not hold still, the tracker is not believed.
NOTICED_MM, CORRECTED_MM = 1.0, 4.0
# Residuals that the filter did not expect (mean squared, in sigmas squared a dimension), over about so many frames.
_UNSTEADY, _MEMORY = 6.0, 15.0
_FRAMES_TO_SAY = 8


class DriftFilter:
    """A Kalman filter of the offset between tracker and patient, in CT axes.

    One view shows two of its three components; the third is known when the C-arm has turned, and is left alone before.
    """

    def __init__(self) -> None:
        self._offset = np.zeros(3)
        self._covariance = np.eye(3) * _FIRST_MM**2
        self._surprise = 1.0
        self._frames = 0

    def predict(self) -> None:
        """A frame has passed."""
        self._covariance += np.eye(3) * _WANDERS_MM**2

    def update(self, R_camera_ct: Float, off_mm: Float, covariance_mm2: Float) -> None:
        """Takes what a picture shows.

        Parameters
        ----------
        R_camera_ct : ndarray, shape (3, 3)
        off_mm : ndarray, shape (2,)
            Tip in the picture minus tip by the tracker, at the tip's depth, along the camera's x and y.
        covariance_mm2 : ndarray, shape (2, 2)
            Of its error.
        """
        H = R_camera_ct[:2]
        innovation = off_mm - H @ self._offset
        S = H @ self._covariance @ H.T + covariance_mm2
        gain = self._covariance @ H.T @ np.linalg.inv(S)
        distance = float(innovation @ np.linalg.solve(S, innovation)) / 2
        self._frames += 1
        if self._frames > _FRAMES_TO_SAY:
            self._surprise += (distance - self._surprise) / _MEMORY
        self._offset = self._offset + gain @ innovation
        self._covariance = (np.eye(3) - gain @ H) @ self._covariance

    @property
    def offset_ct(self) -> Float:
        """What to add to the tracker's positions, mm, CT axes; 0 while too little is known or it is not believed."""
        drift = self.drift
        return self._offset if drift is not None and drift.corrected else np.zeros(3)

    @property
    def sigma_mm(self) -> float:
        """Of the best known direction's offset, 1 sigma."""
        return float(np.sqrt(np.linalg.eigvalsh(self._covariance)[0]))

    @property
    def drift(self) -> Drift | None:
        """What can be said; None before enough frames were seen."""
        if self._frames < _FRAMES_TO_SAY:
            return None
        size = float(np.linalg.norm(self._offset))
        steady = self._surprise < _UNSTEADY
        return Drift(size, steady, steady and size <= CORRECTED_MM)
