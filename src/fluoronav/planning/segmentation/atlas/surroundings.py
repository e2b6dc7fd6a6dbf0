"""Ribs, organs and vessels of the atlas in a scan: drafts, from one deformable registration on a coarse grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.planning.anatomy import vocabulary
from fluoronav.planning.segmentation.atlas.local import affine_parts
from fluoronav.planning.segmentation.atlas.scan import OUTSIDE_HU, Scan
from fluoronav.planning.segmentation.atlas.shipped import WHOLE, Atlas
from fluoronav.planning.segmentation.atlas.spine import FoundVertebra
from fluoronav.planning.segmentation.atlas.start import Start

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SurroundingsSettings:
    """Settings; all are chosen."""

    low_hu: float = -300.0
    high_hu: float = 400.0
    step_mm: float = 5.0  # grid of the registration
    steps: int = 60
    smooth: float = 1.5  # of the field, voxels
    spread_mm: float = 40.0  # how far a vertebra's own transform reaches
    aside_mm: float = 80.0  # from there on the common one counts more
    label_mm: float = 2.0  # grid of the labels
    most_confidence: float = 0.5  # people must look at every one
    bone_hu: float = 130.0
    least_in_bone: float = 0.35  # share of a rib; chosen: a rib of patient B with 0.3 overlaps by half and less
    least_share: float = 0.03  # of a structure inside the scan; less is left out


SETTINGS = SurroundingsSettings()


@dataclass(frozen=True)
class Surroundings:
    """Labels of everything but vertebrae.

    Attributes
    ----------
    labels : SimpleITK.Image
        uint8, on a grid of 2 mm.
    confidence : dict
        By label.
    """

    labels: sitk.Image
    confidence: dict[int, float]


def surroundings_of(atlas: Atlas, scan: Scan, start: Start, chain: list[FoundVertebra]) -> Surroundings | None:
    """Registers the whole atlas to a scan, from the transforms of its vertebrae on."""
    own = [v for v in chain if not v.borrowed]
    if not own:
        return None
    low, high = _shared_box(atlas, scan, start, own)
    if (high - low < 4 * SETTINGS.step_mm).any():
        return None
    grid = _grid(low, high, SETTINGS.step_mm)
    first = sitk.DisplacementFieldTransform(_first_field(atlas, grid, start, own))
    fixed = _limited(sitk.Resample(_smooth(scan.working), grid, sitk.Transform(), sitk.sitkLinear, OUTSIDE_HU))
    atlas_hu = _limited(_smooth(atlas.ct))
    moving = sitk.Resample(atlas_hu, grid, first, sitk.sitkLinear, OUTSIDE_HU)
    # Beyond the atlas the scan takes its place, so that nothing pulls there.
    beyond = sitk.Cast(moving < OUTSIDE_HU + 1, sitk.sitkFloat32)
    method = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    method.SetNumberOfIterations(SETTINGS.steps)
    method.SetStandardDeviations(SETTINGS.smooth)
    method.SetSmoothDisplacementField(True)
    second = method.Execute(fixed, moving * (1 - beyond) + fixed * beyond)
    whole = sitk.CompositeTransform([first, sitk.DisplacementFieldTransform(sitk.Cast(second, sitk.sitkVectorFloat64))])
    labels = sitk.Resample(
        atlas.labels, _grid(low, high, SETTINGS.label_mm), whole, sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8
    )
    warped = sitk.Resample(atlas_hu, grid, whole, sitk.sitkLinear, OUTSIDE_HU)
    kept = _kept(atlas, labels, sitk.GetArrayFromImage(fixed), sitk.GetArrayFromImage(warped), grid)
    return _without_lost_bones(kept, scan)


def _without_lost_bones(found: Surroundings, scan: Scan) -> Surroundings:
    """Leaves out ribs that do not lie in bone: thin, they slip between the voxels of the coarse grid."""
    voxels = sitk.GetArrayFromImage(found.labels)
    hu = sitk.GetArrayFromImage(
        sitk.Resample(scan.working, found.labels, sitk.Transform(), sitk.sitkLinear, OUTSIDE_HU)
    )
    confidence = dict(found.confidence)
    for label in found.confidence:
        if vocabulary()[label].is_bone:
            share = float((hu[voxels == label] > SETTINGS.bone_hu).mean())
            if share < SETTINGS.least_in_bone:
                voxels[voxels == label] = 0
                del confidence[label]
    labels = sitk.GetImageFromArray(voxels)
    labels.CopyInformation(found.labels)
    return Surroundings(labels, confidence)


def _kept(atlas: Atlas, labels: sitk.Image, fixed: Float, warped: Float, grid: sitk.Image) -> Surroundings:
    """The labels that are no vertebra and lie in the scan, each with how well scan and atlas agree there."""
    voxels = sitk.GetArrayFromImage(labels)
    coarse = sitk.GetArrayFromImage(sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
    ratio = np.prod(atlas.labels.GetSpacing()) / np.prod(labels.GetSpacing())
    before = np.bincount(sitk.GetArrayViewFromImage(atlas.labels).ravel(), minlength=256)
    after = np.bincount(voxels.ravel(), minlength=256)
    confidence, table = {}, np.zeros(256, np.uint8)
    for label, structure in vocabulary().items():
        if label > 255 or structure.kind == "vertebra" or after[label] < SETTINGS.least_share * before[label] * ratio:
            continue
        if after[label] == 0:
            continue
        table[label] = label
        at = (coarse == label) & (warped > OUTSIDE_HU + 1)
        away = float(np.abs(fixed[at] - warped[at]).mean()) if at.sum() > 5 else 200.0
        confidence[label] = round(SETTINGS.most_confidence * float(np.clip(1 - away / 250, 0.1, 1)), 2)
    kept = sitk.GetImageFromArray(table[voxels])
    kept.CopyInformation(labels)
    return Surroundings(kept, confidence)


def _first_field(atlas: Atlas, grid: sitk.Image, start: Start, own: list[FoundVertebra]) -> sitk.Image:
    """Displacements from the scan to the atlas: each vertebra's own near it, the common one aside."""
    size = grid.GetSize()
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size[::-1]), indexing="ij"), axis=-1)[..., ::-1]
    points = np.array(grid.GetOrigin()) + index.reshape(-1, 3) * np.array(grid.GetSpacing())
    shift = np.mean([v.body_ct - start.sizes * atlas.body_centres[v.level] for v in own], axis=0)
    weight = np.full(len(points), np.exp(-0.5 * (SETTINGS.aside_mm / SETTINGS.spread_mm) ** 2))
    target = weight[:, None] * (points - shift) / start.sizes
    for v in own:
        matrix, offset = affine_parts(v.fit.T_scan_atlas)
        near = np.exp(-0.5 * ((points - v.body_ct) ** 2).sum(1) / SETTINGS.spread_mm**2)
        target += near[:, None] * ((points - offset) @ np.linalg.inv(matrix).T)
        weight += near
    field = sitk.GetImageFromArray((target / weight[:, None] - points).reshape(*size[::-1], 3), isVector=True)
    field.CopyInformation(grid)
    return field


