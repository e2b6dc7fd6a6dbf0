"""The frame of a vertebra from its own ring: the direction of the spinal canal, its centre, and where the body lies.

Seen along the spinal canal, a vertebra has a hole. The canal's direction is the one along which that hole is largest.
The body's centre is that of the largest circle inside the vertebra's outline. No label of the spinal cord is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.planning.screws.bone import Bone, VertebraError

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CanalSettings:
    """How the canal is found."""

    pixel_mm: float = 1.0  # of the outline; chosen: twice the bone's field is too coarse for a neck, half too slow
    tilts_deg: tuple[float, ...] = (12.0, 4.0, 1.5)  # steps of the search, coarse to fine; chosen
    most_tilt_deg: float = 48.0  # of the canal from the patient's long axis; L5 and a bent spine reach 40
    least_radius_mm: float = 3.5  # of a circle in the canal; the narrowest canals of adults are 10 mm deep
    wall_mm: float = 8.0  # that both walls of a ring open at the back reach to the back; chosen: a pedicle's length
    most_open_tilt_deg: float = 30.0  # of such a canal; chosen: from farther aside a neural foramen looks like one
    # Times the area of any closed ring that an open canal has at least. Fitted on 10 vertebrae drawn by hand: the
    # whole ones reach 1.5, and those whose arch was taken out 2.5.
    opening: float = 2.0
    open_reach: float = 0.9  # of its walls, in widths, that is looked along; chosen: with less it is seen askew
    open_depth: float = 0.65  # of an open canal, in its widths; chosen between lumbar (0.6) and thoracic ones (0.9)
    most_turn_deg: float = 50.0  # of the body's direction from the patient's front; a scoliosis reaches 40


SETTINGS = CanalSettings()


@dataclass(frozen=True)
class Canal:
    """The spinal canal of one vertebra, and the vertebra's frame.

    Attributes
    ----------
    T_ct_vertebra : ndarray, shape (4, 4)
        Axes: to the patient's right, to the front (towards the body), to the head along the canal; origin in the
        canal's centre at the height of the bone's middle; mm.
    back_mm, front_mm : float
        The canal's edges along the frame's front axis, in the middle.
    half_width_mm : float
        Of the canal, to the side.
    body_mm : float
        Centre of the body along the front axis.
    outside_mm : ndarray, shape (rows, cols)
        Signed distance to the canal's outline seen along the canal, negative inside; rows to the front, columns to the
        right.
    corner_mm : tuple of float
        Right and front coordinate of the first pixel.
    pixel_mm : float
    is_open : bool
        The ring is open at the back: the canal's back is assumed from its width.
    """

    T_ct_vertebra: Float
    back_mm: float
    front_mm: float
    half_width_mm: float
    body_mm: float
    outside_mm: NDArray[np.float32] = field(repr=False)
    corner_mm: tuple[float, float]
    pixel_mm: float
    is_open: bool = False

    def to_ct(self, points: Float) -> Float:
        """Points of the vertebra's frame (n, 3) in LPS mm."""
        return points @ self.T_ct_vertebra[:3, :3].T + self.T_ct_vertebra[:3, 3]

    def from_ct(self, points_ct: Float) -> Float:
        """Points (n, 3), LPS mm, in the vertebra's frame."""
        return (points_ct - self.T_ct_vertebra[:3, 3]) @ self.T_ct_vertebra[:3, :3]

    def distance_mm(self, points: Float) -> Float:
        """Distance of points of the vertebra's frame (n, 3) to the canal's wall, negative in the canal."""
        at = np.rint((points[:, :2] - self.corner_mm) / self.pixel_mm).astype(int)
        rows, cols = self.outside_mm.shape
        inside = (at >= 0).all(1) & (at[:, 0] < cols) & (at[:, 1] < rows)
        out = np.full(len(points), np.inf)
        out[inside] = self.outside_mm[at[inside, 1], at[inside, 0]]
        return out


def find_canal(bone: Bone, settings: CanalSettings = SETTINGS) -> Canal:
    """Finds the canal and the frame of a vertebra.

    A ring may be open at the back, where a canal lies between the pedicles and no ring closes around as much of it.

    Raises
    ------
    VertebraError
        There is no canal between two pedicles, or the body does not lie in front of it.
    """
    surface = bone.surface_ct()
    middle = (surface.min(0) + surface.max(0)) / 2
    points = surface - middle
    closed = _along(points, _hole, settings.most_tilt_deg, settings)
    opened = _along(points, _opening, settings.most_open_tilt_deg, settings)
    # Seen askew, what is left of an arch may close a false, small ring.
    is_open = opened.area > settings.opening * closed.area
    found = opened if is_open else closed
    if found.hole is not None:
        return _framed(bone, points, middle, _axes(found.tilt_deg), found.hole, settings, is_open)
    raise VertebraError(
        f"{bone.level}: its ring is not closed around the spinal canal, and no canal lies between two pedicles behind "
        "its body (an incomplete label?), so that no screw is proposed: draw the screws by hand"
    )


