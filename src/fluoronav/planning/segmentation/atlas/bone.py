"""The edge of a bone, found by its HU near where the registration put it.

Each voxel is weighed by how much more often its HU occur inside the registered bone than around it, and by its
distance from the registered surface (Bayes' rule with a prior that falls with the distance).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.planning.segmentation.atlas.scan import OUTSIDE_HU

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BoneSettings:
    """Settings, fitted on T12 to L3 of patient B; on the atlas itself the gate keeps the registration."""

    fine_mm: float = 1.5  # voxels that are coarser are divided
    prior_mm: float = 1.2  # standard deviation of the registered surface
    reach_mm: float = 6.0  # no voxel farther from the registered surface is taken
    shell_mm: tuple[float, float] = (2.0, 6.0)  # around the bone: what it is told apart from
    smooth_mm: float = 0.7  # of the evidence, against noise
    bin_hu: float = 20.0
    rare: float = 1e-3  # share below which a bin of a histogram says nothing
    most_evidence: float = 3.0  # natural logarithm
    # Correlation of the registration above which HU are not asked, and below which they count fully.
    gate: tuple[float, float] = (0.96, 0.92)
    least_contrast: float = 0.35  # bone and surroundings must differ by this share of their histograms


SETTINGS = BoneSettings()
_LOW_HU, _HIGH_HU = -300.0, 1000.0


@dataclass(frozen=True)
class Block:
    """A box of the scan's own grid with how sure each voxel is to be bone.

    Attributes
    ----------
    low : tuple of 3 int
        Its first index (x, y, z).
    odds : ndarray, shape (z, y, x)
        float16; above 0 is bone.
    contrast : float
        Share by which the histograms of bone and surroundings differ, 0 to 1.
    """

    low: tuple[int, int, int]
    odds: NDArray[np.float16]
    contrast: float


def bone_in(native: sitk.Image, soft: sitk.Image, correlation: float) -> Block | None:
    """The bone on the scan's own grid.

    Parameters
    ----------
    native : SimpleITK.Image
        The scan, HU.
    soft : SimpleITK.Image
        Where the registration put the bone, 0 to 1.
    correlation : float
        Of the registration; it opens and closes the gate.
    """
    box = _box(native, soft)
    if box is None:
        return None
    low, size = box
    part = sitk.Cast(sitk.RegionOfInterest(native, size, low), sitk.sitkFloat32)
    factors = [int(np.ceil(s / SETTINGS.fine_mm - 1e-6)) for s in part.GetSpacing()]
    fine = sitk.Expand(part, factors, sitk.sitkLinear) if max(factors) > 1 else part
    # The outermost voxels of the bone have distance 0; its surface is half a voxel outside them.
    there = sitk.SignedMaurerDistanceMap(soft > 0.5, False, False, True) - soft.GetSpacing()[0] / 2
    outside = sitk.GetArrayViewFromImage(there).max()
    distance = sitk.GetArrayFromImage(sitk.Resample(there, fine, sitk.Transform(), sitk.sitkLinear, float(outside)))
    hu = sitk.GetArrayViewFromImage(fine)
    spacing = np.array(fine.GetSpacing())[::-1]
    evidence, contrast = _evidence(hu, distance, spacing)
    weight = np.interp(correlation, SETTINGS.gate[::-1], (1.0, 0.0)) if contrast >= SETTINGS.least_contrast else 0.0
    odds = (-distance / SETTINGS.prior_mm + weight * evidence).astype(np.float32)
    odds[distance > SETTINGS.reach_mm] = -10.0
    odds = _whole(odds)
    if max(factors) > 1:
        odds = _averaged(odds, factors[::-1])
    return Block((low[0], low[1], low[2]), odds.astype(np.float16), contrast)


def _box(native: sitk.Image, soft: sitk.Image) -> tuple[list[int], list[int]] | None:
    """The box of the scan that holds the bone and what is around it."""
    where = np.argwhere(sitk.GetArrayViewFromImage(soft) > 0.5)[:, ::-1]
    if len(where) == 0:
        return None
    first, last = where.min(0), where.max(0)
    corners = [[float((first, last)[b][a]) for a, b in enumerate(bits)] for bits in np.ndindex(2, 2, 2)]
    points = [soft.TransformContinuousIndexToPhysicalPoint(c) for c in corners]
    index = np.array([native.TransformPhysicalPointToContinuousIndex(p) for p in points])
    margin = (SETTINGS.reach_mm + SETTINGS.shell_mm[1] / 2) / np.array(native.GetSpacing())
    low = np.maximum(np.floor(index.min(0) - margin).astype(int), 0)
    high = np.minimum(np.ceil(index.max(0) + margin).astype(int) + 1, native.GetSize())
    if (high - low < 1).any():
        return None
    return low.tolist(), (high - low).tolist()


def _evidence(hu: Float32, distance: Float32, spacing: NDArray) -> tuple[Float32, float]:
    """Logarithm of how much more often each voxel's HU occur in the bone than around it; and their contrast."""
    edges = np.arange(_LOW_HU, _HIGH_HU + 1, SETTINGS.bin_hu)
    bins = np.clip((hu - _LOW_HU) / SETTINGS.bin_hu, 0, len(edges) - 2).astype(np.int16)
    seen = hu > OUTSIDE_HU + 1
    shell = (distance > SETTINGS.shell_mm[0]) & (distance < SETTINGS.shell_mm[1]) & seen
    counts = [np.bincount(bins[m], minlength=len(edges) - 1).astype(float) for m in ((distance < 0) & seen, shell)]
    if min(c.sum() for c in counts) < 50:
        return np.zeros_like(distance), 0.0
    smooth = [ndimage.gaussian_filter1d(c, 1.5) for c in counts]
    inside, around = (c / c.sum() + SETTINGS.rare for c in smooth)
    contrast = float(np.abs(inside - around).sum() / 2)
    ratio = np.log(inside / around)
    # HU below all that occur are no bone; then, denser is never less likely to be bone.
    ratio[: int(np.flatnonzero(counts[0] + counts[1])[0])] = -SETTINGS.most_evidence
    ratio = np.maximum.accumulate(ratio)
    ratio = np.clip(ratio, -SETTINGS.most_evidence, SETTINGS.most_evidence).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(ratio[bins], SETTINGS.smooth_mm / spacing), np.float32), contrast


def _whole(odds: Float32) -> Float32:
    """One piece without holes."""
    bone = odds > 0
    parts = np.zeros(bone.shape, np.int32)
    ndimage.label(bone, output=parts)
    sizes = np.bincount(parts.ravel())[1:]
    if len(sizes) > 1:
        odds[bone & (parts != 1 + sizes.argmax())] = -1.0
        bone = odds > 0
    odds[np.asarray(ndimage.binary_fill_holes(bone), bool) & ~bone] = 0.5
    return odds


def _averaged(odds: Float32, factors: list[int]) -> Float32:
    """Means over the parts of each voxel."""
    limited = np.clip(odds, -1, 1)
    z, y, x = (n // f for n, f in zip(odds.shape, factors, strict=True))
    return limited.reshape(z, factors[0], y, factors[1], x, factors[2]).mean(axis=(1, 3, 5))
