"""Segmentation by a range of HU around a point: implants and lesions that no atlas has."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.volume import Volume
from fluoronav.planning.segmentation.engine import Progress, Segmentation, SegmentationError, SegmentedStructure
from fluoronav.planning.segmentation.network import own_labels


@dataclass(frozen=True, slots=True)
class Region:
    """What is to be found.

    Attributes
    ----------
    name : str
        Of the structure.
    low_hu, high_hu : float
        Range; metal in a CT has 2500 HU and more.
    seed_ct : tuple of float, optional
        A point in it, LPS mm; the region that hangs together with it is taken. Without it, all in the range is.
    radius_mm : float
        Nothing farther from the seed is taken.
    opening_mm : float
        Bridges thinner than twice this are cut before regions are told apart; 0 for none.
    """

    name: str
    low_hu: float
    high_hu: float = np.inf
    seed_ct: tuple[float, float, float] | None = None
    radius_mm: float = np.inf
    opening_mm: float = 0.0


class ThresholdEngine:
    """Takes the voxels of a range of HU.

    Parameters
    ----------
    region : Region
    """

    name = "threshold"

    def __init__(self, region: Region) -> None:
        if not region.low_hu < region.high_hu:
            raise SegmentationError(f"the range is empty: {region.low_hu:g} to {region.high_hu:g} HU")
        if region.seed_ct is None and np.isfinite(region.radius_mm):
            raise SegmentationError("a radius needs a point that it is measured from: give --at")
        self._region = region

    def segment(self, ct: Volume, progress: Progress) -> Segmentation:
        """Segments a CT; see :class:`fluoronav.planning.segmentation.engine.Engine`."""
        begun = time.perf_counter()
        region, image = self._region, ct.image
        progress("range of HU", 0.0)
        values = np.asarray(sitk.GetArrayViewFromImage(image))
        mask = (values >= region.low_hu) & (values <= region.high_hu)
        if region.seed_ct is not None:
            mask = self._around(mask, image, region.seed_ct)
        n = int(mask.sum())
        if not n:
            raise SegmentationError(f"{ct.path}: no voxel has {region.low_hu:g} to {region.high_hu:g} HU there")
        label = own_labels([region.name])[region.name]
        labels = sitk.GetImageFromArray(np.where(mask, label, 0).astype(np.uint8))
        labels.CopyInformation(image)
        volume_cm3 = n * float(np.prod(image.GetSpacing())) / 1000
        # How much of the surface is a clear edge: the share of its voxels whose outer neighbours are far off the range.
        found = SegmentedStructure(
            region.name, label, self.name, round(_edge_share(values, mask, region), 3), n, volume_cm3
        )
        progress("done", 1.0)
        warnings = (f"{region.name}: touches the border of the scan",) if _touches_border(mask) else ()
        return Segmentation(labels, (found,), "threshold 1", time.perf_counter() - begun, warnings=warnings)

    def _around(
        self, mask: NDArray[np.bool_], image: sitk.Image, seed_ct: tuple[float, float, float]
    ) -> NDArray[np.bool_]:
        region = self._region
        index = image.TransformPhysicalPointToContinuousIndex(seed_ct)
        at = tuple(round(i) for i in index[::-1])
        if not all(0 <= i < n for i, n in zip(at, mask.shape, strict=True)):
            raise SegmentationError(f"the point {seed_ct} lies outside the CT")
        if np.isfinite(region.radius_mm):
            mask &= _within(image, seed_ct, region.radius_mm, mask.shape)
        if region.opening_mm > 0:
            binary = sitk.GetImageFromArray(mask.astype(np.uint8))
            radius = [max(round(region.opening_mm / s), 1) for s in image.GetSpacing()]
            mask = sitk.GetArrayFromImage(sitk.BinaryMorphologicalOpening(binary, radius)) > 0
        if not mask[at]:
            raise SegmentationError(
                f"the point {seed_ct} itself is not in the range of {region.low_hu:g} to {region.high_hu:g} HU"
            )
        parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
        numbers = np.asarray(sitk.GetArrayViewFromImage(parts))
        return numbers == numbers[at]


def _within(image: sitk.Image, centre_ct: tuple[float, ...], radius_mm: float, shape: tuple[int, ...]) -> NDArray:
    """Voxels within a distance of a point, shape (z, y, x)."""
    steps = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    start = np.array(image.GetOrigin()) - centre_ct
    y, x = np.arange(shape[1])[:, None], np.arange(shape[2])[None, :]
    in_plane = start + y[..., None] * steps[:, 1] + x[..., None] * steps[:, 0]
    return np.stack([((in_plane + z * steps[:, 2]) ** 2).sum(-1) <= radius_mm**2 for z in range(shape[0])])


def _edge_share(values: NDArray, mask: NDArray[np.bool_], region: Region) -> float:
    """Share of the voxels just outside that are off the range by a margin: how clear the region's edge is."""
    margin = max(abs(region.low_hu) / 10, 100.0)
    clear = total = 0
    for axis in range(3):
        inner, outer = [slice(None)] * 3, [slice(None)] * 3
        inner[axis], outer[axis] = slice(1, None), slice(None, -1)
        for a, b in ((inner, outer), (outer, inner)):
            just_outside = mask[tuple(a)] & ~mask[tuple(b)]
            beyond = values[tuple(b)][just_outside]
            clear += int(((beyond < region.low_hu - margin) | (beyond > region.high_hu + margin)).sum())
            total += len(beyond)
    return clear / total if total else 0.0


def _touches_border(mask: NDArray[np.bool_]) -> bool:
    return any(mask.take(k, axis).any() for axis in range(3) for k in (0, -1))
