"""A case for the 3D view: surfaces, and a CT for slices and the DRR.

The display reads the case itself, so that these megabytes do not pass through the pipeline's sockets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case, NoGo
from fluoronav.case.approved_plan import planned_views
from fluoronav.case.surface import surface
from fluoronav.display.packing import with_head
from fluoronav.geometry import Camera

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CtBoxSettings:
    """Range and size of the CT that the page gets; all are chosen."""

    low_hu: float = -400.0  # value 0 of the 8 bits
    high_hu: float = 1400.0  # value 255: steps of 7 HU are not visible
    max_voxels: float = 6e6  # for a small GPU, and a second of network
    finest_mm: float = 0.8


SETTINGS = CtBoxSettings()


def camera_head(camera: Camera) -> dict[str, Any]:
    """The C-arm's camera for the page."""
    return {"focal_px": camera.focal_px, "K": camera.K.tolist(), "rows": camera.rows, "cols": camera.cols}


def surfaces(case: Case) -> bytes:
    """The surfaces of structures that are drawn, and of no-go regions.

    Returns
    -------
    bytes
        Head: ``case``, and for each of ``surfaces`` its ``name``, ``color``, ``no_go``, ``points`` and ``triangles``
        (counts). Then for each surface its points (float32, LPS mm) and triangles (uint32), oriented outwards.
    """
    heads, parts = [], []
    for thing in (*(s for s in case.structures if s.drawn), *case.file.no_go):
        points, triangles = surface(thing)
        heads.append(
            {
                "name": thing.name, "color": thing.color, "no_go": isinstance(thing, NoGo), "points": len(points),
                "triangles": len(triangles),
            }
        )  # fmt: skip
        parts += [points.astype("<f4").tobytes(), triangles.astype("<u4").tobytes()]
    return with_head({"case": case.id, "surfaces": heads}, b"".join(parts))


def ct_box(case: Case) -> bytes:
    """The CT on a grid along the patient's axes.

    Returns
    -------
    bytes
        Head: ``case``, ``size`` (x, y, z), ``origin_ct``, ``spacing_mm``, ``low_hu``, ``high_hu`` (values 0 and 255).
        Then the voxels, x fastest, one byte each.
    """
    corners = case.ct.corners_ct()
    low, extent = corners.min(0), np.ptp(corners, axis=0)
    by_size_mm = float((np.prod(extent) / SETTINGS.max_voxels) ** (1 / 3))
    spacing = max(float(min(case.ct.image.GetSpacing())), SETTINGS.finest_mm, by_size_mm)
    size = np.ceil(extent / spacing).astype(int) + 1
    hu = case.ct.resampled(low, tuple(size.tolist()), spacing, SETTINGS.low_hu)
    per_hu = 255 / (SETTINGS.high_hu - SETTINGS.low_hu)
    shown = np.clip((hu - SETTINGS.low_hu) * per_hu, 0, 255)
    head = {
        "case": case.id, "size": size.tolist(), "origin_ct": low.tolist(), "spacing_mm": spacing,
        "low_hu": SETTINGS.low_hu, "high_hu": SETTINGS.high_hu,
    }  # fmt: skip
    return with_head(head, np.rint(shown).astype(np.uint8).tobytes())


# Directions of the patient, and what the outermost point of a vertebra in them is called.
_OUTERMOST = (
    ((0, 1, 0), "tip of the spinous process", "furthest back"),
    ((1, 0, 0), "left transverse process", "furthest left"),
    ((-1, 0, 0), "right transverse process", "furthest right"),
)


def landmarks(case: Case) -> list[dict[str, Any]]:
    """Points of bone by which a person checks a registration, those nearest to the target first.

    Bones are the structures without warning distances. Of each, the outermost points to the back and to both sides are
    taken.

    Returns
    -------
    list of dict
        ``name``, ``point_ct`` (LPS mm).
    """
    found = []
    for bone in (s for s in case.structures if s.caution_mm is None and s.danger_mm is None):
        points, _ = surface(bone)
        if not len(points):
            continue
        vertebra = re.fullmatch(r"vertebrae_([CTLS]\d{1,2})", bone.name)
        name = vertebra[1] if vertebra else bone.name.replace("_", " ")
        for way, of_vertebra, of_bone in _OUTERMOST:
            point = points[int(np.argmax(points @ np.array(way)))]
            what = of_vertebra if vertebra else of_bone
            found.append({"name": f"{name}, {what}", "point_ct": point.astype(float).tolist()})
    return sorted(found, key=lambda one: float(np.linalg.norm(np.subtract(one["point_ct"], case.target_ct))))


def case_head(case: Case) -> dict[str, Any]:
    """Name, plan with its views, tools and landmarks, for the page."""
    approved = case.file.approved_plan
    return {
        "case": case.id,
        "name": case.file.name,
        "target_ct": case.target_ct.tolist(),
        "plan": [t.model_dump() for t in case.plan],
        "views": planned_views(approved, case.path) if approved is not None else [],
        "tools": [t.model_dump() for t in case.tools],
        "landmarks": landmarks(case),
    }
