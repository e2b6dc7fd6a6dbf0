"""Where in the image there is anything to see: inside the aperture and between the collimator's blades."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Lit regions smaller than this are noise, or what shines through beside a blade.
_LEAST_SHARE = 0.01
# So far inside the field (pixels of a 128 image) darkness is a limb's or an implant's, not a blade's.
_RIM_PX = 6


def seen_mask(counts: NDArray[np.float32]) -> NDArray[np.bool_]:
    """What lies inside the aperture and between the blades.

    Parameters
    ----------
    counts : ndarray of float32, shape (rows, cols)
        A small version of the frame, bright = more X-ray.

    Returns
    -------
    ndarray of bool, the same shape
        False in the dark region that is connected to the image's border, and within 2 pixels of it; but not well inside
        the convex hull of what is lit: apertures and blades leave a convex field, so what is dark there is a limb that
        crosses the open beam, or metal.
    """
    dark_level = float(np.percentile(counts, 0.5))
    threshold = dark_level + 0.2 * (float(np.median(counts)) - dark_level)
    _, region = cv2.connectedComponents((counts <= threshold).astype(np.uint8), connectivity=4)
    border = np.unique(np.concatenate([region[0], region[-1], region[:, 0], region[:, -1]]))
    outside = np.isin(region, border[border > 0])
    grown = cv2.dilate(outside.astype(np.uint8), np.ones((5, 5), np.uint8))
    return (grown == 0) | _inside_hull(counts > threshold)


def _inside_hull(lit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Well inside the convex hull of the large lit regions."""
    _, region, stats, _ = cv2.connectedComponentsWithStats(lit.astype(np.uint8), connectivity=4)
    large = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= _LEAST_SHARE * lit.size) + 1
    inside = np.zeros(lit.shape, np.uint8)
    if len(large):
        rows, cols = np.nonzero(np.isin(region, large))
        hull = cv2.convexHull(np.stack([cols, rows], axis=1).astype(np.int32))
        cv2.fillConvexPoly(inside, hull, 1)
    reach = max(round(_RIM_PX * max(lit.shape) / 128), 1)
    ring = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.erode(ring, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))[1:-1, 1:-1] > 0
