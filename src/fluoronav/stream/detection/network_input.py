"""What the instrument detector is shown, in training and in the stream alike."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
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

    def __init__(self, field_mask: NDArray[np.bool_]) -> None:
        self._mask, self._weight, self._whole, self._smooth = np.empty((4, SIDE, SIDE), np.float32)
        self._of_detail = np.empty((FINE, FINE), np.float32)
        self._small, self._small_smooth = np.empty((2, SIDE // 2, SIDE // 2), np.float32)
        self.see(field_mask)

    def see(self, field_mask: NDArray[np.bool_]) -> None:
        """The aperture is another from now on."""
        mask = field_mask.astype(np.float32)
        cv2.resize(mask, (SIDE, SIDE), dst=self._mask, interpolation=cv2.INTER_NEAREST)
        mask /= np.float32(_DETAIL_SCALE)
        cv2.resize(mask, (FINE, FINE), dst=self._of_detail, interpolation=cv2.INTER_NEAREST)
        self._sum = max(float(self._mask.sum()), 1.0)
        self._smoothen(self._mask, self._weight)
        self._weight += np.float32(1e-3)

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
        whole, smooth = self._whole, self._smooth
        np.subtract(attenuation, mean, out=whole)
        whole *= self._mask
        self._smoothen(whole, smooth)
        smooth /= self._weight
        smooth += mean
        _write_detail(fine, smooth, self._of_detail, np.float32(_CLIP), out)
        np.multiply(whole, np.float32(1 / _RANGE_SCALE), out=out[4])
        np.clip(out[4], -_CLIP, _CLIP, out=out[4])

    def _smoothen(self, picture: Float32, out: Float32) -> None:
        """With a Gaussian, at half the size: what is lost is far below the noise, for an eighth of the time."""
        small, smooth = self._small, self._small_smooth
        cv2.resize(picture, small.shape, dst=small, interpolation=cv2.INTER_AREA)
        cv2.GaussianBlur(small, (0, 0), _DETAIL_SIGMA_PX / 2, dst=smooth)
        cv2.resize(smooth, out.shape, dst=out, interpolation=cv2.INTER_LINEAR)


@njit(fastmath=True, nogil=True, boundscheck=False, cache=True)
def _write_detail(fine, smooth, scale, clip, out):
    """What the fine picture has more than the smooth one (bilinearly at twice its size), in four channels."""
    side = smooth.shape[0]
    near, far = np.float32(0.75), np.float32(0.25)
    blend = np.empty(side + 2, np.float32)  # of two rows, with a neighbour at each end
    for i in range(side):
        for di in range(2):
            k = min(max(i - 1 + 2 * di, 0), side - 1)
            for j in range(side):
                blend[j + 1] = near * smooth[i, j] + far * smooth[k, j]
            blend[0], blend[side + 1] = blend[1], blend[side]
            picture, share = fine[2 * i + di], scale[2 * i + di]
            for dj in range(2):
                channel, beside = out[2 * di + dj, i], blend[2 * dj :]
                for j in range(side):
                    detail = picture[2 * j + dj] - (near * blend[j + 1] + far * beside[j])
                    channel[j] = min(max(share[2 * j + dj] * detail, -clip), clip)
