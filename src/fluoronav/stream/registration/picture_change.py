"""Whether a picture goes on from the one before: a turned or mirrored picture, or another patient's, does not."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.stream import reasons

Float32 = NDArray[np.float32]

# Side of the picture that is compared, and the sigma of what is too broad to tell one picture from another, pixels.
SIDE, _SIGMA_PX = 64, 3.0
# Successive frames of the demo correlate by 0.98 and more, half a second apart by 0.86, turned or mirrored by 0.39 at
# the most.
LEAST_ALIKE = 0.6


class PictureSimilarity:
    """Compares each picture with the one before, inside the field and without what is broad."""

    def __init__(self) -> None:
        self._before: Float32 | None = None
        self._picture = np.zeros(0, np.float32)  # of which that is the detail
        self._field_mask: NDArray[np.bool_] | None = None

    def change(self, attenuation: Float32, field_mask: NDArray[np.bool_]) -> str:
        """Takes a picture; says in words how it does not go on from the one before, and nothing where it does.

        Parameters
        ----------
        attenuation : ndarray of float32, shape (rows, cols)
            With a longer side of `SIDE` pixels.
        field_mask : ndarray of bool
            Inside the field, any size.
        """
        if field_mask is not self._field_mask:  # another field; the same one costs half
            self._field_mask = field_mask
            shape = attenuation.shape[::-1]
            self._mask = np.asarray(cv2.resize(field_mask.astype(np.float32), shape, interpolation=cv2.INTER_NEAREST))
            self._weight = cv2.GaussianBlur(self._mask, (0, 0), _SIGMA_PX) + 1e-3
            if self._picture.shape == attenuation.shape:  # what the field's edge adds is no change of the picture
                self._before = self._detail(self._picture)
        detail = self._detail(attenuation)
        before, self._before = self._before, detail
        if self._picture.shape != attenuation.shape:
            self._picture = np.empty_like(attenuation)
        np.copyto(self._picture, attenuation)
        if before is None or before.shape != detail.shape or float((before * detail).sum()) >= LEAST_ALIKE:
            return ""
        for turned, words in (
            (before[:, ::-1], reasons.TURNED_LEFT_RIGHT),
            (before[::-1], reasons.TURNED_UPSIDE_DOWN),
            (before[::-1, ::-1], reasons.TURNED_HALF),
        ):
            if float((turned * detail).sum()) >= LEAST_ALIKE:
                return words
        return reasons.CHANGED

    def _detail(self, attenuation: Float32) -> Float32:
        """What is not broad in a picture, inside the field, of unit norm."""
        mask = self._mask
        detail = (attenuation - cv2.GaussianBlur(attenuation * mask, (0, 0), _SIGMA_PX) / self._weight) * mask
        detail -= mask * (detail.sum() / max(float(mask.sum()), 1.0))
        return np.asarray(detail / (float(np.linalg.norm(detail)) + 1e-9), np.float32)