Hole = tuple[NDArray, Float]  # a mask, and the place of its first pixel
Seen = Callable[[Float, Float, CanalSettings], tuple[float, Hole] | None]


@dataclass(frozen=True)
class _Seen:
    """A canal where it looks largest: the tilts (degrees), its mask, and its area in pixels; 0 where there is none."""

    tilt_deg: Float
    hole: Hole | None
    area: float


def _along(points: Float, seen: Seen, most_tilt_deg: float, settings: CanalSettings) -> _Seen:
    """Looks along all directions that a canal may have."""
    tilt = np.zeros(2)
    best, hole = 0.0, None
    for k, step in enumerate(settings.tilts_deg):
        reach = int(most_tilt_deg / step) if k == 0 else 2
        start = tilt.copy()
        for a in range(-reach, reach + 1):
            for b in range(-reach, reach + 1):
                here = start + step * np.array([a, b])
                if seen is _opening and np.linalg.norm(here) > most_tilt_deg:
                    continue
                found = seen(points, _axes(here), settings)
                if found is not None and found[0] > best:
                    best, tilt, hole = found[0], here, found[1]
    return _Seen(tilt, hole, best)


def _axes(tilt_deg: Float) -> Float:
    """Rows: unit vectors to the left, to the back and along the canal, for tilts to the side and the front."""
    s, f = np.tan(np.deg2rad(tilt_deg))
    up = np.array([s, -f, 1.0])
    up /= np.linalg.norm(up)
    left = np.array([1.0, 0, 0]) - up[0] * up
    left /= np.linalg.norm(left)
    return np.stack([left, np.cross(left, -up), up])


def _outline(points: Float, axes: Float, pixel_mm: float) -> tuple[NDArray[np.uint8], Float]:
    """The bone seen along the canal: 1 where there is bone, with an empty rim; and the first pixel's place."""
    flat = points @ axes[:2].T
    low = flat.min(0) - 2 * pixel_mm
    at = np.rint((flat - low) / pixel_mm).astype(np.int32)
    image = np.zeros((at[:, 1].max() + 3, at[:, 0].max() + 3), np.uint8)
    image[at[:, 1], at[:, 0]] = 1
    return image, low


def _hole(points: Float, axes: Float, settings: CanalSettings) -> tuple[float, tuple[NDArray, Float]] | None:
    """Area of the canal seen along a direction, with its mask and the first pixel's place; None without a canal."""
    image, low = _outline(points, axes, settings.pixel_mm)
    n, parts, stats, _ = cv2.connectedComponentsWithStats(1 - image, connectivity=4)
    inner = [p for p in range(1, n) if p != parts[0, 0] and stats[p, cv2.CC_STAT_AREA] >= 9]
    best: tuple[float, tuple[NDArray, Float]] | None = None
    widest = settings.least_radius_mm / settings.pixel_mm
    for p in inner:
        mask = (parts == p).astype(np.uint8)
        radius = float(cv2.distanceTransform(mask, cv2.DIST_L2, 5).max())
        if radius >= widest:
            widest, best = radius, (float(stats[p, cv2.CC_STAT_AREA]), (mask, low))
    return best


def _opening(points: Float, axes: Float, settings: CanalSettings) -> tuple[float, Hole] | None:
    """As :func:`_hole`, of a canal that is open at the back: what lies behind the body, between two pedicles.

    Its depth is assumed from its width, since nothing shows where its back was.
    """
    image, low = _outline(points, axes, settings.pixel_mm)
    to_bone = cv2.distanceTransform(image, cv2.DIST_L2, 5)
    row, col = (int(k) for k in np.unravel_index(np.argmax(to_bone), image.shape))  # the body's middle
    behind = np.flatnonzero(image[row:, col] == 0)
    if not len(behind):
        return None
    front, mask = row + int(behind[0]), np.zeros_like(image)
    widths: list[int] = []
    wall = round(settings.wall_mm / settings.pixel_mm)
    for at in range(front, image.shape[0]):
        left, right = (np.flatnonzero(side) for side in (image[at, :col][::-1], image[at, col:]))
        if image[at, col] or not len(left) or not len(right):
            break
        first, last = col - int(left[0]), col + int(right[0])  # free columns: first to last - 1
        mask[at, first:last] = 1
        widths.append(last - first)
        col = (first + last) // 2
        if len(widths) >= wall and len(widths) >= settings.open_reach * np.median(widths):
            break
    radius = settings.least_radius_mm / settings.pixel_mm
    if len(widths) < wall or np.median(widths) < 2 * radius:
        return None
    area = float(mask.sum())
    mask[front + max(wall, round(settings.open_depth * float(np.median(widths)))) :] = 0
    return area, (mask, low)


