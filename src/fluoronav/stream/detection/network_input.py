"""The first network's input and output, in training and in the stream alike."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit

Float32 = NDArray[np.float32]

INPUT_PX = 256  # side of the input
DETAIL_PX = 512  # side of the image whose detail is shown: two by two of its pixels in four channels of the input
CHANNELS = 5  # four of detail, one of the whole attenuation
MAP_PX = 128  # side of the output maps
MAPS = ("k-wire", "drill", "screw", "needle", "tip", "tail")
KINDS = MAPS[:4]


@dataclass(frozen=True)
class InputScaling:
    """How attenuation is scaled; chosen before training, which it is part of."""

    detail_sigma_px: float = 10.0  # of the Gaussian that detail is the difference from; pixels of the input
    detail_range: float = 0.35  # attenuation that is scaled to 1, in the channels of detail
    whole_range: float = 1.5  # the same, in the channel of the whole
    clip: float = 4.0  # of scaled values


SCALING = InputScaling()


class NetworkInput:
    """Writes the input of frames with one field of view.

    Parameters
    ----------
    field_mask : ndarray of bool, any shape
        Field of view.
    """

    def __init__(self, field_mask: NDArray[np.bool_]) -> None:
        self._mask, self._weight, self._whole, self._smooth = np.empty((4, INPUT_PX, INPUT_PX), np.float32)
        self._detail_mask = np.empty((DETAIL_PX, DETAIL_PX), np.float32)
        self._small, self._small_smooth = np.empty((2, INPUT_PX // 2, INPUT_PX // 2), np.float32)
        self.set_field_mask(field_mask)

    def set_field_mask(self, field_mask: NDArray[np.bool_]) -> None:
        """Takes another field of view."""
        mask = field_mask.astype(np.float32)
        cv2.resize(mask, (INPUT_PX, INPUT_PX), dst=self._mask, interpolation=cv2.INTER_NEAREST)
        mask /= np.float32(SCALING.detail_range)
        cv2.resize(mask, (DETAIL_PX, DETAIL_PX), dst=self._detail_mask, interpolation=cv2.INTER_NEAREST)
        self._sum = max(float(self._mask.sum()), 1.0)
        self._smoothen(self._mask, self._weight)
        self._weight += np.float32(1e-3)

    def write(self, attenuation: Float32, fine: Float32, out: Float32) -> None:
        """Writes the channels of the input; see :meth:`take` and :meth:`write_part`."""
        self.take(attenuation)
        self.write_part(fine, 0, 0, out)

    def take(self, attenuation: Float32) -> None:
        """Takes a frame, of which parts are written then.

        Parameters
        ----------
        attenuation : ndarray of float32, shape (256, 256)
        """
        # Outside the field its mean is taken, or the field's edge would be the strongest detail.
        mean = np.float32(np.vdot(attenuation, self._mask) / self._sum)
        whole, smooth = self._whole, self._smooth
        np.subtract(attenuation, mean, out=whole)
        whole *= self._mask
        self._smoothen(whole, smooth)
        smooth /= self._weight
        smooth += mean

    def write_part(self, fine: Float32, row: int, col: int, out: Float32) -> None:
        """Writes the channels of a part of the frame that was taken.

        Parameters
        ----------
        fine : ndarray of float32, shape (512, 512)
            Attenuation of that frame at twice the resolution.
        row, col : int
            The part's upper left corner in the input.
        out : ndarray of float32, shape (5, rows, cols)
            0 outside the field of view.
        """
        rows, cols = out.shape[1:]
        _write_detail(fine, self._smooth, self._detail_mask, np.float32(SCALING.clip), row, col, out)
        whole = self._whole[row : row + rows, col : col + cols]
        np.multiply(whole, np.float32(1 / SCALING.whole_range), out=out[4])
        np.clip(out[4], -SCALING.clip, SCALING.clip, out=out[4])

    def _smoothen(self, image: Float32, out: Float32) -> None:
        """Gaussian filter at half the size: an eighth of the time, and the loss is far below the noise."""
        small, smooth = self._small, self._small_smooth
        cv2.resize(image, small.shape, dst=small, interpolation=cv2.INTER_AREA)
        cv2.GaussianBlur(small, (0, 0), SCALING.detail_sigma_px / 2, dst=smooth)
        cv2.resize(smooth, out.shape, dst=out, interpolation=cv2.INTER_LINEAR)


@njit(fastmath=True, nogil=True, boundscheck=False, cache=True)
def _write_detail(fine, smooth, scale, clip, row, col, out):
    """Difference of the fine image from the smooth one, enlarged bilinearly to twice its size, in four channels."""
    side, (rows, cols) = smooth.shape[0], out.shape[1:]
    near, far = np.float32(0.75), np.float32(0.25)
    blend = np.empty(cols + 2, np.float32)  # of two rows, with a neighbour at each end
    for i in range(rows):
        here = row + i
        for di in range(2):
            k = min(max(here - 1 + 2 * di, 0), side - 1)
            for j in range(cols + 2):
                m = min(max(col + j - 1, 0), side - 1)
                blend[j] = near * smooth[here, m] + far * smooth[k, m]
            fine_row, scale_row = fine[2 * here + di, 2 * col :], scale[2 * here + di, 2 * col :]
            for dj in range(2):
                channel, neighbour = out[2 * di + dj, i], blend[2 * dj :]
                for j in range(cols):
                    detail = fine_row[2 * j + dj] - (near * blend[j + 1] + far * neighbour[j])
                    channel[j] = min(max(scale_row[2 * j + dj] * detail, -clip), clip)
