"""Search for the edges of a field of view: edge points along rays, and the line or circle with the most inliers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.field_shapes import FIELD_SIDE, Circle, Edge, Line, normal_and_mean

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Limits of the search. All are chosen; those in pixels are of an image of 128 pixels, and scale with it."""

    # Rays from the middle of the lit region.
    rays: int = 360  # one a degree
    steps: int = 112  # samples along a ray; it is as long as the image's diagonal
    drop: float = 1.4  # minimum drop of the log signal at an edge: to a quarter
    drop_steps: int = 2  # half of the length over which it drops, samples
    behind_fraction: float = 0.6  # maximum signal behind an edge, of the median: scatter arrives behind a blade
    floor_fraction: float = 0.01  # of the bright signal: below lies the noise of the dark level
    # Edges.
    least_inliers: int = 14  # edge points (one a ray) that support an edge
    inlier_px: float = 0.9  # distance of an inlier from its edge
    most_edges: int = 9  # a circle and eight blades
    most_lines_rejected: int = 16  # straight borders of limbs and instruments before the search for a blade ends
    lit_inside: float = 0.985  # minimum fraction of lit pixels on the inner side of an edge
    # Circle.
    trials: int = 160  # triples of points (RANSAC)
    widest_flat: float = 20.0  # inlier distances: the root of twice the area of the smallest triangle that is used
    largest_radius: float = 0.8  # of the image's longer side; a diaphragm's dome can look larger
    # Blade: the signal drops all along its edge. An instrument's straight border drops only along a part of the field.
    along_fraction: float = 0.9  # minimum fraction of the edge with a drop
    along_drop: float = 0.7  # of the log signal: to half
    across_px: float = 3.0  # from the edge to where the signal is compared, on either side
    known_px: float = 2.0  # distance of edge points from the blade that they belong to, where it is known
    same_side_cos: float = 0.7  # minimum cosine between the normals of two blades at one side
    signal_fraction: float = 0.1  # minimum signal on the inner side, of the median; below nothing can be compared


SEARCH = SearchLimits()
# For blades that leak, and scatter behind them: an edge behind a dark spine drops by half. Chosen; on exposures of two
# patients with 1 and 2 % of leak the field came out as without leak, or smaller by a fifth at most.
LEAKING = SearchLimits(drop=0.7, along_drop=0.3, lit_inside=0.95, signal_fraction=0.3)


def find_edges(
    signal: Float32,
    median: float,
    bright: float,
    lit: Mask,
    limits: SearchLimits = SEARCH,
    known: Sequence[Line] = (),
) -> tuple[list[Edge], Float]:
    """Finds the edges of the field: those that are known, then the one with the most inliers first.

    Parameters
    ----------
    signal : ndarray of float32, shape (rows, cols)
        Counts above the dark level.
    median, bright : float
        Of the signal in the field, and of its upper tenth.
    lit : ndarray of bool, same shape
        Pixels that certainly lie in the field.
    limits : SearchLimits
    known : sequence of Line
        Blades. Others are looked for inside them alone, and not at the same side.

    Returns
    -------
    list of Circle or Line
    ndarray, shape (rows, cols)
        Signed distance from the nearest edge, pixels; the image's longer side where no edge was found.
    """
    rows, cols = signal.shape
    distance = np.full(signal.shape, float(max(rows, cols)))
    edges: list[Edge] = []
    y, x = np.mgrid[:rows, :cols]
    if not lit.any():
        return edges, distance
    floor = limits.floor_fraction * bright + 1e-3
    log = np.log(signal + np.float32(floor)).astype(np.float32)
    points = _edge_points(log, float(np.log(limits.behind_fraction * median + floor)), lit, limits)
    comparable = signal > limits.signal_fraction * median
    lit_points = np.argwhere(lit)[::4, ::-1].astype(np.float64)
    inlier_px = limits.inlier_px / FIELD_SIDE * max(rows, cols)
    for line in known:
        off_px = line.signed_distance(*points.T)
        near = np.abs(off_px) < limits.known_px * max(rows, cols) / FIELD_SIDE
        edges.append(line.refitted(points[near]) if near.sum() >= limits.least_inliers else line)
        points = points[~near & (off_px > 0)]
        np.minimum(distance, edges[-1].signed_distance(x, y), out=distance)
    rng = np.random.default_rng(0)

    def is_blade(line: Line) -> bool:
        if any(float(line.normal @ other.normal) > limits.same_side_cos for other in known):
            return False
        return _drops_all_along(line, log, comparable & (distance > 0), limits)

    for _ in range(limits.most_edges):
        fits: list[tuple[Edge | None, Mask]] = [_best_line(points, lit_points, inlier_px, is_blade, limits)]
        if not any(isinstance(edge, Circle) for edge in edges):
            fits.append(_best_circle(points, lit_points, inlier_px, rng, limits))
        edge, inliers = max(fits, key=lambda fit: int(fit[1].sum()))
        if edge is None or inliers.sum() < limits.least_inliers:
            break
        points = points[~inliers]
        edges.append(edge)
        np.minimum(distance, edge.signed_distance(x, y), out=distance)
    return edges, distance


