"""What the instrument detector is shown, in training and in the stream alike."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

SIDE = 256  # of the input
FINE = 512  # of the picture whose detail is shown, two by two pixels of it in four channels of the input
CHANNELS = 5  # the detail, and what is dark as a whole
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
        mask = _resized(seen.astype(np.float32), SIDE)
        self._mask, self._sum = mask, max(float(mask.sum()), 1.0)
        self._weight = cv2.GaussianBlur(mask, (0, 0), _DETAIL_SIGMA_PX) + np.float32(1e-3)
        self._of_detail = _resized(seen.astype(np.float32), FINE) / np.float32(_DETAIL_SCALE)
        self._whole, self._detail = np.empty((SIDE, SIDE), np.float32), np.empty((FINE, FINE), np.float32)

    def write(self, attenuation: Float32, fine: Float32, out: Float32) -> None:
        """Writes the channels of the input.

        Parameters
        ----------
        attenuation : ndarray of float32, shape (256, 256)
        fine : ndarray of float32, shape (512, 512)
            The same at twice the resolution.
        out : ndarray of float32, shape (5, 256, 256)
            0 outside the aperture.
        """
        # The mean of what is seen stands in for what is not, or the aperture's rim would be the strongest detail.
        mean = np.float32(np.vdot(attenuation, self._mask) / self._sum)
        whole, detail = self._whole, self._detail
        np.subtract(attenuation, mean, out=whole)
        whole *= self._mask
        smooth = cv2.GaussianBlur(whole, (0, 0), _DETAIL_SIGMA_PX)
        smooth /= self._weight
        smooth += mean
        cv2.resize(smooth, (FINE, FINE), dst=detail, interpolation=cv2.INTER_LINEAR)
        np.subtract(fine, detail, out=detail)
        detail *= self._of_detail
        in_channels(detail, out)
        np.multiply(whole, np.float32(1 / _RANGE_SCALE), out=out[4])
        np.clip(out, -_CLIP, _CLIP, out=out)


def in_channels(detail: Float32, out: Float32) -> None:
    """Detail, (512, 512), into the first four channels of the input, (5, 256, 256)."""
    for k in range(4):
        np.copyto(out[k], detail[k // 2 :: 2, k % 2 :: 2])


def _resized(mask: Float32, side: int) -> Float32:
    return np.asarray(cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST), np.float32)
