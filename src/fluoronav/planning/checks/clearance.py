"""Distances of screws to structures and to one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.file import CaseFile
from fluoronav.planning.anatomy import by_name
from fluoronav.planning.screws.grading import surface_ct
from fluoronav.planning.screws.surfaces import Surfaces
from fluoronav.planning.segmentation.engine import SegmentedStructure

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClearanceSettings:
    """How near a screw may come where the case does not say it."""

    nerve_caution_mm: float = 2.5  # those of the embedded case's spinal cord
    nerve_danger_mm: float = 1.0
    vessel_caution_mm: float = 6.0  # those of the embedded case's aorta
    vessel_danger_mm: float = 3.0
    reach_mm: float = 15.0  # around a screw that is looked at; chosen: more than any threshold


SETTINGS = ClearanceSettings()


@dataclass(frozen=True)
class Neighbour:
    """A structure that instruments must keep away from.

    Attributes
    ----------
    name : str
    label : int
    caution_mm, danger_mm : float
    is_approved : bool
        A person has approved its segmentation.
    """

    name: str
    label: int
    caution_mm: float
    danger_mm: float
    is_approved: bool


def neighbours_of(
    file: CaseFile, segmented: tuple[SegmentedStructure, ...] | None, s: ClearanceSettings = SETTINGS
) -> tuple[Neighbour, ...]:
    """The nerves and vessels of a case, and whatever it has thresholds for.

    Parameters
    ----------
    file : CaseFile
    segmented : tuple of SegmentedStructure or None
        Of the newest revision of the segmentation. Without revisions, what the case has thresholds for is taken as
        approved: a person wrote them.
    """
    approved = None if segmented is None else {x.name for x in segmented if x.state == "approved"}
    out = []
    for entry in file.structures:
        known = by_name().get(entry.name)
        kind = known.kind if known else None
        if entry.caution_mm is None and kind not in ("nerve", "vessel"):
            continue
        nerve = kind == "nerve"
        caution = entry.caution_mm or (s.nerve_caution_mm if nerve else s.vessel_caution_mm)
        danger = entry.danger_mm or (s.nerve_danger_mm if nerve else s.vessel_danger_mm)
        sure = entry.caution_mm is not None if approved is None else entry.name in approved
        out.append(Neighbour(entry.name, entry.label, caution, danger, sure))
    return tuple(out)


def clearances(
    labels: sitk.Image, neighbours: tuple[Neighbour, ...], entry_ct: Float, tip_ct: Float, diameter_mm: float
) -> Iterator[tuple[Neighbour, float]]:
    """Distance of a screw's surface to each structure that is near it, mm; negative where it enters one."""
    points = surface_ct(entry_ct, tip_ct, diameter_mm / 2)
    step = np.array(labels.GetDirection()).reshape(3, 3) * np.array(labels.GetSpacing())
    origin = np.array(labels.GetOrigin())
    index = (points - origin) @ np.linalg.inv(step).T
    reach = SETTINGS.reach_mm / np.array(labels.GetSpacing())
    size = np.array(labels.GetSize())
    low = np.clip(np.floor(index.min(0) - reach).astype(int), 0, size)
    high = np.clip(np.ceil(index.max(0) + reach).astype(int) + 1, 0, size)
    if not (high > low).all():
        return
    near = sitk.GetArrayViewFromImage(labels)[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    for neighbour in neighbours:
        mask = near == neighbour.label
        if mask.any():
            surfaces = Surfaces.of(np.pad(mask, 1), origin + step @ (low - 1.0), step)
            yield neighbour, float(surfaces.outside_mm(points).min())


def segment_distance_mm(a0: Float, a1: Float, b0: Float, b1: Float) -> float:
    """Smallest distance of two segments, mm.

    By Ericson, Real-Time Collision Detection (2005), section 5.1.9.
    """
    u, v, w = a1 - a0, b1 - b0, a0 - b0
    a, e, f = float(u @ u), float(v @ v), float(v @ w)
    b, c = float(u @ v), float(u @ w)
    area = a * e - b * b
    s = float(np.clip((b * f - c * e) / area, 0, 1)) if area > 1e-9 * a * e else 0.0
    t = (b * s + f) / e
    if not 0 <= t <= 1:
        t = min(max(t, 0.0), 1.0)
        s = float(np.clip((b * t - c) / a, 0, 1))
    return float(np.linalg.norm(w + s * u - t * v))
