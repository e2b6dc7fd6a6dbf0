"""Whether the parts of a case can belong together: a CT in HU of a patient's size, labels in it, bone in bone.

A file may be right in itself and still be of another patient, in another unit, or mirrored. What would put something
at a wrong place is refused; what is only unusual is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.file import CaseFile
from fluoronav.case.schema import CaseError
from fluoronav.case.volume import Volume, bounds

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """What a patient's case is judged by. HU as in C.11.1 of DICOM PS3.3: air -1000, water 0.

    The shares of bone were measured on 70 bones of four real CTs (3 mm and 0.7 mm voxels, one osteoporotic, one with
    metal): in place 0.30 to 0.80, mirrored or moved by 10 mm mostly below 0.25.
    """

    # A CT that is navigated on: a voxel in the plane, and the longest side.
    finest_mm: float = 0.1
    least_extent_mm: float = 40.0
    most_extent_mm: float = 2500.0
    # Values are looked at in about so many voxels, evenly taken.
    looked_at: int = 300_000
    # Below this no X-rays are held back that a registration could see.
    all_air_hu: float = -700.0
    # Fat is about -100, lung -800, air -1000; stored values, MR and PET have nothing there.
    air_or_fat_hu: float = -60.0
    least_air_or_fat: float = 0.001
    # Below air there is padding of one value, not a range of values.
    lowest_hu: float = -1300.0
    most_below: float = 0.01
    soft_tissue_hu: float = 150.0
    least_soft_tissue: float = 0.01
    # Shares of a label's voxels inside the CT.
    bone_inside: float = 0.99
    least_inside: float = 0.5
    # Bone is what is denser than this; the share of it in a label less that in a shell around it.
    bone_hu: float = 150.0
    least_contrast: float = 0.10
    low_contrast: float = 0.22
    # A label map that fits better by this much elsewhere, or mirrored, is not where it belongs.
    better_elsewhere: float = 0.08
    # Smaller pieces of bone are not judged: what a scan cuts off at its end.
    least_bone_mm3: float = 1000.0
    # Of a bone that was cut out of the CT, in the CT's own bone.
    least_bone_in_bone: float = 0.6
    shell_mm: tuple[float, float] = (2.0, 6.0)
    shell_step_mm: float = 2.0
    bone_points: int = 4000
    # A watched structure with a lower mean lies in air.
    in_air_hu: float = -300.0
    # Tenth to ninetieth percentile: soft organs and vessels in place 40 to 300, cords 8 mm aside 350 to 510.
    most_spread_hu: float = 350.0
    # The plan and the prior, beyond the outermost voxels.
    target_outside_mm: float = 50.0
    entry_outside_mm: float = 200.0
    isocentre_outside_mm: float = 400.0
    no_go_outside_mm: float = 50.0
    marker_outside_mm: float = 1000.0
    short_path_mm: float = 10.0


LIMITS = Limits()
# How names of bones begin, for structures that the case does not name under `rigid` or `objects`.
_BONES = (
    "vertebra", "rib_", "sacrum", "hip", "femur", "tibia", "fibula", "patella", "humerus", "radius", "ulna", "scapula",
    "clavicula", "sternum", "skull", "pelvis", "bone",
)  # fmt: skip
_SIDES = ("left and right", "front and back", "head and feet")
_WAYS = (("left", "right"), ("back", "front"), ("head", "feet"))
# Where else a label map is tried, along x, y and z, mm. First, where it is.
_MOVES = np.array(
    [np.zeros(3), *(way * mm * np.eye(3)[axis] for axis in range(3) for mm in (5, 10, 20) for way in (1, -1))]
)


def check_size_of_patient(volume: Volume) -> None:
    """Raises :class:`CaseError` where a CT is too small or too large to be one of a patient in mm."""
    spacing = np.array(volume.image.GetSpacing())
    extent = spacing * np.array(volume.image.GetSize())
    if spacing.min() < LIMITS.finest_mm or not LIMITS.least_extent_mm <= extent.max() <= LIMITS.most_extent_mm:
        raise CaseError(
            f"{volume.path}: is {_by(extent)} mm in voxels of {_by(spacing)} mm, which no CT of a patient is: are its "
            "lengths in cm, m or inches? Write it in mm"
        )


def check_hounsfield(volume: Volume) -> list[str]:
    """Raises :class:`CaseError` where a CT's values are not HU; returns what is unusual about them."""
    path, values = volume.path, volume.sampled(LIMITS.looked_at)
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    if not high > LIMITS.all_air_hu:
        raise CaseError(
            f"{path}: is all air: no voxel is above {LIMITS.all_air_hu:g} HU (is the rescale intercept right?)"
        )
    kept = values[values > low]
    if (kept < LIMITS.lowest_hu).mean() > LIMITS.most_below:
        raise CaseError(
            f"{path}: {100 * (kept < LIMITS.lowest_hu).mean():.0f} % of it lies below {LIMITS.lowest_hu:g} HU, where "
            "nothing is: was the rescale applied twice? Export it again in HU"
        )
    air_or_fat = float(((values < LIMITS.air_or_fat_hu) & (values >= LIMITS.lowest_hu)).mean())
    if air_or_fat < LIMITS.least_air_or_fat:
        raise CaseError(
            f"{path}: its values from {low:g} to {high:g} are not HU: nothing in it is fat or air (below "
            f"{LIMITS.air_or_fat_hu:g} HU). Stored values without their rescale, MR and PET look like this: export "
            "the CT again in HU, or say `units: shifted` if it is HU + 1000"
        )
    soft = float((np.abs(values) < LIMITS.soft_tissue_hu).mean())
    if soft < LIMITS.least_soft_tissue:
        return [
            f"{path}: hardly anything in it ({100 * soft:.1f} %) has the HU of soft tissue, -150 to 150: is it in HU, "
            "and of a patient?"
        ]
    return []


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
        points = _points_ct(aligned, inner, s.label, box)
        inside, hu = _in_ct(ct, points)
        is_bone = s.name in moving or s.name.lower().startswith(_BONES)
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
            low, high = np.percentile(hu, (10, 90))
            if hu.mean() < LIMITS.in_air_hu:
                warnings.append(
                    f"{labels.path}: {s.name} lies in air ({hu.mean():.0f} HU on the mean): right only for lung, "
                    "airways or gut"
                )
            elif high - low > LIMITS.most_spread_hu:
                warnings.append(
                    f"{labels.path}: {s.name} goes from {low:.0f} to {high:.0f} HU, which one organ hardly does: does "
                    "it lie where it should?"
                )
        if is_bone:
            bones.append((s.name, s.label, box))
    if bones:
        warnings += _check_bones(ct, labels, aligned, bones)
    return warnings