def _framed(
    bone: Bone, points: Float, middle: Float, axes: Float, hole: Hole, settings: CanalSettings, is_open: bool
) -> Canal:
    mask, low = hole
    pixel = settings.pixel_mm
    image, _ = _outline(points, axes, pixel)
    filled = image.copy()
    flood = np.zeros((image.shape[0] + 2, image.shape[1] + 2), np.uint8)
    cv2.floodFill(filled, flood, (0, 0), 2)
    solid = ((filled != 2) & (mask == 0)).astype(np.uint8)
    row, col = np.unravel_index(np.argmax(cv2.distanceTransform(solid, cv2.DIST_L2, 5)), solid.shape)
    rows, cols = np.nonzero(mask)
    centre = np.array([cols.mean(), rows.mean()])
    to_body = np.array([col, row]) - centre
    to_body /= np.linalg.norm(to_body)
    front = to_body @ axes[:2]
    _check_front(bone, front, settings)
    R = np.stack([np.cross(front, axes[2]), front, axes[2]], axis=1)
    T = np.eye(4)
    T[:3, :3] = R
    height = (points @ axes[2]).max() + (points @ axes[2]).min()
    T[:3, 3] = middle + (low + pixel * centre) @ axes[:2] + height / 2 * axes[2]
    return replace(_measured(bone, T, mask, low, axes, middle, pixel), is_open=is_open)


def _check_front(bone: Bone, front: Float, settings: CanalSettings) -> None:
    turn = float(np.rad2deg(np.arccos(np.clip(-front[1], -1, 1))))
    if turn > settings.most_turn_deg:
        where = "behind" if front[1] > 0.7 else "beside"
        raise VertebraError(
            f"{bone.level}: its body lies {where} its spinal canal ({turn:.0f} degrees from the patient's front): the "
            "label map is mirrored, or its orientation is wrong; check how it was exported"
        )


def _measured(bone: Bone, T: Float, mask: NDArray, low: Float, axes: Float, middle: Float, pixel: float) -> Canal:
    """The canal's outline in the vertebra's own frame, and its edges."""
    bone_surface = bone.surface_ct()
    local = (bone_surface - T[:3, 3]) @ T[:3, :3]
    rows, cols = np.nonzero(mask)
    at = low + pixel * np.stack([cols, rows], axis=1)
    inside = ((middle + at @ axes[:2]) - T[:3, 3]) @ T[:3, :2]
    corner = np.minimum(inside.min(0), local[:, :2].min(0)) - 2 * pixel
    end = np.maximum(inside.max(0), local[:, :2].max(0)) + 2 * pixel
    shape = np.ceil((end - corner) / pixel).astype(int) + 1
    canal = np.zeros((shape[1], shape[0]), np.uint8)
    index = np.rint((inside - corner) / pixel).astype(int)
    canal[index[:, 1], index[:, 0]] = 1
    # The outline was turned by the body's direction: rounding leaves pin holes.
    canal = cv2.morphologyEx(canal, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    outside = cv2.distanceTransform(1 - canal, cv2.DIST_L2, 5) - cv2.distanceTransform(canal, cv2.DIST_L2, 5)
    column = inside[np.abs(inside[:, 0]) < 2 * pixel, 1]
    half_width = float(np.percentile(np.abs(inside[:, 0]), 97))
    body = local[(np.abs(local[:, 0]) < half_width) & (local[:, 1] > column.max()), 1]
    if not len(body):
        raise VertebraError(f"{bone.level}: has no bone in front of its spinal canal: the label is only its arch")
    front = float(np.percentile(body, 99))
    return Canal(
        T, float(column.min()), float(column.max()), half_width, float(column.max() + front) / 2,
        (outside * pixel).astype(np.float32), (float(corner[0]), float(corner[1])), pixel,
    )  # fmt: skip
