"""The field of view of a C-arm image: a disc cut off by straight collimator blades.

Blades along the image's sides are found first (`straight_blades.py`). Other edges are found where the logarithm of the
signal drops on the way out, and circles and lines are fitted to them. A limb, the spine or an instrument at the edge is
as dark as a blade, but it is neither round nor straight along the edge.
`field_edge.py` then refines the edges to a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.anatomy_mask import wider_than_metal
from fluoronav.imaging.xray.edge_search import LEAKING, SEARCH, find_edges
from fluoronav.imaging.xray.field_shapes import FIELD_SIDE, Circle, Edge, Line
from fluoronav.imaging.xray.straight_blades import find_straight_blades

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FieldLimits:
    """Limits of a field of view. All are chosen; those in pixels are of an image of 128 pixels, and scale with it."""

    penumbra_px: float = 1.6  # by which `field_mask` is smaller than the field
    lit_fraction: float = 0.5  # minimum signal of a lit pixel, of the median
    least_lit_area: float = 0.01  # of a lit region, of the image
    least_outside: float = 0.02  # outside the field, of the image: enough to measure the dark level
    # The dark level is well below what arrives behind the patient; what is brighter outside the field is scatter, or
    # blades that leak.
    darkest_percent: float = 1.0  # of the field's pixels: the darkest of the patient
    most_dark: float = 0.5  # maximum dark level, of the darkest
    as_dark: float = 0.05  # maximum difference from the darkest, of it, of lead in the field, which is as dark
    # Dark regions at the image's border that no edge explains. Inside the convex hull of the lit region they are limbs
    # or implants.
    dark_fraction: float = 0.04  # maximum signal, of the median
    least_dark_area: float = 0.015  # of the image; the darkest 0.5 % pass for the dark level
    hull_px: float = 6.0  # from the border of the convex hull inwards
    # A field that covers less than half of the image: the median is then of what lies outside. Exposure control keeps
    # anatomy above `dim_fraction` of the open beam.
    dim_fraction: float = 0.1  # maximum median, of the brightest signal
    bright_fractions: tuple[float, ...] = (0.06, 0.12, 0.24)  # thresholds tried, of the brightest signal
    least_bright: float = 0.06  # minimum median in the field, of the brightest signal
    brighter: float = 1.5  # minimum ratio to the median of the field found before: the rest of that field is no field
    bright_enough: float = 0.12  # median in the field that ends the search, of the brightest signal
    least_bounded: float = 0.6  # of the field's border, not the image's own: a leg beside air has one straight edge
    # Blades that leak: a field that nothing else bounds is searched for with lower drops, and taken only where two
    # pairs of blades close it.
    leaking_fraction: float = 0.24  # threshold of lit pixels, of the brightest signal
    square_cos: float = 0.1  # maximum cosine between the normals of two pairs
    most_left_out: float = 0.4  # of the pixels above half of that threshold: right fields 0.25, wrong ones 0.6
    # Blades close in pairs. Without the unpaired ones the field may be larger by `most_unpaired` at most.
    opposite_cos: float = -0.99  # maximum cosine between the normals of a pair
    off_middle: float = 0.12  # maximum distance of the pair's middle from the image's, of the longer side
    most_unpaired: float = 1.15


FIELD = FieldLimits()


@dataclass(frozen=True)
class FieldOfView:
    """The field of view of a frame, found in a small version of it.

    Attributes
    ----------
    edges : tuple of Circle or Line
        In pixels (column, row) of that version.
    field_mask : ndarray of bool, its shape
        Inside all edges, away from their penumbra, and not `unexplained`.
    unexplained : ndarray of bool, the same shape
        Without signal at the image's border, and not explained by an edge.
    median_signal : float
        Median of the counts above the dark level, in the field or in the whole image.
    """

    edges: tuple[Edge, ...]
    field_mask: Mask
    unexplained: Mask
    median_signal: float


def find_field_of_view(counts: Float32) -> FieldOfView:
    """Finds the field of view.

    Parameters
    ----------
    counts : ndarray of float32, shape (rows, cols)
        A small version of the frame (`FIELD_SIDE` pixels), bright = more X-ray.
    """
    dark = float(np.percentile(counts, 0.5))
    signal = np.maximum(cv2.blur(counts, (3, 3)) - np.float32(dark), 0)
    noise = SEARCH.floor_fraction * float(np.percentile(signal, 90)) + 1e-3
    blades = find_straight_blades(np.maximum(counts - np.float32(dark), 0), noise)
    between = _between(blades, counts.shape)
    median, bright = float(np.median(counts[between])) - dark, float(np.percentile(signal[between], 90))
    lit = _large_regions((signal > FIELD.lit_fraction * median) & between)
    dark_below = FIELD.dark_fraction * median
    brightest = float(np.percentile(signal, 99))
    small = _small_field(signal, brightest) if median < FIELD.dim_fraction * brightest else None
    if small is None:
        edges, distance = find_edges(signal, median, bright, lit, known=blades)
    else:
        edges, distance, lit, median = small
    leaking = None if _is_bounded(distance > 0) else _leaking_field(signal, brightest)
    if leaking is not None:
        edges, distance, lit, median = leaking
    inside = distance > FIELD.penumbra_px * max(counts.shape) / FIELD_SIDE
    is_dark = (signal <= dark_below) & (distance > 0)
    _, region = cv2.connectedComponents((is_dark | (distance <= 0)).astype(np.uint8), connectivity=4)
    border = np.unique(np.concatenate([region[0], region[-1], region[:, 0], region[:, -1]]))
    unexplained = is_dark & np.isin(region, border[border > 0])
    unexplained = _opened(unexplained)
    unexplained &= (unexplained.mean() >= FIELD.least_dark_area) & ~_deep_in_hull(lit)
    return FieldOfView(tuple(edges), inside & ~unexplained, unexplained, median)


def _between(blades: list[Line], shape: tuple[int, ...]) -> Mask:
    y, x = np.mgrid[: shape[0], : shape[1]]
    between = np.ones(shape, bool)
    for blade in blades:
        between &= blade.signed_distance(x, y) > 0
    return between


def _opened(dark: Mask) -> Mask:
    """Without narrow parts, which are instruments that reach the edge; a strip along the border goes on beyond it."""
    reach = 4
    padded = cv2.copyMakeBorder(dark.astype(np.uint8), reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    size = 2 * reach + 1
    return cv2.morphologyEx(padded, cv2.MORPH_OPEN, np.ones((size, size), np.uint8))[reach:-reach, reach:-reach] > 0


def dark_level(counts: Float32, field_mask: Mask) -> float:
    """The detector's counts without X-rays; 0 where too little lies outside the field to measure them.

    It is measured outside the field. Where the patient's scatter arrives there, or blades leak, it is brighter than the
    detector in the dark: the level is bounded by what arrives behind the patient.

    Parameters
    ----------
    counts : ndarray of float32, shape (rows, cols)
        As for :func:`find_field_of_view`.
    field_mask : ndarray of bool, the same shape
    """
    outside = counts[~field_mask]
    if outside.size <= FIELD.least_outside * counts.size:
        return 0.0
    level = float(np.percentile(outside, 10))
    if not field_mask.any():
        return level
    patient = cv2.morphologyEx(counts, cv2.MORPH_CLOSE, wider_than_metal(counts.shape))
    darkest = float(np.percentile(patient[field_mask], FIELD.darkest_percent))
    is_lead = abs(level - darkest) < FIELD.as_dark * darkest
    return level if is_lead else min(level, FIELD.most_dark * darkest)


def _small_field(signal: Float32, brightest: float) -> tuple[list[Edge], Float, Mask, float] | None:
    """Edges, signed distance, lit region and median signal of a field of less than half the image; None without one.

    The threshold above which pixels count as lit rises until the field is bright enough: the more the blades leak, the
    brighter the field must be.
    """
    best, best_median = None, FIELD.least_bright * brightest
    for fraction in FIELD.bright_fractions:
        above = signal[signal > fraction * brightest]
        median = float(np.median(above))
        lit = _large_regions(signal > FIELD.lit_fraction * median)
        edges, distance = find_edges(signal, median, float(np.percentile(above, 90)), lit)
        inside = distance > 0
        if not inside.any():
            continue
        inside_median = float(np.median(signal[inside]))
        least = (1.0 if best is None else FIELD.brighter) * best_median
        if _is_bounded(inside) and _is_paired(edges, inside) and inside_median > least:
            best, best_median = (edges, distance, lit, median), inside_median
        if best_median > FIELD.bright_enough * brightest:
            break
    return best


def _leaking_field(signal: Float32, brightest: float) -> tuple[list[Edge], Float, Mask, float] | None:
    """As :func:`_small_field`, of blades that leak; None unless two pairs of them close the field on all sides."""
    above = signal[signal > FIELD.leaking_fraction * brightest]
    if not above.size:
        return None
    median = float(np.median(above))
    lit = _large_regions(signal > FIELD.lit_fraction * median)
    edges, distance = find_edges(signal, median, float(np.percentile(above, 90)), lit, LEAKING)
    inside = distance > 0
    lines = [edge for edge in edges if isinstance(edge, Line)]
    paired = [a for a in lines if any(float(a.normal @ b.normal) < FIELD.opposite_cos for b in lines)]
    across = any(abs(float(a.normal @ b.normal)) < FIELD.square_cos for a in paired for b in paired)
    bright = signal > FIELD.leaking_fraction / 2 * brightest
    left_out = (bright & ~inside).sum() > FIELD.most_left_out * bright.sum()
    if len(paired) < 4 or not across or not _is_bounded(inside) or left_out:
        return None
    return edges, distance, lit, float(np.median(signal[inside]))


def _is_paired(edges: list[Edge], field: Mask) -> bool:
    """Whether the circle and pairs of opposite blades narrow the field nearly as much as all edges do."""
    rows, cols = field.shape
    y, x = np.mgrid[:rows, :cols]
    middle = np.array([cols - 1, rows - 1]) / 2
    lines = [edge for edge in edges if isinstance(edge, Line)]

    def opposite(a: Line, b: Line) -> bool:
        off = (a.offset_px - b.offset_px) / 2 - float(a.normal @ middle)
        return float(a.normal @ b.normal) < FIELD.opposite_cos and abs(off) < FIELD.off_middle * max(rows, cols)

    paired = np.ones(field.shape, bool)
    for edge in edges:
        if isinstance(edge, Circle) or any(opposite(edge, other) for other in lines):
            paired &= edge.signed_distance(x, y) > 0
    return bool(paired.sum() < FIELD.most_unpaired * field.sum())


def _is_bounded(field: Mask) -> bool:
    """Whether most of a field's border is not the image's own."""
    border = field & (cv2.erode(field.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) == 0)
    of_image = np.ones(field.shape, bool)
    of_image[1:-1, 1:-1] = False
    return bool((border & ~of_image).sum() > FIELD.least_bounded * border.sum())


def _large_regions(lit: Mask) -> Mask:
    """The connected regions that are large enough."""
    _, region, stats, _ = cv2.connectedComponentsWithStats(lit.astype(np.uint8), connectivity=4)
    return np.isin(region, np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= FIELD.least_lit_area * lit.size) + 1)


def _deep_in_hull(lit: Mask) -> Mask:
    """The convex hull of the lit region, eroded."""
    inside = np.zeros(lit.shape, np.uint8)
    if lit.any():
        outlines, _ = cv2.findContours(lit.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        hull = cv2.convexHull(np.concatenate(outlines))
        cv2.fillConvexPoly(inside, hull, 1)
    reach = max(round(FIELD.hull_px * max(lit.shape) / FIELD_SIDE), 1)
    padded = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return cv2.erode(padded, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))[1:-1, 1:-1] > 0
