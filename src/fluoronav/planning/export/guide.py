"""A printable drill guide for one vertebra, as an example: it sits on the lamina and holds a sleeve for each screw.

The guide lies on the back of the bone as it is seen along the direction in which it is put on, so that it has no
undercut: what the bone hides from there is filled first. Lengths in mm, LPS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import SimpleITK as sitk
from manifold3d import Manifold
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.case.isosurface import isosurface
from fluoronav.planning.meshes.of_mask import signed_distances
from fluoronav.planning.meshes.parts import cylinder_between, frame_to
from fluoronav.planning.meshes.solid import Float, Mesh, MeshError, solid
from fluoronav.planning.plan.schema import Screw


@dataclass(frozen=True, slots=True)
class GuideSettings:
    """Shape of a guide; all chosen for a printer of 0.1 mm and a drill of 3.2 mm."""

    gap_mm: float = 0.3  # between guide and bone: the printer's and the segmentation's roughness
    thickness_mm: float = 3.5  # of the part that lies on the bone
    drill_mm: float = 3.2
    drill_play_mm: float = 0.3  # of the bore's diameter
    sleeve_wall_mm: float = 2.5
    sleeve_mm: float = 16.0  # of the sleeve outside the bone
    wall_mm: float = 1.5  # thinnest wall that is accepted
    reach_mm: float = 11.0  # of the contact surface around the line between the entries
    depth_mm: float = 13.0  # in front of the entries that the surface may reach
    voxel_mm: float = 0.5
    smallest_contact_mm2: float = 200.0  # a smaller one would turn on the bone
    thin_share: float = 0.05  # of the guide's volume that may be thinner than `wall_mm`: edges


SETTINGS = GuideSettings()


@dataclass(frozen=True)
class Guide:
    """A guide with its numbers.

    Attributes
    ----------
    body : Manifold
        LPS mm.
    report : dict
        For JSON.
    """

    body: Manifold
    report: dict[str, Any]


def drill_guide(mask: sitk.Image, screws: Sequence[Screw], name: str, settings: GuideSettings = SETTINGS) -> Guide:
    """A guide for the screws of one vertebra.

    Parameters
    ----------
    mask : SimpleITK.Image
        The vertebra, with empty voxels at its border.
    screws : sequence of Screw
    name : str
        For messages.
    settings : GuideSettings

    Raises
    ------
    MeshError
        No screw; entries outside the bone; too little contact; a wall that is too thin.
    """
    if not screws:
        raise MeshError(f"{name}: the plan has no screw at this level; a guide needs one or two")
    entries = np.array([s.entry_ct for s in screws], float)
    axes = np.array([np.subtract(s.tip_ct, s.entry_ct) for s in screws], float)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    out = -axes.mean(0)
    out /= np.linalg.norm(out)
    R = frame_to(out)  # its z axis is the way that the guide is taken off
    grid, origin = _grid(mask, entries, R, settings)
    distance = _sampled(mask, R, origin, grid, settings.voxel_mm)
    if min(_at(distance, R, origin, e, settings.voxel_mm) for e in entries) > 3:
        raise MeshError(f"{name}: an entry point lies more than 3 mm outside the bone; is the plan of these labels?")
    plate, hidden, contact_mm2 = _plate(distance, _window(grid, R, origin, entries, settings), settings)
    if contact_mm2 < settings.smallest_contact_mm2:
        raise MeshError(
            f"{name}: the guide would touch {contact_mm2:.0f} mm2 of bone, below {settings.smallest_contact_mm2:g}; "
            "it would not sit safely"
        )
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, R @ origin
    body = solid(_surface(plate, settings.voxel_mm, T), f"{name} guide")
    filled = solid(_surface(hidden, settings.voxel_mm, T), f"{name} back")
    bore, wall = (settings.drill_mm + settings.drill_play_mm) / 2, settings.sleeve_wall_mm
    for entry, axis in zip(entries, axes, strict=True):
        sleeve = cylinder_between(entry + axis * 4, entry - axis * settings.sleeve_mm, bore + wall)
        body += sleeve - filled
    for entry, axis in zip(entries, axes, strict=True):
        body -= cylinder_between(entry + axis * 40, entry - axis * (settings.sleeve_mm + 10), bore)
    pieces = sorted(body.decompose(), key=lambda p: -p.volume())
    if len(pieces) > 1 and sum(p.volume() for p in pieces[1:]) > 0.05 * body.volume():
        raise MeshError(f"{name}: the sleeves do not hang together with the part on the bone; widen the contact")
    body = pieces[0].simplify(0.02)
    thin = _thin_share(body, T, grid, settings)
    if thin > settings.thin_share:
        raise MeshError(
            f"{name}: {100 * thin:.0f} % of the guide is thinner than {settings.wall_mm:g} mm; it would break"
        )
    overlap = (body ^ filled).volume()
    return Guide(
        body,
        {
            "screws": [s.id for s in screws], "volume_cm3": round(body.volume() / 1000, 3),
            "contact_mm2": round(contact_mm2), "bore_mm": 2 * bore, "sleeve_wall_mm": wall,
            "minimum_wall_mm": settings.wall_mm, "thinner_share": round(thin, 4), "gap_mm": settings.gap_mm,
            "in_bone_mm3": round(overlap, 2), "takes_off_along_ct": np.round(out, 4).tolist(),
        },
    )  # fmt: skip


def _grid(mask: sitk.Image, entries: Float, R: Float, s: GuideSettings) -> tuple[tuple[int, int, int], Float]:
    """Size (x, y, z) and origin of a grid along the guide's axes, in its own frame, around entries and sleeves."""
    own = entries @ R
    room = np.array([s.reach_mm, s.reach_mm, 0]) + s.thickness_mm + 4
    low, high = own.min(0) - room, own.max(0) + room
    low[2], high[2] = own[:, 2].min() - s.depth_mm - 2, own[:, 2].max() + s.sleeve_mm + 35
    size = np.ceil((high - low) / s.voxel_mm).astype(int) + 1
    return (int(size[0]), int(size[1]), int(size[2])), low