def check_bone_volume(ct: Volume, volume: Volume, where: str) -> None:
    """Raises :class:`CaseError` where a bone that was cut out of the CT does not lie in the CT's bone.

    Parameters
    ----------
    ct, volume : Volume
        HU.
    where : str
        Begins the message.
    """
    found = np.flatnonzero(volume.voxels > LIMITS.bone_hu)
    found = found[:: max(len(found) // LIMITS.bone_points, 1)]
    if len(found) == 0:
        raise CaseError(f"{where}: {volume.path} holds no bone: nothing in it is above {LIMITS.bone_hu:g} HU")
    index = np.stack(np.unravel_index(found, volume.voxels.shape)[::-1], axis=1).astype(float)
    image = volume.image
    step = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    seen, dense = _dense_at(ct, index @ step.T + np.array(image.GetOrigin()))
    if seen < LIMITS.bone_inside:
        raise CaseError(
            f"{where}: {ct.path} has nothing where {100 * (1 - seen):.0f} % of {volume.path} lies: is it of this "
            "patient, and in the CT's frame?"
        )
    if dense < LIMITS.least_bone_in_bone:
        raise CaseError(
            f"{where}: only {100 * dense:.0f} % of the bone in {volume.path} lies in bone of {ct.path}: is it of this "
            "patient, and in the CT's frame?"
        )


def check_places(file: CaseFile, ct: Volume, surroundings: Volume | None, path: Path) -> list[str]:
    """Whether plan and prior lie where the patient is; raises :class:`CaseError`, returns what is unusual."""
    volumes = [ct] if surroundings is None else [ct, surroundings]
    corners = np.vstack([v.corners_ct() for v in volumes])
    low, high = corners.min(0), corners.max(0)

    def outside(point: Sequence[float]) -> float:
        return float(np.linalg.norm(np.maximum(0, np.maximum(low - point, np.array(point) - high))))

    warnings = []
    for t in file.plan:
        for name, point, most in (
            ("entry_ct", t.entry_ct, LIMITS.entry_outside_mm), ("target_ct", t.target_ct, LIMITS.target_outside_mm),
        ):  # fmt: skip
            off = outside(point)
            if off > most:
                raise CaseError(
                    f"{path}: plan: {t.name}: {name} {list(point)} lies {off:.0f} mm outside the CT: is it in LPS mm, "
                    "and of this patient?"
                )
            if off > 0 and name == "target_ct":
                warnings.append(f"{path}: plan: {t.name}: {name} lies {off:.1f} mm outside the CT")
        length = float(np.linalg.norm(np.subtract(t.target_ct, t.entry_ct)))
        if length < LIMITS.short_path_mm:
            warnings.append(f"{path}: plan: {t.name} is {length:.1f} mm long: is it in mm?")
    off = outside(file.prior.isocentre_ct)
    if off > LIMITS.isocentre_outside_mm:
        raise CaseError(
            f"{path}: prior: isocentre_ct {list(file.prior.isocentre_ct)} lies {off:.0f} mm outside the CT: is it in "
            "LPS mm, and of this patient?"
        )
    for n in file.no_go:
        near, far = n.bounds_ct()
        off = float(np.linalg.norm(np.maximum(0, np.maximum(low - far, near - high))))
        if off > LIMITS.no_go_outside_mm:
            raise CaseError(f"{path}: no_go: {n.name} lies {off:.0f} mm outside the CT: is it in LPS mm?")
        if off > 0:
            warnings.append(f"{path}: no_go: {n.name} lies {off:.0f} mm outside the CT")
    if file.tracker is not None and file.tracker.T_ct_reference is not None:
        marker = [row[3] for row in file.tracker.T_ct_reference[:3]]
        off = outside(marker)
        if off > LIMITS.marker_outside_mm:
            raise CaseError(
                f"{path}: tracker: T_ct_reference puts the marker {off:.0f} mm outside the CT: is it marker to "
                "patient, in LPS mm?"
            )
    return warnings


def _points_ct(aligned: sitk.Image, voxels: NDArray, label: int, box, most: int = 20_000) -> Float:
    """Centres of the label's voxels, evenly taken, LPS mm, shape (n, 3)."""
    low, high = box
    cut = voxels[tuple(slice(low[a], high[a] + 1) for a in (2, 1, 0))]
    found = np.flatnonzero(cut == label)
    found = found[:: max(len(found) // most, 1)]
    index = np.stack(np.unravel_index(found, cut.shape)[::-1], axis=1) + low
    # Along the patient axes, whatever sign the spacing has: the direction is the unit matrix.
    return index * np.array(aligned.GetSpacing()) + np.array(aligned.GetOrigin())


def _in_ct(ct: Volume, points_ct: Float) -> tuple[float, Float]:
    """Which share of points lies inside the CT, and the HU of those."""
    index = _index(ct, points_ct)
    size = np.array(ct.image.GetSize())
    inside = ((index > -0.5) & (index < size - 0.5)).all(1)
    if not inside.any():
        return 0.0, np.zeros(0)
    at = np.rint(index[inside]).astype(int)
    return float(inside.mean()), ct.voxels[at[:, 2], at[:, 1], at[:, 0]].astype(np.float64)


def _index(ct: Volume, points_ct: Float) -> Float:
    direction = np.array(ct.image.GetDirection()).reshape(3, 3)
    return (points_ct - np.array(ct.image.GetOrigin())) @ direction / np.array(ct.image.GetSpacing())


def _check_bones(
    ct: Volume, labels: Volume, aligned: sitk.Image, bones: list[tuple[str, int, tuple[NDArray, NDArray]]]
) -> list[str]:
    """Raises where bones are not in bone, or would be if the map lay elsewhere or were mirrored."""
    counts = np.zeros((len(_MOVES) + 3, 4))
    warnings, judged = [], False
    for name, label, box in bones:
        own = _bone_counts(ct, aligned, label, box)
        if own[0, 0] * LIMITS.shell_step_mm**3 < LIMITS.least_bone_mm3:
            continue
        judged = True
        if _contrast(own[0]) < LIMITS.low_contrast:
            warnings.append(
                f"{labels.path}: {name} (label {label}) does not stand out as bone: {_dense(own[0])}; does it lie "
                "where it should?"
            )
        counts += own
    if not judged:
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


def _bone_counts(ct: Volume, aligned: sitk.Image, label: int, box: tuple[NDArray, NDArray]) -> Float:
    """Points of a label and of the shell around it, and how many of them are dense.

    Returns
    -------
    ndarray, shape (n, 4)
        In the label, dense of them, in the shell, dense of them; where the label lies, then at each of the other moves,
        then with the map's content exchanged along x, y and z.
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
    off = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(mask, False, False, True))
    centre = origin + (np.array(aligned.GetSize()) - 1) / 2 * spacing
    parts = []
    for part in (off <= 0, (off > LIMITS.shell_mm[0]) & (off < LIMITS.shell_mm[1])):
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
            seen, dense = _dense_at(ct, there)
            counts += [seen * count, dense * count]
        out.append(counts)
    return np.array(out)


def _dense_at(ct: Volume, points_ct: Float) -> tuple[float, float]:
    """Which share of points lies in the CT, and which share is dense there."""
    at = np.rint(_index(ct, points_ct)).astype(int)
    inside = at[((at >= 0) & (at < ct.image.GetSize())).all(1)]
    dense = ct.voxels[inside[:, 2], inside[:, 1], inside[:, 0]] > LIMITS.bone_hu
    n = max(len(points_ct), 1)
    return len(inside) / n, np.count_nonzero(dense) / n


def _contrast(counts: Float) -> float:
    """The share of dense voxels in the labels less that around them; 0 where hardly anything is in the CT."""
    inside, dense, shell, shell_dense = counts
    return 0.0 if min(inside, shell) < 20 else float(dense / inside - shell_dense / shell)


def _dense(counts: Float) -> str:
    inside, dense, shell, shell_dense = np.maximum(counts, 1e-9)
    return (
        f"{100 * dense / inside:.0f} % of it is above {LIMITS.bone_hu:g} HU, {100 * shell_dense / shell:.0f} % of what "
        "is around it"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share in (0, 1) or share > 0.01 else f"{100 * share:.2f} %"


def _by(values: Float) -> str:
    return " x ".join(f"{v:.3g}" for v in values)
