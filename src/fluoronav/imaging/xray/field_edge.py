"""The edges of the field of view to a pixel: fitted again to where the signal halves across them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.field_of_view import FieldOfView
from fluoronav.imaging.xray.field_shapes import EDGE_SIDE, Edge

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EdgeFit:
    """Settings of the refinement. All are chosen; pixels are of an image of 512 pixels, and scale with it."""

    # Profiles across an edge, from outside (negative) to inside.
    reach_px: float = 16.0
    step_px: float = 0.5
    inside_px: tuple[float, float] = (5.0, 12.0)  # where the signal inside is measured
    outside_px: tuple[float, float] = (-16.0, -6.0)  # and outside: beyond a blade's penumbra
    least_inside: float = 0.15  # minimum signal inside, of the field's median
    most_outside: float = 0.5  # maximum signal outside, of the signal inside
    # Robust fit: inliers, fit, repeat.
    least_points: int = 20
    corner_px: float = 4.0  # minimum distance of a profile from another edge
    iterations: int = 4
    outlier_sigmas: float = 2.5
    least_sigma_px: float = 0.3
    most_moved_px: float = 8.0  # from the coarse edge: a fit that moves farther is rejected
    # Distance of the mask from an edge. A coarse edge is estimated too far outside.
    margin_px: float = 2.0
    margin_coarse_px: float = 5.0


FIT = EdgeFit()


def find_full_field_mask(field: FieldOfView, counts: Float32) -> NDArray[np.bool_]:
    """The field of view up to its edges.

    Parameters
    ----------
    field : FieldOfView
        Found in a smaller version.
    counts : ndarray of float32, shape (rows, cols)
        The frame at `EDGE_SIDE` pixels, bright = more X-ray.

    Returns
    -------
    ndarray of bool, shape (rows, cols)
        True where the whole beam arrives, to 4 pixels (of 1024) of where half of it does.
    """
    rows, cols = counts.shape
    factor = max(counts.shape) / max(field.field_mask.shape)
    scale = max(counts.shape) / EDGE_SIDE
    mask = cv2.resize(field.unexplained.astype(np.uint8), (cols, rows), interpolation=cv2.INTER_NEAREST) == 0
    edges = [edge.enlarged(factor) for edge in field.edges]
    dark = float(np.percentile(counts[::4, ::4], 0.5))
    y, x = np.arange(rows, dtype=np.float32)[:, None], np.arange(cols, dtype=np.float32)[None]
    for k, edge in enumerate(edges):
        refined = _refined(edge, edges[:k] + edges[k + 1 :], counts, dark, field.median_signal)
        if refined is None:
            mask &= edge.mask(x, y, scale * FIT.margin_coarse_px)
        else:
            mask &= refined.mask(x, y, scale * FIT.margin_px)
    return mask


def _refined(edge: Edge, others: list[Edge], counts: Float32, dark: float, median_signal: float) -> Edge | None:
    """The edge fitted to where the signal is half of that inside; None where too few profiles show it."""
    scale = max(counts.shape) / EDGE_SIDE
    at, inwards = edge.samples(counts.shape)
    clear = (at > 2).all(1) & (at < np.array(counts.shape[::-1]) - 3).all(1)
    for other in others:
        clear &= other.signed_distance(at[:, 0], at[:, 1]) > FIT.corner_px * scale
    at, inwards = at[clear], inwards[clear]
    if len(at) < FIT.least_points:
        return None
    crossing, found = _crossings(at, inwards * scale, counts, dark, median_signal)
    if found.sum() < FIT.least_points:
        return None
    points, crossing = at[found] + (crossing[:, None] * scale * inwards)[found], crossing[found]
    refined = edge.moved_inwards(float(np.median(crossing)) * scale)
    for _ in range(FIT.iterations):  # outliers are the borders of limbs and instruments
        residual = np.abs(refined.signed_distance(points[:, 0], points[:, 1]))
        sigma_px = max(1.48 * float(np.median(residual)), FIT.least_sigma_px * scale)
        inliers = residual < FIT.outlier_sigmas * sigma_px
        if inliers.sum() < FIT.least_points:
            return None
        refined = refined.refitted(points[inliers])
    moved_px = float(np.abs(refined.signed_distance(at[:, 0], at[:, 1])).max())
    return refined if moved_px < FIT.most_moved_px * scale else None


def _crossings(
    at: Float, inwards: Float, counts: Float32, dark: float, median_signal: float
) -> tuple[Float, NDArray[np.bool_]]:
    """How far inwards of each point the signal halves, shape (n,), and whether it does, seen from inside."""
    k = np.arange(-FIT.reach_px, FIT.reach_px + FIT.step_px, FIT.step_px)
    u = (at[:, None] + k[None, :, None] * inwards[:, None]).astype(np.float32)
    profile = cv2.remap(counts, u[..., 0], u[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    profile = cv2.blur(profile - np.float32(dark), (3, 5))
    inside, outside = (
        np.median(profile[:, (k > a) & (k < b)], axis=1) for a, b in (FIT.inside_px, FIT.outside_px)
    )  # fmt: skip
    half = (inside + outside) / 2
    # The first sample below half on the way out, from where the whole beam arrives.
    begin = int(np.searchsorted(k, FIT.inside_px[0] + 1))
    dim = profile[:, begin::-1] <= half[:, None]
    last = begin - dim.argmax(1)
    n = np.arange(len(last))
    low, high = profile[n, last], profile[n, last + 1]
    fraction = np.clip((half - low) / np.maximum(high - low, 1e-6), 0, 1)
    found = (
        dim.any(1) & ~dim[:, 0] & (inside > FIT.least_inside * median_signal) & (outside < FIT.most_outside * inside)
    )
    return k[last] + FIT.step_px * fraction, found