def _edge_points(log: Float32, most_behind: float, lit: Mask, limits: SearchLimits) -> Float:
    """Points (column, row) where the log signal drops on the way out from the middle of the lit region, (n, 2)."""
    rows, cols = log.shape
    centre = np.argwhere(lit).mean(0)[::-1]
    reach = float(np.hypot(rows, cols))
    step_px = reach / limits.steps
    # The outermost pixels are repeated, so that the image's own border is no drop.
    polar = cv2.warpPolar(
        cv2.copyMakeBorder(log, rows, rows, cols, cols, cv2.BORDER_REPLICATE),
        (limits.steps, limits.rays), (float(centre[0]) + cols, float(centre[1]) + rows), reach,
        # A ray from a field in a corner may end beyond the repeated pixels: without this flag, in unset memory.
        cv2.WARP_POLAR_LINEAR | cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS,
    )  # fmt: skip
    half = limits.drop_steps
    drop = polar[:, : -2 * half] - polar[:, 2 * half :]
    behind = polar[:, 2 * half :] < most_behind
    is_edge = (drop > limits.drop) & behind & (drop >= cv2.dilate(drop, np.ones((1, 5), np.uint8)))
    angle = 2 * np.pi * np.arange(limits.rays) / limits.rays
    # A leaking blade lets the round edge behind it show, so a ray may have several edge points.
    ray, k = np.nonzero(is_edge)
    points = centre + ((k + half) * step_px)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)[ray]
    in_image = (points > 0.5).all(1) & (points[:, 0] < cols - 1.5) & (points[:, 1] < rows - 1.5)
    return points[in_image]


def _best_line(
    points: Float, lit_points: Float, inlier_px: float, is_blade: Callable[[Line], bool], limits: SearchLimits
) -> tuple[Line | None, Mask]:
    """The blade's edge with the most inliers (Hough transform, then least squares), and its inliers."""
    nothing = None, np.zeros(len(points), bool)
    if len(points) < limits.least_inliers:
        return nothing
    angle = np.deg2rad(np.arange(0, 180, 1.0))
    normals = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    bins = np.floor(points @ normals.T / (2 * inlier_px)).astype(np.int64)
    bins -= bins.min()
    size = int(bins.max()) + 2
    cell = bins + size * np.arange(len(angle))
    votes = np.bincount(cell.ravel(), minlength=size * len(angle))
    left = np.ones(len(points), bool)
    for _ in range(limits.most_lines_rejected):
        of_angle = votes.reshape(-1, size)
        pairs = of_angle[:, :-1] + of_angle[:, 1:]
        a, b = np.unravel_index(int(pairs.argmax()), pairs.shape)
        near = left & ((bins[:, a] == b) | (bins[:, a] == b + 1))
        if near.sum() < limits.least_inliers:
            break
        normal, mean = normal_and_mean(points[near])
        if ((lit_points - mean) @ normal).mean() < 0:
            normal = -normal
        line = Line(normal, float(mean @ normal))
        if ((lit_points - mean) @ normal > -1.5 * inlier_px).mean() > limits.lit_inside and is_blade(line):
            return line, np.abs((points - mean) @ normal) < 1.3 * inlier_px
        left &= ~near  # the border of a limb or of an instrument
        votes -= np.bincount(cell[near].ravel(), minlength=len(votes))
    return nothing


