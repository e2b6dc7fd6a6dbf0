"""Whether a label map lies in its CT, and its bones in bone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.file import CaseFile
from fluoronav.case.plausible import LIMITS, dense_at, voxel_index
from fluoronav.case.schema import CaseError
from fluoronav.case.volume import Volume, bounds

Float = NDArray[np.float64]
Box = tuple[NDArray[np.int64], NDArray[np.int64]]

# Beginnings of the names of bones, for structures that the case does not name under `rigid` or `objects`.
_BONES = (
    "vertebra", "rib_", "sacrum", "hip", "femur", "tibia", "fibula", "patella", "humerus", "radius", "ulna", "scapula",
    "clavicula", "sternum", "skull", "pelvis", "bone",
)  # fmt: skip
_SIDES = ("left and right", "front and back", "head and feet")
_WAYS = (("left", "right"), ("back", "front"), ("head", "feet"))
# Translations at which the label map is compared with the CT, LPS mm; the first is none.
_MOVES = np.array(
    [np.zeros(3), *(way * mm * np.eye(3)[axis] for axis in range(3) for mm in (5, 10, 20) for way in (1, -1))]
)


def is_named_as_bone(name: str) -> bool:
    """Whether a structure's name is that of a bone."""
    return name.lower().startswith(_BONES)


def check_labels(ct: Volume, labels: Volume, aligned: sitk.Image, file: CaseFile, path: Path) -> list[str]:
    """Whether the label map lies in the CT, and its bones in bone.

    Parameters
    ----------
    ct, labels : Volume
    aligned : SimpleITK.Image
        The label map along the patient axes.
    file : CaseFile
    path : Path
        The case file, for messages.

    Returns
    -------
    list of str
        What is unusual.

    Raises
    ------
    CaseError
        Labels outside the CT, bones that are not in bone, or that would be if the map were mirrored.
    """
    moving = {s for body in (file.rigid, *file.objects) if body for s in body.structures}
    inner = sitk.GetArrayViewFromImage(aligned)
    warnings, bones = [], []
    for s in file.structures:
        box = bounds(inner == s.label)
        if box is None:
            raise CaseError(f"{path}: structures: {s.name}: label {s.label} is not in {file.labels}")
        inside, hu = _in_ct(ct, _points_ct(aligned, inner, s.label, box))
        is_bone = s.name in moving or is_named_as_bone(s.name)
        least = LIMITS.bone_inside if s.name in moving else LIMITS.least_inside
        if inside < least:
            raise CaseError(
                f"{labels.path}: {s.name} (label {s.label}) lies {_percent(inside)} inside {ct.path.name}; at least "
                f"{100 * least:.0f} % must: is the label map of this patient, of this scan, and at its place? "
                + ("Cut it to the CT if it only reaches beyond it" if inside > 0 else "")
            )
        if inside < LIMITS.bone_inside:
            warnings.append(f"{labels.path}: {s.name} lies only {_percent(inside)} inside {ct.path.name}")
        if s.caution_mm is not None and not is_bone:
            warnings += _unusual_values(f"{labels.path}: {s.name}", hu)
        if is_bone:
            bones.append((s.name, s.label, box))
    if bones:
        warnings += _check_bones(ct, labels, aligned, bones)
    return warnings


def _unusual_values(where: str, hu: Float) -> list[str]:
    """What is unusual about the values of a soft structure."""
    low, high = np.percentile(hu, (10, 90))
    if hu.mean() < LIMITS.in_air_hu:
        return [f"{where} lies in air ({hu.mean():.0f} HU on the mean): right only for lung, airways or gut"]
    if high - low > LIMITS.most_spread_hu:
        return [
            f"{where} goes from {low:.0f} to {high:.0f} HU, which one organ hardly does: does it lie where it should?"
        ]
    return []


