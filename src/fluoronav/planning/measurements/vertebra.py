"""A vertebra's own frame, the endplates of its body, and its heights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.fitting import Plane, cross, fit_height_plane, unit, without
from fluoronav.planning.measurements.mask import Float, Mask, StructureMask, depths, labelled


@dataclass(frozen=True, slots=True)
class VertebraSettings:
    """How a vertebra is measured; lengths in mm."""

    step: float = 1.0  # grid of its own frame; chosen: below the voxels of a CT, times stay at a tenth of a second
    across: float = 36.0  # half of what is looked at to the left and right of the body's middle
    front: float = 30.0  # in front of it
    behind: float = 50.0
    along: float = 34.0  # half of what is looked at along the axis
    least_depth: float = 4.0  # of the thickest place: no vertebral body is thinner (C3: 6 mm)
    rings: tuple[float, float] = (-22.0, 16.0)  # along the axis, where the arch encloses the canal
    least_canal_mm2: float = 60.0  # chosen: stenosis is below 75 mm2 (Schizas 2010), a foramen of an artery 40 mm2
    midline: float = 4.0  # half width in which the posterior wall is looked for
    wall: float = 3.0  # bone along the axis that is less than this is behind the wall
    rim: float = 0.85  # part of the footprint's radius that endplates are fitted on: the rim is rounded
    strip: float = 0.2  # half width of the midsagittal strip, as part of the body's width
    # Bands along the depth in which heights are taken, from the front; middle third as in Genant 1993.
    anterior: tuple[float, float] = (0.05, 0.20)
    middle: tuple[float, float] = (0.40, 0.60)
    posterior: tuple[float, float] = (0.80, 0.95)
    outlier: float = 0.4  # residuals of an endplate below this are no outliers
    refits: int = 3
    points: int = 25_000  # that the canal's opening is looked for with; chosen for time
    cell: float = 1.3  # of the picture in which the canal opens, in voxels; chosen: voxels leave no cell empty
    thick: float = 0.6  # of the body's typical thickness that its columns have; a transverse process has less


SETTINGS = VertebraSettings()
# Tilts of the axis at which the canal's opening is compared, degrees: towards the front, and to the side.
_TILTS = [(a, b) for a in range(-30, 31, 6) for b in (-12, -6, 0, 6, 12)]


@dataclass(frozen=True)
class Frame:
    """A vertebra's own frame.

    Attributes
    ----------
    origin : ndarray, shape (3,)
        Middle of the body, LPS mm.
    axes : ndarray, shape (3, 3)
        Rows: to the patient's left, to the back, to the head; unit vectors, LPS.
    """

    origin: Float
    axes: Float

    def to_ct(self, uvw: Float) -> Float:
        """Points of this frame in LPS mm, shape (..., 3)."""
        return self.origin + uvw @ self.axes

    def of_ct(self, points_ct: Float) -> Float:
        """Points in LPS mm in this frame, shape (..., 3)."""
        return (points_ct - self.origin) @ self.axes.T


@dataclass(frozen=True)
class Body:
    """The body of a vertebra.

    Attributes
    ----------
    frame : Frame
        Its third axis is the mean of the endplates' normals.
    top, bottom : Plane
        Endplates, LPS mm; normals point to the head.
    heights : dict of str to float
        ``anterior``, ``middle``, ``posterior``, mm.
    edges_ct : dict of str to ndarray, shape (2, 3)
        Where each height is taken: top and bottom, LPS mm.
    wall : float
        Place of the posterior wall along the frame's second axis, mm.
    footprint : ndarray of bool
        Of the body, on a grid of `step` mm; first axis to the left from `-across`, second to the back from `-front`.
    width_mm, depth_mm : float
    """

    frame: Frame
    top: Plane
    bottom: Plane
    heights: dict[str, float]
    edges_ct: dict[str, Float]
    wall: float
    footprint: Mask
    width_mm: float
    depth_mm: float

    def numbers(self) -> Float:
        """What a spread is wanted of: three heights, and four tilts (top and bottom: to the side, to the front)."""
        tilts = [t for plane in (self.top, self.bottom) for t in tilt_deg(plane)]
        return np.array([*self.heights.values(), *tilts])


def tilt_deg(plane: Plane) -> tuple[float, float]:
    """Tilt of an endplate in the coronal and in the sagittal plane of the patient, degrees."""
    x, y, z = plane.normal
    return float(np.degrees(np.arctan2(x, z))), float(np.degrees(np.arctan2(y, z)))


def body_centre(mask: StructureMask) -> Float:
    """The middle of the thickest place, which lies in the body; raises :class:`Refused` where nothing is thick."""
    depth = mask.depth_mm()
    if depth.max() < SETTINGS.least_depth:
        raise Refused(
            f"{mask.name}: is nowhere thicker than {2 * depth.max():.0f} mm, which a body is: is the label complete?"
        )
    return mask.points_ct(depth >= 0.93 * depth.max()).mean(0)


def body_of(mask: StructureMask, level: Float, start: Frame, refits: int = SETTINGS.refits) -> Body:
    """The body on one placing of the boundary.

    Parameters
    ----------
    mask : StructureMask
    level : ndarray
        Field whose zero is the boundary.
    start : Frame
        From :func:`start_frame`, or that of a body on another placing.
    refits : int
        How often the frame is set again by the endplates.

    Raises
    ------
    Refused
    """
    frame = start
    for _ in range(refits):
        grid, columns = _columns(mask, level, frame)
        wall = _posterior_wall(columns, mask.name)
        footprint = _footprint(columns, grid, wall, mask.name)
        top, bottom, frame = _endplates(grid, columns, footprint, frame)
    grid, columns = _columns(mask, level, frame)
    wall = _posterior_wall(columns, mask.name)
    footprint = _footprint(columns, grid, wall, mask.name)
    top, bottom, _ = _endplates(grid, columns, footprint, frame)
    heights, edges = _heights(grid, columns, footprint, frame)
    u = np.flatnonzero(footprint.any(1))
    v = np.flatnonzero(footprint.any(0))
    return Body(
        frame, top, bottom, heights, edges, wall, footprint,
        float(np.ptp(u) + 1) * SETTINGS.step, float(np.ptp(v) + 1) * SETTINGS.step,
    )  # fmt: skip


def start_frame(mask: StructureMask, axis: Float) -> Frame:
    """A vertebra's frame from the opening of its canal.

    Parameters
    ----------
    mask : StructureMask
    axis : ndarray, shape (3,)
        Towards the head, from the neighbours or the patient's.

    Raises
    ------
    Refused
        No body, or an arch in front of it: the label is turned or mirrored.
    """
    centre = body_centre(mask)
    points, voxel_mm = _thinned(mask)
    behind = points[np.linalg.norm(points - centre, axis=1) > 1.6 * mask.depth_mm().max()]
    away = behind.mean(0) - centre if len(behind) else np.array([0.0, 1.0, 0.0])
    if away[1] < 0:
        raise Refused(f"{mask.name}: its arch lies in front of its body: the label map is turned or mirrored")
    best, best_area = _framed(centre, unit(axis), away), -1.0
    for towards_front, to_side in _TILTS:
        base = _framed(centre, unit(axis), away)
        a, b = np.radians([towards_front, to_side])
        tilted = unit(base.axes[2] + np.tan(a) * base.axes[1] + np.tan(b) * base.axes[0])
        candidate = _framed(centre, tilted, away)
        area, middle = _opening(points, candidate, voxel_mm)
        # The smaller tilt where two are as good.
        score = area - 0.4 * float(np.hypot(towards_front, to_side))
        if area > 0 and score > best_area:
            best_area, best = score, _framed(centre, tilted, candidate.to_ct(middle) - centre)
    return best


def canal_mm2(mask: StructureMask, frame: Frame) -> float:
    """Area that the arch encloses, seen along the axis or within 12 degrees of it; 0 where the ring is open."""
    points, voxel_mm = _thinned(mask)
    areas = []
    for to_front, to_side in [(a, b) for a, b in _TILTS if abs(a) <= 12 and abs(b) <= 6]:
        a, b = np.radians([to_front, to_side])
        axis = unit(frame.axes[2] + np.tan(a) * frame.axes[1] + np.tan(b) * frame.axes[0])
        areas.append(_opening(points, _framed(frame.origin, axis, frame.axes[1]), voxel_mm)[0])
    largest = max(areas)
    return largest if largest >= SETTINGS.least_canal_mm2 else 0.0


def body_voxels(mask: StructureMask, body: Body) -> Mask:
    """The voxels of the body: in front of its posterior wall and on its footprint; shape of ``mask.inside``."""
    uvw = body.frame.of_ct(mask.points_ct())
    at = np.rint((uvw[:, :2] + [SETTINGS.across, SETTINGS.front]) / SETTINGS.step).astype(int)
    shape = body.footprint.shape
    valid = (at >= 0).all(1) & (at < shape).all(1) & (uvw[:, 1] <= body.wall)
    keep = np.zeros(len(uvw), bool)
    grown = ndimage.binary_dilation(body.footprint)
    keep[valid] = grown[at[valid, 0], at[valid, 1]]
    out = np.zeros_like(mask.inside)
    out[mask.inside] = keep
    return out


def _thinned(mask: StructureMask) -> tuple[Float, float]:
    """Voxels, not more than the canal needs to be seen, and the size of what each stands for, mm.

    A smoothed boundary would open a lamina that is one voxel thick.
    """
    points = mask.points_ct()
    every = max(len(points) // SETTINGS.points, 1)
    return points[::every], float(np.cbrt(mask.voxel_mm3 * every))


def _framed(centre: Float, axis: Float, back: Float) -> Frame:
    back = without(back, axis)
    return Frame(centre, np.stack([cross(back, axis), back, axis]))


def _opening(points_ct: Float, frame: Frame, voxel_mm: float) -> tuple[float, Float]:
    """Area, mm2, and middle (u, v, 0) of what the arch encloses, seen along the axis; 0 where it is open."""
    uvw = frame.of_ct(points_ct)
    low, high = SETTINGS.rings
    uvw = uvw[(uvw[:, 2] > low) & (uvw[:, 2] < high)]
    cell = max(1.0, SETTINGS.cell * voxel_mm)
    edges = [np.arange(-SETTINGS.across, SETTINGS.across + cell, cell), np.arange(-30, SETTINGS.behind + 20, cell)]
    seen = np.histogram2d(uvw[:, 0], uvw[:, 1], edges)[0] > 0
    # Cells between the voxels of a coarse map are closed; so are seams of one cell.
    seen = np.asarray(ndimage.binary_closing(np.pad(seen, 3), iterations=1), bool)[3:-3, 3:-3]
    holes, count = labelled(np.asarray(ndimage.binary_fill_holes(seen), bool) & ~seen)
    best, middle = 0.0, np.zeros(3)
    for k in range(1, count + 1):
        at = np.argwhere(holes == k)
        u, v = edges[0][0] + (at.mean(0) + 0.5)[0] * cell, edges[1][0] + (at.mean(0) + 0.5)[1] * cell
        if abs(u) < 12 and v > 0 and len(at) * cell**2 > best:
            best, middle = len(at) * cell**2, np.array([u, v, 0.0])
    return best, middle


@dataclass(frozen=True)
class _Grid:
    u: Float
    v: Float
    w: Float


@dataclass(frozen=True)
class _Columns:
    """Where bone ends above and below the middle, mm along the axis, shape (u, v); NaN without bone."""

    top: Float
    bottom: Float
    level: NDArray


def _columns(mask: StructureMask, level: Float, frame: Frame) -> tuple[_Grid, _Columns]:
    s = SETTINGS
    grid = _Grid(
        np.arange(-s.across, s.across + s.step / 2, s.step),
        np.arange(-s.front, s.front + s.step / 2, s.step),
        np.arange(-s.along, s.along + s.step / 2, s.step),
    )
    uvw = np.stack(np.meshgrid(grid.u, grid.v, grid.w, indexing="ij"), axis=-1)
    field = mask.sampled(level, frame.to_ct(uvw))
    middle = len(grid.w) // 2
    top = _first_end(field[:, :, middle:], s.step)
    bottom = _first_end(field[:, :, middle::-1], s.step)
    return grid, _Columns(top, -bottom, field)


def _first_end(field: Float, step: float) -> Float:
    """Where the field first falls below zero along the last axis, mm; NaN where it begins below, or never does."""
    below = field < 0
    k = np.argmax(below, axis=2)
    found = below.any(2) & (k > 0)
    k = np.maximum(k, 1)
    after = np.take_along_axis(field, k[..., None], 2)[..., 0]
    before = np.take_along_axis(field, k[..., None] - 1, 2)[..., 0]
    return np.where(found, (k - 1 + before / np.maximum(before - after, 1e-9)) * step, np.nan)


def _posterior_wall(columns: _Columns, name: str) -> float:
    """Where the body ends towards the back in the midline, mm along v."""
    s = SETTINGS
    near = np.abs(np.arange(columns.top.shape[0]) * s.step - s.across) <= s.midline
    thick = np.nanmedian(np.where(np.isnan(columns.top), 0.0, columns.top - columns.bottom)[near], axis=0)
    first = int(s.front / s.step)
    behind = np.flatnonzero(thick[first:] < s.wall)
    if not len(behind) or behind[0] == 0:
        raise Refused(f"{name}: no posterior wall of its body was found: is the label a whole vertebra?")
    return float(behind[0] - 0.5) * s.step


def _footprint(columns: _Columns, grid: _Grid, wall: float, name: str) -> Mask:
    """The body's columns: in front of the posterior wall, thick enough, without transverse processes."""
    thick = np.where(np.isnan(columns.top), 0.0, columns.top - columns.bottom)
    typical = float(np.median(thick[np.abs(grid.u) < 8][:, np.abs(grid.v) < 6]))
    if typical <= 0:
        raise Refused(f"{name}: no body was found around its thickest place: is the label a whole vertebra?")
    body = (thick > SETTINGS.thick * typical) & (grid.v <= wall)[None, :]
    reach = max(int(0.3 * np.sqrt(np.count_nonzero(body) / np.pi)), 1)
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach + 0.3
    # The wall is straight in the map, which no opening with a disc may round off.
    mirrored = np.concatenate([body[:, grid.v <= wall], body[:, grid.v <= wall][:, ::-1]], axis=1)
    opened = ndimage.binary_opening(np.pad(mirrored, reach), disc)[reach:-reach, reach:-reach]
    body[:, grid.v <= wall] = opened[:, : int((grid.v <= wall).sum())]
    pieces, _ = labelled(body)
    at = pieces[len(grid.u) // 2, len(grid.v) // 2]
    if at == 0:
        raise Refused(f"{name}: no body was found around its thickest place: is the label a whole vertebra?")
    return pieces == at


def _endplates(grid: _Grid, columns: _Columns, footprint: Mask, frame: Frame) -> tuple[Plane, Plane, Frame]:
    """Planes of both endplates, and the frame whose axis is the mean of their normals."""
    inner = _shrunk(footprint, SETTINGS.rim) & ~np.isnan(columns.top) & ~np.isnan(columns.bottom)
    if np.count_nonzero(inner) < 40:
        raise Refused("too little of the endplates is there for a plane")
    i, j = np.nonzero(inner)
    uv = np.column_stack([grid.u[i], grid.v[j]])
    middle = uv.mean(0)
    planes = []
    for ends in (columns.top[i, j], columns.bottom[i, j]):
        a, b, c = fit_height_plane(uv - middle, ends, SETTINGS.outlier)
        normal = unit(np.array([-b, -c, 1.0]) @ frame.axes)
        planes.append(Plane(frame.to_ct(np.array([*middle, a])), normal))
    top, bottom = planes
    axis = unit(top.normal + bottom.normal)
    origin = (top.point + bottom.point) / 2
    return top, bottom, _framed(origin, axis, frame.axes[1])


def _shrunk(footprint: Mask, part: float) -> Mask:
    """A footprint without its rim."""
    depth = depths(np.pad(footprint, 1))[1:-1, 1:-1]
    return depth > (1 - part) * depth.max()


def _heights(
    grid: _Grid, columns: _Columns, footprint: Mask, frame: Frame
) -> tuple[dict[str, float], dict[str, Float]]:
    """Anterior, middle and posterior height in the midsagittal strip, and where."""
    s = SETTINGS
    used = np.flatnonzero(footprint.any(1))
    half = max(s.strip * len(used), 2)
    strip = np.abs(np.arange(footprint.shape[0]) - used.mean()) <= half
    within = footprint & strip[:, None] & ~np.isnan(columns.top) & ~np.isnan(columns.bottom)
    depth = np.flatnonzero(within.any(0))
    heights, edges = {}, {}
    for name, band in (("anterior", s.anterior), ("middle", s.middle), ("posterior", s.posterior)):
        low, high = (depth[0] + part * (depth[-1] - depth[0]) for part in band)
        here = within & ((np.arange(footprint.shape[1]) >= low) & (np.arange(footprint.shape[1]) <= high))[None, :]
        i, j = np.nonzero(here)
        if len(i) < 3:
            raise Refused(f"too little of the body is there for its {name} height")
        tall = columns.top[i, j] - columns.bottom[i, j]
        value = float(np.median(tall))
        k = int(np.argmin(np.abs(tall - value) + 0.02 * np.abs(grid.u[i] - grid.u[i].mean())))
        at = [np.array([grid.u[i[k]], grid.v[j[k]], end[i[k], j[k]]]) for end in (columns.top, columns.bottom)]
        heights[name], edges[name] = value, frame.to_ct(np.array(at))
    return heights, edges