def _drops_all_along(line: Line, log: Float32, field: Mask, limits: SearchLimits) -> bool:
    """Whether the log signal drops across a line wherever the line crosses the field."""
    rows, cols = log.shape
    reach = float(np.hypot(rows, cols))
    normal = line.normal
    on = normal * line.offset_px + np.arange(-reach, reach)[:, None] * np.array([-normal[1], normal[0]])
    across = limits.across_px * max(rows, cols) / FIELD_SIDE * normal
    (x, y), (behind_x, behind_y) = (np.rint(on + sign * across).astype(int).T for sign in (1, -1))
    in_image = (np.minimum(x, behind_x) >= 0) & (np.maximum(x, behind_x) < cols)
    in_image &= (np.minimum(y, behind_y) >= 0) & (np.maximum(y, behind_y) < rows)
    x, y, behind_x, behind_y = x[in_image], y[in_image], behind_x[in_image], behind_y[in_image]
    drop = (log[y, x] - log[behind_y, behind_x])[field[y, x]]
    return len(drop) == 0 or bool((drop > limits.along_drop).mean() > limits.along_fraction)


def _best_circle(
    points: Float, lit_points: Float, inlier_px: float, rng: np.random.Generator, limits: SearchLimits
) -> tuple[Circle | None, Mask]:
    """The circle with the most inliers (RANSAC over three points, then least squares), and its inliers."""
    nothing = None, np.zeros(len(points), bool)
    if len(points) < limits.least_inliers:
        return nothing
    three = points[rng.integers(len(points), size=(limits.trials, 3))]
    a, b = three[:, 1] - three[:, 0], three[:, 2] - three[:, 0]
    cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    wide = np.abs(cross) > (limits.widest_flat * inlier_px) ** 2  # three points near a line determine no circle
    if not wide.any():
        return nothing
    three, a, b, cross = three[wide], a[wide], b[wide], cross[wide]
    aa, bb = (a**2).sum(1), (b**2).sum(1)
    from_first = np.stack([b[:, 1] * aa - a[:, 1] * bb, a[:, 0] * bb - b[:, 0] * aa], 1) / (2 * cross[:, None])
    centres = three[:, 0] + from_first
    radii = np.linalg.norm(three[:, 0] - centres, axis=1)
    residuals = np.abs(np.linalg.norm(points[None] - centres[:, None], axis=2) - radii[:, None])
    k = int((residuals < inlier_px).sum(1).argmax())
    circle, inliers = Circle(centres[k], float(radii[k])), residuals[k] < inlier_px
    for _ in range(2):
        if inliers.sum() < limits.least_inliers:
            return nothing
        circle = Circle.through(points[inliers])
        inliers = np.abs(np.linalg.norm(points - circle.centre_px, axis=1) - circle.radius_px) < inlier_px
    too_large = circle.radius_px > limits.largest_radius * inlier_px / (limits.inlier_px / FIELD_SIDE)
    lit_distance = np.linalg.norm(lit_points - circle.centre_px, axis=1)
    if too_large or (lit_distance < circle.radius_px + 1.5 * inlier_px).mean() < limits.lit_inside:
        return nothing
    return circle, inliers