def _points_ct(aligned: sitk.Image, voxels: NDArray, label: int, box: Box, most: int = 20_000) -> Float:
    """Centres of the label's voxels, evenly sampled, LPS mm, shape (n, 3)."""
    low, high = box
    cut = voxels[tuple(slice(low[a], high[a] + 1) for a in (2, 1, 0))]
    found = np.flatnonzero(cut == label)
    found = found[:: max(len(found) // most, 1)]
    index = np.stack(np.unravel_index(found, cut.shape)[::-1], axis=1) + low
    # The map lies along the patient axes: its direction is the unit matrix.
    return np.asarray(index * np.array(aligned.GetSpacing()) + np.array(aligned.GetOrigin()), np.float64)


def _in_ct(ct: Volume, points_ct: Float) -> tuple[float, Float]:
    """Fraction of the points inside the CT, and the HU of those."""
    index = voxel_index(ct, points_ct)
    size = np.array(ct.image.GetSize())
    inside = ((index > -0.5) & (index < size - 0.5)).all(1)
    if not inside.any():
        return 0.0, np.zeros(0)
    at = np.rint(index[inside]).astype(int)
    return float(inside.mean()), ct.voxels[at[:, 2], at[:, 1], at[:, 0]].astype(np.float64)


def _check_bones(ct: Volume, labels: Volume, aligned: sitk.Image, bones: list[tuple[str, int, Box]]) -> list[str]:
    """Raises where bones are not in bone, or would be if the map lay elsewhere or were mirrored."""
    counts = np.zeros((len(_MOVES) + 3, 4))
    warnings, checked = [], False
    for name, label, box in bones:
        own = _bone_counts(ct, aligned, label, box)
        if own[0, 0] * LIMITS.shell_step_mm**3 < LIMITS.least_bone_mm3:
            continue
        checked = True
        if _contrast(own[0]) < LIMITS.low_contrast:
            warnings.append(
                f"{labels.path}: {name} (label {label}) does not stand out as bone: {_dense(own[0])}; does it lie "
                "where it should?"
            )
        counts += own
    if not checked:
        return warnings
    contrasts = np.array([_contrast(c) for c in counts])
    placed, best = contrasts[0], int(contrasts.argmax())
    if contrasts[best] > placed + LIMITS.better_elsewhere:
        if best < len(_MOVES):
            axis, way = np.abs(_MOVES[best]).argmax(), _MOVES[best].sum()
            how = f"{abs(way):.0f} mm farther to the {_WAYS[axis][int(way < 0)]}"
            cause = "is the label map of this scan, and at its place?"
        else:
            how, cause = f"with {_SIDES[best - len(_MOVES)]} exchanged", "is the label map mirrored?"
        raise CaseError(
            f"{labels.path}: its bones fit {ct.path.name} better {how} ({_dense(counts[0])}; there: "
            f"{_dense(counts[best])}): {cause}"
        )
    if placed < LIMITS.least_contrast:
        raise CaseError(
            f"{labels.path}: its bones ({', '.join(b[0] for b in bones[:5])}) do not lie in bone: {_dense(counts[0])}; "
            "is the label map of this patient and of this scan?"
        )
    return warnings


def _bone_counts(ct: Volume, aligned: sitk.Image, label: int, box: Box) -> Float:
    """Numbers of points in a label and in the shell around it, and of dense ones among them.

    Returns
    -------
    ndarray, shape (n, 4)
        Columns: in the label, dense in the label, in the shell, dense in the shell. Rows: at each of `_MOVES`, then
        with the map mirrored along x, y and z.
    """
    step = LIMITS.shell_step_mm
    spacing, origin = np.array(aligned.GetSpacing()), np.array(aligned.GetOrigin())
    reach = np.ceil(LIMITS.shell_mm[1] / step) + 1
    low = origin + box[0] * spacing - reach * step
    size = (np.ceil((box[1] - box[0]) * spacing / step) + 2 * reach + 1).astype(int)
    grid = sitk.Image([int(n) for n in size], sitk.sitkUInt8)
    grid.SetOrigin(low.tolist())
    grid.SetSpacing([step] * 3)
    mask = sitk.Resample(aligned, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0) == label
    distance = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(mask, False, False, True))
    centre = origin + (np.array(aligned.GetSize()) - 1) / 2 * spacing
    parts = []
    for part in (distance <= 0, (distance > LIMITS.shell_mm[0]) & (distance < LIMITS.shell_mm[1])):
        points = low + np.argwhere(part)[:, ::-1] * step
        parts.append((points[:: max(len(points) // LIMITS.bone_points, 1)], len(points)))
    out = []
    for variant in range(len(_MOVES) + 3):
        counts = []
        for points, count in parts:
            if variant < len(_MOVES):
                there = points + _MOVES[variant]
            else:
                there = points.copy()
                there[:, variant - len(_MOVES)] = 2 * centre[variant - len(_MOVES)] - points[:, variant - len(_MOVES)]
            inside, dense = dense_at(ct, there)
            counts += [inside * count, dense * count]
        out.append(counts)
    return np.array(out)


def _contrast(counts: Float) -> float:
    """Fraction of dense points in the labels minus that in the shell; 0 where too few lie in the CT."""
    inside, dense, shell, shell_dense = counts
    return 0.0 if min(inside, shell) < 20 else float(dense / inside - shell_dense / shell)


def _dense(counts: Float) -> str:
    inside, dense, shell, shell_dense = np.maximum(counts, 1e-9)
    return (
        f"{100 * dense / inside:.0f} % of it is above {LIMITS.bone_hu:g} HU, {100 * shell_dense / shell:.0f} % of what "
        "is around it"
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %" if fraction in (0, 1) or fraction > 0.01 else f"{100 * fraction:.2f} %"