def _shared_box(atlas: Atlas, scan: Scan, start: Start, own: list[FoundVertebra]) -> tuple[Float, Float]:
    """What atlas and scan share, LPS mm; along the spine by the outermost vertebrae."""
    shift = np.mean([v.body_ct - start.sizes * atlas.body_centres[v.level] for v in own], axis=0)
    first = np.array(atlas.ct.GetOrigin())
    last = first + (np.array(atlas.ct.GetSize()) - 1) * np.array(atlas.ct.GetSpacing())
    low, high = start.sizes * first + shift, start.sizes * last + shift
    begin = np.array(scan.working.GetOrigin())
    end = begin + (np.array(scan.working.GetSize()) - 1) * np.array(scan.working.GetSpacing())
    lowest = next((v for v in own if v.level == WHOLE[-1]), None)
    if lowest is not None:
        low[2] = max(low[2], lowest.body_ct[2] - 40)
    return np.maximum(low, begin), np.minimum(high, end)


def _smooth(image: sitk.Image) -> sitk.Image:
    return sitk.SmoothingRecursiveGaussian(image, [SETTINGS.step_mm / 2.355] * 3)


def _limited(image: sitk.Image) -> sitk.Image:
    return sitk.Clamp(image, sitk.sitkFloat32, SETTINGS.low_hu, SETTINGS.high_hu)


def _grid(low: Float, high: Float, step: float) -> sitk.Image:
    out = sitk.Image([int(n) + 1 for n in np.floor((high - low) / step)], sitk.sitkUInt8)
    out.SetOrigin(low.tolist())
    out.SetSpacing([step] * 3)
    return out
