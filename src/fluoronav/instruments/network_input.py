"""What the instrument detector is shown, in training and in the stream alike."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

SIDE = 256  # of the input
GRID = 128  # of the maps that come out
MAPS = ("k-wire", "drill", "screw", "needle", "tip", "tail")
KINDS = MAPS[:4]
_DETAIL_SIGMA_PX, _DETAIL_SCALE, _RANGE_SCALE, _CLIP = 10.0, 0.35, 1.5, 4.0


class Field:
    """What of the input is seen, and what is the same for every frame that is seen through the same aperture.

    Parameters
    ----------
    seen : ndarray of bool, any size
        Inside the aperture.
    """

    def __init__(self, seen: NDArray[np.bool_]) -> None:
        mask = cv2.resize(seen.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        self._mask, self._sum = mask, max(float(mask.sum()), 1.0)
        self._weight = cv2.GaussianBlur(mask, (0, 0), _DETAIL_SIGMA_PX) + np.float32(1e-3)
        self._of_detail = mask / np.float32(_DETAIL_SCALE)

    def write(self, attenuation: Float32, out: Float32) -> None:
        """Writes the two channels of the input: detail, and what is dark as a whole.

        Parameters
        ----------
        attenuation : ndarray of float32, shape (256, 256)
        out : ndarray of float32, shape (2, 256, 256)
            0 outside the aperture.
        """
        # The mean of what is seen stands in for what is not, or the aperture's rim would be the strongest detail.
        mean = float(np.vdot(attenuation, self._mask)) / self._sum
        whole = (attenuation - np.float32(mean)) * self._mask
        detail = whole - cv2.GaussianBlur(whole, (0, 0), _DETAIL_SIGMA_PX) / self._weight
        np.multiply(detail, self._of_detail, out=out[0])
        np.multiply(whole, np.float32(1 / _RANGE_SCALE), out=out[1])
        np.clip(out, -_CLIP, _CLIP, out=out)
