"""Where in the image there is anything to see: inside the aperture and between the collimator's blades."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Lit regions smaller than this are noise, or what shines through beside a blade.
_LEAST_SHARE = 0.01


def seen_mask(counts: NDArray[np.float32]) -> NDArray[np.bool_]:
    """What lies inside the aperture and between the blades.

    Parameters
    ----------
    counts : ndarray of float32, shape (rows, cols)
        A small version of the frame, bright = more X-ray.

    Returns
    -------
    ndarray of bool, the same shape
        False outside the convex hull of what is lit, and within 3 pixels of that. Apertures and blades leave a convex
        field; what is dark inside of it, or juts into it from the rim, is a limb or an implant.
    """
    dark_level = float(np.percentile(counts, 0.5))
    threshold = dark_level + 0.2 * (float(np.median(counts)) - dark_level)
    _, region, stats, _ = cv2.connectedComponentsWithStats((counts > threshold).astype(np.uint8), connectivity=4)
    large = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= _LEAST_SHARE * counts.size) + 1
    if not len(large):
        return np.ones(counts.shape, np.bool_)
    rows, cols = np.nonzero(np.isin(region, large))
    hull = cv2.convexHull(np.stack([cols, rows], axis=1).astype(np.int32))
    inside = np.zeros(counts.shape, np.uint8)
    cv2.fillConvexPoly(inside, hull, 1)
    grown = cv2.dilate(1 - inside, np.ones((7, 7), np.uint8))
    return grown == 0
