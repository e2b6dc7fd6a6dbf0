"""Flags besides those of the spine, for a person to look at: cut anatomy, pieces, sides, bone, implants, vessels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import KDTree

from fluoronav.planning.anatomy import by_name, level_of, mirrored
from fluoronav.planning.measurements.mask import Float, StructureMask, labelled, nearest
from fluoronav.planning.measurements.spine_flags import flag
from fluoronav.planning.plan.schema import Flag, Measured


@dataclass(frozen=True, slots=True)
class FindingSettings:
    """When something is a finding."""

    second_piece: float = 0.02  # of a structure's voxels; chosen: smaller crumbs are noise of a network
    least_piece: int = 10  # voxels
    poor_hu: float = 110.0  # of trabecular bone at L1: more than 90 % specific for osteoporosis (Pickhardt 2013)
    low_hu: float = 135.0  # balanced threshold (Pickhardt 2013)
    metal_hu: float = 2500.0  # cortical bone ends at 2000; titanium and steel saturate at 3071
    least_metal_mm3: float = 30.0  # chosen: above clips of a few voxels and calcifications
    from_bone_mm: float = 5.0
    in_vessel: float = 0.1  # part of a bright piece that lies in a vessel's label: contrast agent, not metal; chosen
    near_vessel_mm: float = 4.0
    bovine_mm: float = 2.0  # from the left carotid to the brachiocephalic trunk, between voxels; chosen: two walls
    behind_mm: float = 10.0  # half width behind the oesophagus in which a right subclavian artery is a lusoria


SETTINGS = FindingSettings()


def cut_flags(masks: Mapping[str, StructureMask]) -> list[Flag]:
    """One flag for all bones that the volume cuts off: nothing is measured that needs the missing part."""
    cut = {n: m for n, m in masks.items() if m.at_edge and (_is_bone(n) or _is_lesion(n))}
    flat = {n: m for n, m in masks.items() if level_of(n) and n not in cut and m.flat_ends()}
    if not cut and not flat:
        return []
    said = [f"{n} ({', '.join(m.at_edge)})" for n, m in cut.items()]
    said += [f"{n} (the label ends flat: {', '.join(m.flat_ends())})" for n, m in flat.items()]
    middles = np.array([m.points_ct().mean(0) for m in (*cut.values(), *flat.values())])
    return [flag("truncated", "cut off: " + ", ".join(said), None, middles)]


def piece_flags(masks: Mapping[str, StructureMask]) -> list[Flag]:
    """Bones whose label is in two or more pieces."""
    out = []
    for name, mask in masks.items():
        if not _is_bone(name):
            continue
        pieces = mask.pieces()
        large = [n for n in pieces[1:] if n >= max(SETTINGS.second_piece * mask.voxels, SETTINGS.least_piece)]
        if large:
            rest = mask.inside & ~mask.largest_piece().inside
            shares = " and ".join(f"{100 * n / mask.voxels:.0f} %" for n in large)
            text = (
                f"the label of {name} is in {1 + len(large)} pieces, beside the largest {shares} of it: a fracture, a "
                "part of a neighbour, or an error?"
            )
            out.append(flag("pieces", text, name, mask.points_ct(rest).mean(0)[None]))
    return out


def swapped_pairs(masks: Mapping[str, StructureMask]) -> tuple[list[str], int]:
    """Left structures that lie to the right of their right counterpart, and the number of pairs."""
    swapped, pairs = [], 0
    for name, mask in masks.items():
        other = masks.get(mirrored(name)) if "left" in name else None
        if other is not None and other.name != name:
            pairs += 1
            if mask.points_ct()[:, 0].mean() <= other.points_ct()[:, 0].mean():
                swapped.append(name)
    return swapped, pairs


def density_flags(measured: list[Measured]) -> list[Flag]:
    """Poor bone, by the trabecular attenuation of L1 or of the measured vertebra nearest to it."""
    levels = ("L1", "T12", "L2", "T11", "L3", "T10", "L4", "L5")
    found = {m.structure: m for m in measured if m.unit == "HU"}
    for level in levels:
        m = found.get(f"vertebrae_{level}")
        if m is None:
            continue
        if m.value >= SETTINGS.low_hu:
            return []
        limit = SETTINGS.poor_hu if m.value < SETTINGS.poor_hu else SETTINGS.low_hu
        what = "osteoporosis is likely" if m.value < SETTINGS.poor_hu else "bone density is low"
        text = (
            f"trabecular bone of {level} has {m.value:.0f} HU, below {limit:g} (Pickhardt 2013, at 120 kV): {what}; "
            "screws may loosen"
        )
        return [flag("poor-bone", text, m.structure, np.array(m.points_ct))]
    return []


def implant_flags(masks: Mapping[str, StructureMask], ct: sitk.Image) -> list[Flag]:
    """Metal inside or near bone: how many pieces, and where."""
    bones = {n: m for n, m in masks.items() if _is_bone(n)}
    voxels = sitk.GetArrayViewFromImage(ct)
    pieces, count = labelled(voxels > SETTINGS.metal_hu, corners=True)
    if not bones or not count:
        return []
    sizes = np.bincount(pieces.ravel())
    voxel_mm3 = float(np.prod(ct.GetSpacing()))
    names = list(bones)
    surfaces = [bones[n].surface_ct()[::4] for n in names]
    owner = np.repeat(np.arange(len(names)), [len(s) for s in surfaces])
    bone_tree = KDTree(np.concatenate(surfaces))
    vessels = [m.points_ct() for n, m in masks.items() if n in by_name() and by_name()[n].kind == "vessel"]
    vessel_tree = KDTree(np.concatenate(vessels)) if vessels else None
    step = np.array(ct.GetDirection()).reshape(3, 3) * np.array(ct.GetSpacing())
    places, middles = [], []
    boxes = ndimage.find_objects(pieces)
    for k in np.flatnonzero(sizes * voxel_mm3 >= SETTINGS.least_metal_mm3):
        if k == 0:
            continue
        box = boxes[k - 1]
        index = np.argwhere(pieces[box] == k)[:, ::-1] + [box[a].start for a in (2, 1, 0)]
        points = (index @ step.T + np.array(ct.GetOrigin()))[:: max(len(index) // 500, 1)].astype(np.float64)
        away, at = nearest(bone_tree, points)
        if away.min() > SETTINGS.from_bone_mm or _in_vessel(points, vessel_tree):
            continue
        places.append(names[owner[at[int(np.argmin(away))]]])
        middles.append(points.mean(0))
    if not places:
        return []
    where = ", ".join(f"{places.count(n)} at {n}" for n in dict.fromkeys(places))
    text = (
        f"metal or dense contrast agent (above {SETTINGS.metal_hu:g} HU) in or near bone, {len(places)} in number: "
        f"{where}. Labels and measurements beside metal are uncertain"
    )
    return [flag("implants", text, None, np.array(middles))]


def _in_vessel(points: Float, tree: KDTree | None) -> bool:
    if tree is None:
        return False
    return float((nearest(tree, points)[0] < SETTINGS.near_vessel_mm).mean()) > SETTINGS.in_vessel


def vessel_flags(masks: Mapping[str, StructureMask]) -> list[Flag]:
    """Variants of vessels, as questions with the evidence to draw."""
    out = []
    carotid, trunk = masks.get("common_carotid_artery_left"), masks.get("brachiocephalic_trunk")
    if carotid is not None and trunk is not None:
        a, b = carotid.points_ct(), trunk.points_ct()
        away, at = nearest(KDTree(b), a)
        k = int(np.argmin(away))
        limit = max(SETTINGS.bovine_mm, float(np.median(trunk.spacing_mm)))
        if away[k] <= limit:
            text = f"left carotid {away[k]:.1f} mm from the brachiocephalic trunk: check for a bovine arch"
            out.append(flag("bovine-arch", text, carotid.name, np.stack([a[k], b[at[k]]])))
    subclavian, oesophagus = masks.get("subclavian_artery_right"), masks.get("esophagus")
    if subclavian is not None and oesophagus is not None:
        out += _lusoria(subclavian, oesophagus)
    return out


def _lusoria(subclavian: StructureMask, oesophagus: StructureMask) -> list[Flag]:
    """A right subclavian artery that passes behind the oesophagus."""
    gullet = oesophagus.points_ct()
    for point in subclavian.points_ct()[::5]:
        level = gullet[np.abs(gullet[:, 2] - point[2]) < 2.5]
        if len(level) and point[1] > level[:, 1].max() and abs(point[0] - level[:, 0].mean()) < SETTINGS.behind_mm:
            text = "the right subclavian artery lies behind the oesophagus: check for an aberrant artery (lusoria)"
            return [flag("lusoria", text, subclavian.name, np.stack([point, level.mean(0)]))]
    return []


def _is_bone(name: str) -> bool:
    known = by_name().get(name)
    return (known is not None and known.is_bone and name != "sternum") or name.startswith(("tibia", "fibula"))


def _is_lesion(name: str) -> bool:
    return name.startswith(("lesion", "tumor", "tumour", "nodule", "metastasis"))
