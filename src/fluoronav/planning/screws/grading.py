"""The grade of a screw by the voxels of the mask itself, whoever placed the screw.

Gertzbein and Robbins, Spine 15 (1990): A no breach of the pedicle's wall, B less than 2 mm, C less than 4, D less than
6, E 6 mm and more. Nothing here uses the distance field that screws are proposed with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluoronav.geometry import frame_along
from fluoronav.planning.plan.schema import Grade, Side
from fluoronav.planning.screws.pedicle import Pedicle, begins_mm
from fluoronav.planning.screws.vertebra import Vertebra

Float = NDArray[np.float64]

_STEP_MM = 0.75  # between samples along the screw; chosen: below the spacing of all but the finest masks
_AROUND = 24  # samples around the screw; chosen: 0.9 mm apart on the thickest
_BOUNDS_MM: tuple[tuple[float, Grade], ...] = ((2.0, "B"), (4.0, "C"), (6.0, "D"))
_PEDICLE_MM = 12.0  # from the middle of a pedicle's section; half the tallest pedicle and a screw's radius
_NO_BREACH_MM = 0.01  # chosen: rounding of a file's coordinates


@dataclass(frozen=True)
class Grading:
    """How a screw lies in its pedicle.

    Attributes
    ----------
    clearance_mm : float
        Smallest distance from the screw's surface to the bone's, from the pedicle's beginning to the tip; negative
        outside the bone.
    breach_mm : float
        How far the screw's surface lies outside the bone, there or in the spinal canal.
    grade : Grade
    in_canal_mm : float
        How far it reaches into the spinal canal; 0 where it does not.
    through_pedicle : bool
        Its axis passes the pedicle's narrowest section within 12 mm, on its side; otherwise the grade is E.
    """

    clearance_mm: float
    breach_mm: float
    grade: Grade
    in_canal_mm: float
    through_pedicle: bool


def grade_of(breach_mm: float) -> Grade:
    """Gertzbein and Robbins' grade of a breach."""
    if breach_mm <= _NO_BREACH_MM:
        return "A"
    for bound, grade in _BOUNDS_MM:
        if breach_mm < bound:
            return grade
    return "E"


def graded(entry_ct: ArrayLike, tip_ct: ArrayLike, diameter_mm: float, side: Side, vertebra: Vertebra) -> Grading:
    """Grades a screw. Takes milliseconds once the vertebra has been read, so that it can follow a hand.

    Parameters
    ----------
    entry_ct, tip_ct : array_like, shape (3,)
        Ends of its axis, LPS mm.
    diameter_mm : float
    side : Side
    vertebra : Vertebra
        By :func:`fluoronav.planning.screws.vertebra.read_vertebra`; keep it while a screw is moved.

    Raises
    ------
    ValueError
        Entry and tip are the same point.
    """
    entry, tip = np.asarray(entry_ct, np.float64), np.asarray(tip_ct, np.float64)
    length = float(np.linalg.norm(tip - entry))
    if not length > 0.1:
        raise ValueError(f"{vertebra.level} {side}: entry and tip are the same point")
    canal, pedicle = vertebra.canal, vertebra.pedicles.get(side)
    points_ct = surface_ct(entry, tip, diameter_mm / 2)
    local = canal.from_ct(points_ct)
    in_canal = canal.distance_mm(local) < 0
    # Behind the pedicle a screw crosses the cortex by design; only the canal counts there.
    counted = (local[:, 1] >= begins_mm(canal)) | in_canal
    outside = np.full(len(points_ct), -np.inf)
    outside[counted] = vertebra.surfaces.outside_mm(points_ct[counted])
    breach = max(float(outside.max()), 0.0)
    clearance = -float(outside.max()) if counted.any() else 0.0
    in_canal_mm = max(float(outside[in_canal].max()), 0.0) if in_canal.any() else 0.0
    through = pedicle is not None and _crosses(canal.from_ct(np.stack([entry, tip])), pedicle)
    if pedicle is not None and not through:
        off = _from_axis(canal.to_ct(pedicle.isthmus[None])[0], entry, tip)
        breach, clearance = max(breach, off), min(clearance, -off)
    return Grading(clearance, breach, grade_of(breach) if through else "E", in_canal_mm, through)


def surface_ct(entry: Float, tip: Float, radius: float) -> Float:
    """Points on a screw's surface, LPS mm, shape (n, 3): a cylinder with a round tip that ends at `tip`."""
    length = float(np.linalg.norm(tip - entry))
    T = frame_along(entry, tip - entry)
    along = np.linspace(0, length, max(int(np.ceil(length / _STEP_MM)), 1) + 1)
    # The tip is a half ball: threads end before it.
    wide = np.sqrt(np.maximum(radius**2 - np.maximum(along - (length - radius), 0) ** 2, 0))
    angle = np.arange(_AROUND) * 2 * np.pi / _AROUND
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    local = np.empty((len(along), _AROUND, 3))
    local[:, :, :2] = wide[:, None, None] * ring
    local[:, :, 2] = along[:, None]
    return local.reshape(-1, 3) @ T[:3, :3].T + T[:3, 3]


def _crosses(ends: Float, pedicle: Pedicle) -> bool:
    """Whether an axis goes from behind the narrowest section through it, or through its reach."""
    entry, tip = ends
    isthmus = pedicle.isthmus
    if not entry[1] < isthmus[1] < tip[1]:
        return False
    at = entry + (tip - entry) * (isthmus[1] - entry[1]) / (tip[1] - entry[1])
    # A screw that lies in part in its pedicle goes through it, however deep its breach.
    return bool(at[0] * isthmus[0] > 0) and float(np.linalg.norm(at - isthmus)) < _PEDICLE_MM


def _from_axis(point: Float, entry: Float, tip: Float) -> float:
    along = np.clip((point - entry) @ (tip - entry) / ((tip - entry) @ (tip - entry)), 0, 1)
    return float(np.linalg.norm(point - entry - along * (tip - entry)))