def _sampled(
    mask: sitk.Image, R: Float, origin: Float, size: tuple[int, int, int], voxel_mm: float
) -> NDArray[np.float32]:
    """Signed distances on the guide's grid, shape (z, y, x)."""
    field = sitk.GetImageFromArray(signed_distances(mask))
    field.CopyInformation(mask)
    grid = sitk.Resample(
        field, list(size), sitk.Transform(), sitk.sitkLinear, (R @ origin).tolist(), [voxel_mm] * 3,
        R.ravel().tolist(), 1e3, sitk.sitkFloat32,
    )  # fmt: skip
    return sitk.GetArrayFromImage(grid)


def _at(distance: NDArray[np.float32], R: Float, origin: Float, point: Float, voxel_mm: float) -> float:
    x, y, z = np.rint((R.T @ point - origin) / voxel_mm).astype(int)
    return float(distance[z, y, x])


def _window(size: tuple[int, int, int], R: Float, origin: Float, entries: Float, s: GuideSettings) -> NDArray[np.bool_]:
    """Where the guide may lie: near the line between the entries, shape (z, y, x)."""
    own = entries @ R
    x, y = (origin[a] + s.voxel_mm * np.arange(size[a]) for a in (0, 1))
    a, b = own[0, :2], own[-1, :2]
    along = b - a
    points = np.stack(np.meshgrid(x, y, indexing="xy"), -1)
    t = np.clip(((points - a) @ along) / max(float(along @ along), 1e-9), 0, 1)
    near = np.linalg.norm(points - (a + t[..., None] * along), axis=-1) <= s.reach_mm
    z = origin[2] + s.voxel_mm * np.arange(size[2])
    return (z >= own[:, 2].min() - s.depth_mm)[:, None, None] & near[None]


def _plate(
    distance: NDArray[np.float32], window: NDArray[np.bool_], s: GuideSettings
) -> tuple[NDArray, NDArray, float]:
    """Signed fields (negative inside) of the plate and of the bone with what it hides, and the contact area."""
    bone = distance <= s.gap_mm
    # From the side that the guide comes from: all that lies below bone counts as bone.
    hidden = np.flip(np.maximum.accumulate(np.flip(bone, 0), axis=0), 0)
    away = _away(~hidden, sampling=s.voxel_mm)
    inside = _away(hidden, sampling=s.voxel_mm)
    to_hidden = (away - inside).astype(np.float32)
    top = hidden.shape[0] - 1 - np.argmax(np.flip(hidden, 0), axis=0)
    has = hidden.any(0) & window[np.minimum(top, window.shape[0] - 1), *np.indices(top.shape)]
    # Columns of the guide: over bone that it touches, without holes and threads.
    columns = _opened(
        np.asarray(ndimage.binary_fill_holes(has), bool), iterations=max(round(s.wall_mm / s.voxel_mm / 2), 1)
    )
    within = _away(columns, sampling=s.voxel_mm) - _away(~columns, sampling=s.voxel_mm)
    plate = np.maximum.reduce([-to_hidden, to_hidden - s.thickness_mm, np.broadcast_to(-within[None], to_hidden.shape)])
    return plate.astype(np.float32), to_hidden, float((columns & has).sum() * s.voxel_mm**2)


def _surface(field: NDArray[np.float32], voxel_mm: float, T: Float) -> Mesh:
    """The surface where a field is 0, closed at the border of the grid; LPS mm."""
    padded = np.pad(field, 1, constant_values=1.0)
    points, triangles = isosurface(padded)
    return Mesh((points - 1.0) * voxel_mm, triangles).moved(T)


def _thin_share(body: Manifold, T: Float, size: tuple[int, int, int], s: GuideSettings) -> float:
    """Share of the guide's volume that a ball of the thinnest wall's diameter does not reach, sampled in slices."""
    step = 0.25  # chosen: a sixth of the thinnest wall
    own = body.transform(np.asarray(np.linalg.inv(T)[:3], np.float64))
    x0, y0, z0, x1, y1, z1 = own.bounding_box()
    shape = (int((y1 - y0) / step) + 9, int((x1 - x0) / step) + 9)
    planes = []
    for z in np.arange(z0 + step / 2, z1, step):
        image = np.zeros(shape, np.uint8)
        rings = [
            np.rint((np.asarray(p) - [x0, y0]) / step * 16 + 64).astype(np.int32)
            for p in own.slice(float(z)).to_polygons()
        ]
        if rings:
            cv2.fillPoly(image, rings, 1, shift=4)
        planes.append(image)
    inside = np.pad(np.array(planes, bool), ((4, 4), (0, 0), (0, 0)))
    depth = _away(inside, sampling=step)
    core = depth >= s.wall_mm / 2
    reached = _away(~core, sampling=step) <= s.wall_mm / 2
    return float((inside & ~reached).sum() / inside.sum())


def _away(mask: NDArray[np.bool_], sampling: float) -> NDArray[np.float64]:
    """Distance of each true voxel from the nearest false one, mm."""
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=sampling))


def _opened(mask: NDArray[np.bool_], iterations: int) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_opening(mask, iterations=iterations), bool)
