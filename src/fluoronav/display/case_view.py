"""A case as a display shows it in space: surfaces to look at, and a CT to cut through.

The display reads the case itself: what is half a minute of pictures' worth of bytes has no business on the pipeline's
sockets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case, NoGo
from fluoronav.case.surface import surface
from fluoronav.display.packing import with_head
from fluoronav.geometry import Camera

Float = NDArray[np.float64]

# The CT in 8 bits: from here, in steps that no eye tells apart on a guidance screen.
LOWEST_HU, HIGHEST_HU = -400.0, 1400.0
# So that a small computer's GPU takes it, and a network in a second.
_MOST_VOXELS, _FINEST_MM = 6e6, 0.8


def camera_head(camera: Camera) -> dict[str, Any]:
    """What the page must know of the C-arm's camera."""
    return {"focal_px": camera.focal_px, "K": camera.K.tolist(), "rows": camera.rows, "cols": camera.cols}


def surfaces(case: Case) -> bytes:
    """Every structure and every region that no instrument may enter, as triangles.

    Returns
    -------
    bytes
        Head: ``case``, and for each of ``surfaces`` its ``name``, ``color``, ``no_go``, ``points`` and ``triangles``
        (counts). Then one after the other: points (float32, LPS mm) and triangles (uint32), outwards.
    """
    heads, parts = [], []
    for thing in (*case.structures, *case.file.no_go):
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
        Head: ``case``, ``size`` (x, y, z), ``origin_ct``, ``spacing_mm``, ``low_hu``, ``high_hu`` (of 0 and 255). Then
        the voxels, x fastest, one byte each.
    """
    corners = case.ct.corners_ct()
    low, extent = corners.min(0), np.ptp(corners, axis=0)
    spacing = max(
        float(min(case.ct.image.GetSpacing())), _FINEST_MM, float((np.prod(extent) / _MOST_VOXELS) ** (1 / 3))
    )
    size = np.ceil(extent / spacing).astype(int) + 1
    hu = case.ct.resampled(low, tuple(size.tolist()), spacing, LOWEST_HU)
    shown = np.clip((hu - LOWEST_HU) * (255 / (HIGHEST_HU - LOWEST_HU)), 0, 255)
    head = {
        "case": case.id, "size": size.tolist(), "origin_ct": low.tolist(), "spacing_mm": spacing, "low_hu": LOWEST_HU,
        "high_hu": HIGHEST_HU,
    }  # fmt: skip
    return with_head(head, np.rint(shown).astype(np.uint8).tobytes())


def case_head(case: Case) -> dict[str, Any]:
    """Name, plan and tools, for the page."""
    return {
        "case": case.id,
        "name": case.file.name,
        "target_ct": case.target_ct.tolist(),
        "plan": [t.model_dump() for t in case.plan],
        "tools": [t.model_dump() for t in case.tools],
    }
