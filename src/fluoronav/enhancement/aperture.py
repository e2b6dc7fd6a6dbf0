"""Where in the image there is anything to see: inside the aperture and between the collimator's blades."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def seen_mask(counts: NDArray[np.float32]) -> NDArray[np.bool_]:
    """What lies inside the aperture and between the blades.

    Parameters
    ----------
    counts : ndarray of float32, shape (rows, cols)
        A small version of the frame, bright = more X-ray.

    Returns
    -------
    ndarray of bool, the same shape
        False in the dark region that is connected to the image's border, and within 2 pixels of it.
    """
    dark_level = float(np.percentile(counts, 0.5))
    threshold = dark_level + 0.2 * (float(np.median(counts)) - dark_level)
    _, region = cv2.connectedComponents((counts <= threshold).astype(np.uint8), connectivity=4)
    border = np.unique(np.concatenate([region[0], region[-1], region[:, 0], region[:, -1]]))
    outside = np.isin(region, border[border > 0])
    grown = cv2.dilate(outside.astype(np.uint8), np.ones((5, 5), np.uint8))
    return grown == 0
