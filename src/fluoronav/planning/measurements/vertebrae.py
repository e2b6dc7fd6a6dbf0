"""Measures all vertebrae of a label map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import SimpleITK as sitk

from fluoronav.planning.anatomy import level_of
from fluoronav.planning.measurements.bone_density import trabecular_hu
from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.mask import Float, StructureMask, spread
from fluoronav.planning.measurements.pedicle import Pedicle, pedicle_of
from fluoronav.planning.measurements.results import Progress, Results
from fluoronav.planning.measurements.spine import (
    KYPHOSIS,
    LORDOSIS,
    ORDER,
    Endplates,
    SpineAngle,
    between_levels,
    extreme_cobb,
    part_of,
)
from fluoronav.planning.measurements.spine_flags import Vertebra
from fluoronav.planning.measurements.vertebra import Body, body_centre, body_of, body_voxels, canal_mm2, start_frame
from fluoronav.planning.plan.schema import Side

_HEIGHT = "between the ends of the body's columns in the midsagittal strip (after Genant 1993)"
_PEDICLE = "calipers of the smallest section across the axis that keeps deepest in bone (after Zindrick 1987)"
_ANGLE = "between robust planes of the endplates, in the patient's {} plane ({})"
# Voxels across a pedicle must be finer; chosen: narrow ones have 4 mm.
_COARSEST_PEDICLE_MM = 2.0
_SIDES: tuple[Side, ...] = ("left", "right")


def measure_vertebrae(
    masks: Mapping[str, StructureMask], ct: sitk.Image | None, cobb: Sequence[tuple[str, str]], results: Results,
    progress: Progress,
) -> dict[str, Vertebra]:  # fmt: skip
    """Heights, endplates, pedicles and angles; returns what is known of each level, for the flags.

    Parameters
    ----------
    masks : mapping of str to StructureMask
        All structures by name.
    ct : SimpleITK.Image, optional
        HU, for the attenuation of trabecular bone.
    cobb : sequence of (str, str)
        Levels, upper first, between which angles are wanted besides the largest.
    results : Results
    progress : callable
    """
    by_level = {level: m for n, m in masks.items() if (level := level_of(n)) in ORDER and level is not None}
    found: dict[str, Vertebra] = {}
    for level in [x for x in ORDER if x in by_level and x != "S1"]:
        mask = by_level[level].largest_piece()
        with results.refusing("heights", mask.name):
            found[level] = Vertebra(mask, body_centre(mask), not mask.flat_ends() and "head" not in mask.at_edge)
    endplates: dict[str, Endplates] = {}
    levels = [x for x in ORDER if x in found]
    for k, level in enumerate(levels):
        progress(f"measuring {level}", k / len(levels))
        with results.refusing("heights", found[level].mask.name):
            found[level], endplates[level] = _measured(level, found, levels, ct, results)
    _angles(endplates, cobb, results)
    return found


def _measured(
    level: str, found: Mapping[str, Vertebra], levels: Sequence[str], ct: sitk.Image | None, results: Results
) -> tuple[Vertebra, Endplates]:
    mask = found[level].mask
    if level in ("C1", "C2"):
        raise Refused(f"{level} has no body between two endplates; it is not measured")
    if cut := mask.flat_ends():
        raise Refused(f"{mask.name}: is cut off towards the {' and the '.join(cut)}; the whole vertebra is needed")
    start = start_frame(mask, _axis(level, found, levels))
    field = mask.level()
    body = body_of(mask, field, start)
    inside = body_voxels(mask, body)
    _check_in_volume(mask, inside)

    def again(moved: Float) -> Float:
        return body_of(mask, moved, body.frame, 1).numbers()

    sd = spread(mask, again)
    for k, name in enumerate(body.heights):
        results.add(f"height_{name}", mask.name, body.heights[name], "mm", sd[k], _HEIGHT, body.edges_ct[name])
    volume = float(np.count_nonzero(inside)) * mask.voxel_mm3 / 1000
    results.add(
        "body_volume", mask.name, volume, "cm3", None, "voxels in front of the posterior wall, on the body's outline"
    )
    if ct is not None:
        with results.refusing("trabecular_hu", mask.name):
            mean, error, middle = trabecular_hu(mask, inside, ct)
            method = "mean of the body's core, 5 mm within its surface (after Pickhardt 2013)"
            results.add("trabecular_hu", mask.name, mean, "HU", error, method, middle[None])
    _pedicles(level, mask, field, body, results)
    whole = Vertebra(mask, found[level].centre_ct, True, body, canal_mm2(mask, body.frame))
    return whole, Endplates(level, body.top, body.bottom, sd[3:])


def _axis(level: str, found: Mapping[str, Vertebra], levels: Sequence[str]) -> Float:
    """Towards the head, between the neighbours' middles; the patient's axis without neighbours."""
    at = ORDER.index(level)
    near = [x for x in levels if abs(ORDER.index(x) - at) <= 2]
    if len(near) < 2:
        return np.array([0.0, 0.0, 1.0])
    axis = found[near[0]].centre_ct - found[near[-1]].centre_ct
    if axis[2] <= 0.3 * np.linalg.norm(axis):
        raise Refused(
            f"{found[level].mask.name}: its neighbours do not lie above and below it; are the labels in order?"
        )
    return axis


def _check_in_volume(mask: StructureMask, inside: np.ndarray) -> None:
    """Raises where the body itself reaches the edge of the volume."""
    if not mask.at_edge:
        return
    body, whole = mask.points_ct(inside), mask.points_ct()
    ways = {"head": (2, 1), "feet": (2, -1), "left": (0, 1), "right": (0, -1), "back": (1, 1), "front": (1, -1)}
    for way in mask.at_edge:
        axis, sign = ways[way]
        if (sign * whole[:, axis]).max() - (sign * body[:, axis]).max() < 2 * mask.spacing_mm.max():
            raise Refused(f"{mask.name}: its body is cut off by the edge of the volume towards the {way}")


def _pedicles(level: str, mask: StructureMask, field: Float, body: Body, results: Results) -> None:
    for side in _SIDES:
        with results.refusing(f"pedicle_{side}", mask.name):
            if level.startswith("C"):
                raise Refused(f"{level}: pedicles of the neck border on the vertebral artery and are not measured")
            if mask.spacing_mm.max() > _COARSEST_PEDICLE_MM * 1.5 or np.median(mask.spacing_mm) > _COARSEST_PEDICLE_MM:
                raise Refused(
                    f"voxels of {mask.spacing_mm.max():.1f} mm are too coarse for a pedicle; at most "
                    f"{_COARSEST_PEDICLE_MM:g} mm in the slice"
                )
            pedicle = pedicle_of(mask, field, body, side)

            def again(moved: Float, side: Side = side, pedicle: Pedicle = pedicle) -> Float:
                other = pedicle_of(mask, moved, body, side, pedicle)
                return np.array([other.width_mm, other.height_mm])

            sd = spread(mask, again)
            results.add(f"pedicle_{side}_width", mask.name, pedicle.width_mm, "mm", sd[0], _PEDICLE, pedicle.width_ct)
            results.add(
                f"pedicle_{side}_height", mask.name, pedicle.height_mm, "mm", sd[1], _PEDICLE, pedicle.height_ct
            )


def _angles(endplates: Mapping[str, Endplates], cobb: Sequence[tuple[str, str]], results: Results) -> None:
    if len(endplates) < 2 and not cobb:
        return
    with results.refusing("cobb_largest", "spine"):
        _add(
            results,
            "cobb_largest",
            extreme_cobb(endplates),
            "coronal",
            "Cobb 1948; the two levels that make it largest",
        )
    for name, ends, sign in (("kyphosis", KYPHOSIS, 1), ("lordosis", LORDOSIS, -1)):
        with results.refusing(name, "spine"):
            upper, lower = part_of(endplates, ends, 3)
            _add(results, name, between_levels(endplates, upper, lower, 1), "sagittal", "Cobb's method", sign)
    for upper, lower in cobb:
        for plane, name in enumerate(("coronal", "sagittal")):
            with results.refusing(f"cobb_{name}", f"{upper}-{lower}"):
                said = "Cobb 1948" if plane == 0 else "Cobb's method; positive for kyphosis"
                _add(results, f"cobb_{name}", between_levels(endplates, upper, lower, plane), name, said)


def _add(results: Results, name: str, angle: SpineAngle, plane: str, said: str, sign: int = 1) -> None:
    structure = f"{angle.upper}-{angle.lower}"
    results.add(name, structure, sign * angle.degrees, "deg", angle.sigma, _ANGLE.format(plane, said), angle.points_ct)
