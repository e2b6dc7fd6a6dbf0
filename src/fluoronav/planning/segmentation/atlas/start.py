"""Where the atlas lies in a scan, coarsely: its spine and ribs are looked for at every place and at nine sizes.

The measure is the normalised cross-correlation of both within what they share, by Fourier transforms
(D. Padfield, Masked object registration in the Fourier domain, IEEE Trans. Image Process. 21, 2012).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import fft

from fluoronav.planning.segmentation.atlas.shipped import BORROWED, WHOLE, Atlas, vertebra
from fluoronav.planning.segmentation.engine import Progress

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StartSettings:
    """Settings of the coarse search, chosen on three patients: B and D of TotalSegmentator's examples, L3 of TPTBox."""

    step_mm: float = 6.0  # of the grid
    low_hu: float = -200.0  # values are limited to this range
    high_hu: float = 400.0
    near_mm: float = 70.0  # of the atlas's vertebrae: the part that is looked for
    least_shared: float = 0.15  # of the smaller of both
    least_deviation_hu: float = 30.0  # of what both share; less is air or noise
    in_plane_sizes: tuple[float, ...] = (0.85, 1.0, 1.15)  # of the patient against the atlas
    along_sizes: tuple[float, ...] = (0.88, 1.0, 1.13)
    apart_mm: float = 18.0  # two places along the spine that are closer are one; a thoracic vertebra is 20 mm high
    most: int = 4  # places that are looked at more closely
    click_mm: tuple[float, float] = (30.0, 9.0)  # how far a click may lie from the body's centre: in the plane, along


SETTINGS = StartSettings()


@dataclass(frozen=True)
class Start:
    """One place of the atlas.

    Attributes
    ----------
    score : float
        Normalised cross-correlation, -1 to 1.
    sizes : ndarray, shape (3,)
        Of the patient against the atlas.
    shift_mm : ndarray, shape (3,)
        A point p of the atlas lies at ``sizes * p + shift_mm`` in the scan, LPS mm.
    """

    score: float
    sizes: Float
    shift_mm: Float

    def at(self, point: Float) -> Float:
        """Where a point of the atlas lies in the scan."""
        return self.sizes * point + self.shift_mm

    def transform(self) -> sitk.AffineTransform:
        """Atlas to scan."""
        return sitk.AffineTransform(np.diag(self.sizes).ravel().tolist(), self.shift_mm.tolist())


def starts(atlas: Atlas, scan: sitk.Image, progress: Progress, click: tuple[str, Float] | None = None) -> list[Start]:
    """Places of the atlas in a scan, the best first.

    Parameters
    ----------
    atlas : Atlas
    scan : SimpleITK.Image
        HU, axes along the patient's.
    progress : callable
    click : (str, ndarray of shape (3,)), optional
        A level and a point in its body, LPS mm: only places that put it there are looked at.
    """
    fixed = _coarse(scan, np.ones(3))
    field = sitk.GetArrayFromImage(fixed)
    field -= field.mean()
    found: list[tuple[float, Float, Float]] = []
    near = _near_spine(atlas)
    sizes = list(product(SETTINGS.in_plane_sizes, SETTINGS.along_sizes))
    for k, (in_plane, along) in enumerate(sizes):
        progress("looking for the spine", 0.1 * k / len(sizes))
        size = np.array([in_plane, in_plane, along])
        moving, mask = _coarse(atlas.ct, size), sitk.GetArrayFromImage(_resampled(near, size, 0)) > 0.5
        template = sitk.GetArrayFromImage(moving)
        template = np.where(mask, template - template[mask].mean(), 0).astype(np.float32)
        origins = np.array(fixed.GetOrigin()) - size * np.array(moving.GetOrigin())
        for score, offset in _best_by_height(field, template, mask.astype(np.float32)):
            found.append((score, size, origins + offset * SETTINGS.step_mm))
    return _distinct([Start(*f) for f in found], atlas, click)


