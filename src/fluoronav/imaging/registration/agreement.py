"""How well the whole model agrees with the frame: what tells a right pose from one that merely fits its own patches.

The patch score follows the patches that fit, and a spine moved by one vertebra fits many of its patches. Over the whole
field, with local mean and contrast removed, nothing can be left out: on the embedded case none of 224 wrong poses that
Gauss-Newton had settled in came within 0.13 of the right one, while by the patch score some were above it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.imaging.projector import Projector, padded_rays

Float32 = NDArray[np.float32]

_SIGMA_PX = 3.0
_FULL_SHARE = 0.6
# An agreement is never made more than twice what was measured.
_LEAST_ATTAINABLE = 0.25


def locally_normalised(image: Float32, mask: Float32, sigma: float) -> Float32:
    """Local mean removed and local contrast made equal inside a mask; the rest is 0, the whole has unit norm.

    Parameters
    ----------
    image, mask : ndarray of float32, shape (rows, cols)
        The mask is 0 or 1.
    sigma : float
        Pixels over which the mean is taken; contrast over twice that.
    """
    weight = cv2.GaussianBlur(mask, (0, 0), sigma) + 1e-3
    detail = (image - cv2.GaussianBlur(image * mask, (0, 0), sigma) / weight) * mask
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 2 * sigma) / weight)
    detail /= contrast + 0.1 * float(contrast.max()) + 1e-6
    detail -= mask * (detail.sum() / max(float(mask.sum()), 1))
    return detail / (np.linalg.norm(detail) + 1e-9)


def _finest_share(image: Float32) -> float:
    """Share of an image's power that white noise of its finest detail would have: the diagonal Haar coefficient's."""
    rows, cols = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    q = image[:rows, :cols]
    diagonal = 0.5 * (q[::2, ::2] - q[1::2, ::2] - q[::2, 1::2] + q[1::2, 1::2])
    return 4 * float((diagonal**2).sum()) / (float((image**2).sum()) + 1e-12)


class Agreement:
    """Compares poses with a frame over the whole field.

    Parameters
    ----------
    model : Projector
    camera : Camera
        At full resolution.
    side : int
        Longer side of the image at which to compare, pixels.
    T_prior : ndarray, shape (4, 4)
        Says how large the model looks when it is in the middle of the image: a pose that leaves most of it outside
        agrees by chance more easily, and what it agrees counts for less.
    """

    def __init__(self, model: Projector, camera: Camera, side: int, T_prior: NDArray[np.float64]) -> None:
        self._model = model
        self._camera = camera.scaled(side / max(camera.rows, camera.cols))
        self._directions, self._count = padded_rays(self._camera.rays(self._camera.pixel_grid()))
        centre = T_prior[:3, :3] @ model.grid.centre_ct + T_prior[:3, 3]
        frontal = np.array(T_prior)
        frontal[:3, 3] += np.array([0, 0, np.linalg.norm(centre)]) - centre
        # Most of the model must be in view for the agreement to count in full.
        self._asked_px = _FULL_SHARE * min(float(self._shown(frontal)[1].sum()), 0.75 * self._count)

    def __call__(self, T_camera_ct: NDArray[np.float64], image: Float32, field_mask: NDArray[np.bool_]) -> float:
        """Correlation of the frame with the model's DRR where both show something, -1 to 1.

        Less where little of the model is in view: the root of the share that is. Noise lowers any correlation, of right
        poses and wrong ones alike; what it takes is estimated from the frame's finest detail and given back.

        Parameters
        ----------
        T_camera_ct : ndarray, shape (4, 4)
        image : ndarray of float32
            Attenuation at this object's resolution.
        seen : ndarray of bool
            Inside the aperture, any size.
        """
        drr, mask = self._shown(T_camera_ct)
        mask *= cv2.resize(field_mask.astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
        in_view = float(mask.sum())
        if in_view < 0.02 * mask.size:
            return 0.0
        a, b = locally_normalised(image, mask, _SIGMA_PX), locally_normalised(drr, mask, _SIGMA_PX)
        attainable = np.sqrt(np.clip(1 - _finest_share(a) + _finest_share(b), _LEAST_ATTAINABLE, 1))
        return float((a * b).sum() / attainable) * min(1.0, np.sqrt(in_view / self._asked_px))

    def _shown(self, T_camera_ct: NDArray[np.float64]) -> tuple[Float32, Float32]:
        """The DRR, and 1 where the model holds back enough to be compared."""
        integrals = np.empty(self._directions.shape[1], np.float32)
        self._model.line_integrals(T_camera_ct, self._directions, integrals)
        drr = integrals[: self._count].reshape(self._camera.rows, self._camera.cols)
        shown = ((drr > 0) & (drr > 0.3 * float(drr.max()))).astype(np.float32)
        return drr, np.asarray(cv2.erode(shown, np.ones((5, 5), np.uint8)), dtype=np.float32)