def _distinct(found: list[Start], atlas: Atlas, click: tuple[str, Float] | None) -> list[Start]:
    kept: list[Start] = []
    reference = atlas.body_centres[WHOLE[-1]]
    for place in sorted(found, key=lambda s: -s.score):
        if click is not None:
            away = place.at(_body_centre(atlas, click[0])) - click[1]
            if np.hypot(*away[:2]) > SETTINGS.click_mm[0] or abs(away[2]) > SETTINGS.click_mm[1]:
                continue
            # The click is nearer the truth than a grid of 6 mm.
            return [Start(place.score, place.sizes, place.shift_mm - away)]
        height = place.at(reference)[2]
        if all(abs(height - s.at(reference)[2]) > SETTINGS.apart_mm for s in kept) and place.score > 0:
            kept.append(place)
        if len(kept) == SETTINGS.most:
            break
    return kept


def _body_centre(atlas: Atlas, level: str) -> Float:
    """Centre of a body in the atlas; below the last whole vertebra, where it would lie."""
    if level in atlas.body_centres:
        return atlas.body_centres[level]
    step = atlas.body_centres[WHOLE[-1]] - atlas.body_centres[WHOLE[-2]]
    return atlas.body_centres[WHOLE[-1]] + step * (1 + BORROWED.index(level))


def _near_spine(atlas: Atlas) -> sitk.Image:
    voxels = sitk.GetArrayViewFromImage(atlas.labels)
    spine = sitk.GetImageFromArray(np.isin(voxels, [vertebra(level).label for level in WHOLE]).astype(np.uint8))
    spine.CopyInformation(atlas.labels)
    coarse = sitk.BinShrink(spine * 4, [4, 4, 2]) > 0  # a distance map of the whole grid would take a second
    distance = sitk.SignedMaurerDistanceMap(coarse, False, False, True)
    return sitk.Cast(distance < SETTINGS.near_mm, sitk.sitkFloat32)


def _coarse(image: sitk.Image, size: Float) -> sitk.Image:
    """The image, limited and smoothed, on the coarse grid; `size` enlarges it."""
    limited = sitk.Clamp(image, sitk.sitkFloat32, SETTINGS.low_hu, SETTINGS.high_hu)
    return _resampled(sitk.SmoothingRecursiveGaussian(limited, [SETTINGS.step_mm / 2.355] * 3), size, SETTINGS.low_hu)


def _resampled(image: sitk.Image, size: Float, outside: float) -> sitk.Image:
    spacing = SETTINGS.step_mm / size
    count = [max(int(n * s / t), 1) for n, s, t in zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)]
    return sitk.Resample(
        image, count, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing.tolist(), image.GetDirection(),
        float(outside),
    )  # fmt: skip


def _best_by_height(field: Float32, template: Float32, mask: Float32) -> Iterator[tuple[float, Float]]:
    """The best offset (x, y, z), in voxels, and its score for each offset along z."""
    least = [a + b - 1 for a, b in zip(field.shape, template.shape, strict=True)]
    shape = [int(fft.next_fast_len(n, real=True) or n) for n in least]
    ones = np.ones_like(field)

    def forward(values: Float32) -> NDArray[np.complex64]:
        return fft.rfftn(values, shape)  # type: ignore[return-value]

    images = [forward(field), forward(ones), forward(field * field)]
    masked, values, squares = (forward(v).conj() for v in (mask, template, template * template))

    def correlated(a: NDArray, b: NDArray) -> Float32:
        return fft.irfftn(a * b, shape)  # type: ignore[return-value]

    count = correlated(images[1], masked)
    enough = count > SETTINGS.least_shared * min(ones.sum(), mask.sum())
    count = np.maximum(count, 1)
    sums = correlated(images[0], masked), correlated(images[1], values)
    # Where nothing but air is shared, rounding would be all of the variance.
    least = SETTINGS.least_deviation_hu**2 * count
    spread = np.maximum(correlated(images[2], masked) - sums[0] ** 2 / count, least)
    spread *= np.maximum(correlated(images[1], squares) - sums[1] ** 2 / count, least)
    score = (correlated(images[0], values) - sums[0] * sums[1] / count) / np.sqrt(spread)
    score = np.where(enough, score, -1)
    for z, plane in enumerate(score):
        y, x = np.unravel_index(int(plane.argmax()), plane.shape)
        if plane[y, x] <= -1:
            continue
        at = (z, int(y), int(x))
        offset = [i if i < n else i - int(m) for i, n, m in zip(at, field.shape, shape, strict=True)]
        yield float(plane[y, x]), np.array(offset[::-1], np.float64)
