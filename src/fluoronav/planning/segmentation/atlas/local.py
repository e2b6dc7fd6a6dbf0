"""Registration of one vertebra: affine in its neighbourhood, then demons.

The affine part maximises the correlation of the atlas's vertebra and what is around it with the scan
(SimpleITK). The demons (symmetric forces; T. Vercauteren et al., Diffeomorphic demons, NeuroImage 45, 2009)
move what is left, on two grids.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.planning.segmentation.atlas.scan import OUTSIDE_HU

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Settings of the local registration; fitted on T12 to L3 of patient B and L3 of TPTBox's sample."""

    low_hu: float = -200.0  # values are limited to this range: fat to cortical bone
    high_hu: float = 700.0
    near_mm: float = 8.0  # of the vertebra: what is compared
    points: int = 6000  # at which starts are compared
    affine_steps: int = 100
    affine_share: float = 0.5  # of the voxels that the affine part looks at
    # Starts that are tried before the affine part.
    tries_along_mm: tuple[float, ...] = (-12.0, -8.0, -4.0, 0.0, 4.0, 8.0, 12.0)
    tries_forward_mm: tuple[float, ...] = (-5.0, 0.0, 5.0)
    tries_tilt_deg: tuple[float, ...] = (-12.0, -6.0, 0.0, 6.0, 12.0)  # about the axis from right to left
    # Demons: grid (mm), iterations, smoothing of the field (voxels).
    demons: tuple[tuple[float, int, float], ...] = ((4.0, 80, 0.8), (2.0, 60, 0.7))
    around_mm: float = 12.0  # of the vertebra: what the demons see


SETTINGS = LocalSettings()


@dataclass(frozen=True)
class Template:
    """A vertebra of the atlas with what is around it.

    Attributes
    ----------
    ct, mask, near : SimpleITK.Image
        HU limited to the range of the settings, the vertebra, and what is compared.
    centre : ndarray, shape (3,)
        Of the vertebra, atlas mm.
    points : ndarray, shape (n, 3)
        Evenly spread voxels of `near`, atlas mm.
    values : ndarray, shape (n,)
        Of `ct` there.
    """

    ct: sitk.Image = field(repr=False)
    mask: sitk.Image = field(repr=False)
    near: sitk.Image = field(repr=False)
    centre: Float = field(repr=False)
    points: Float = field(repr=False)
    values: Float = field(repr=False)


def template_from(ct: sitk.Image, mask: sitk.Image, centre: Float) -> Template:
    """Cuts a vertebra out of the atlas."""
    margin = SETTINGS.around_mm + SETTINGS.near_mm
    low, size = box_of(mask, margin)
    cut = sitk.RegionOfInterest(mask, size, low)
    distance = sitk.SignedMaurerDistanceMap(cut, False, False, True)
    near = sitk.Cast(distance < SETTINGS.near_mm, sitk.sitkUInt8)
    image = limited(sitk.RegionOfInterest(ct, size, low))
    where = np.argwhere(np.asarray(sitk.GetArrayViewFromImage(near)) > 0)
    where = where[:: max(len(where) // SETTINGS.points, 1) | 1]
    points = np.array(image.GetOrigin()) + where[:, ::-1].astype(float) * np.array(image.GetSpacing())
    return Template(image, cut, near, centre, points, sitk.GetArrayViewFromImage(image)[tuple(where.T)].astype(float))


def limited(image: sitk.Image) -> sitk.Image:
    """HU limited to the range that is compared."""
    return sitk.Clamp(image, sitk.sitkFloat32, SETTINGS.low_hu, SETTINGS.high_hu)


def box_of(mask: sitk.Image, margin_mm: float) -> tuple[list[int], list[int]]:
    """First index and size (x, y, z) of the box around a mask with a margin, cut to the image."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.ComputePerimeterOff()
    statistics.Execute(sitk.Cast(mask, sitk.sitkUInt8))
    found = statistics.GetBoundingBox(1)
    low, size = [], []
    for a, (n, step) in enumerate(zip(mask.GetSize(), mask.GetSpacing(), strict=True)):
        first = max(0, int(found[a] - margin_mm / step))
        last = min(n, int(np.ceil(found[a] + found[a + 3] + margin_mm / step)))
        low.append(first)
        size.append(last - first)
    return low, size


def correlation(template: Template, scan: sitk.Image, T_scan_atlas: sitk.AffineTransform) -> tuple[float, float]:
    """Correlation of the template with the scan where a transform puts it, and the share of it inside the scan."""
    matrix, offset = affine_parts(T_scan_atlas)
    at = (template.points @ matrix.T + offset - np.array(scan.GetOrigin())) / np.array(scan.GetSpacing())
    inside = ((at >= 0) & (at <= np.array(scan.GetSize()) - 1)).all(1)
    share = float(inside.mean())
    if inside.sum() < 200:
        return -1.0, share
    voxels = sitk.GetArrayViewFromImage(scan)
    there = ndimage.map_coordinates(voxels, at[inside][:, ::-1].T, order=1, mode="nearest", output=np.float64)
    there = np.clip(there, SETTINGS.low_hu, SETTINGS.high_hu)
    return float(np.corrcoef(template.values[inside], there)[0, 1]) if there.std() > 1 else -1.0, share


def best_start(template: Template, scan: sitk.Image, T_scan_atlas: sitk.AffineTransform) -> sitk.AffineTransform:
    """The best of a few starts around a given one, in two rounds: places along the spine, then tilts."""
    places = [(along, forward, 0.0) for along in SETTINGS.tries_along_mm for forward in SETTINGS.tries_forward_mm]
    along, forward, _ = max(places, key=lambda p: _worth(template, scan, _moved(template, T_scan_atlas, *p)))
    tilts = [(along + d, forward, t) for t in SETTINGS.tries_tilt_deg for d in (-2.0, 0.0, 2.0)]
    return _moved(
        template, T_scan_atlas, *max(tilts, key=lambda p: _worth(template, scan, _moved(template, T_scan_atlas, *p)))
    )


def _worth(template: Template, scan: sitk.Image, T_scan_atlas: sitk.AffineTransform) -> float:
    found, share = correlation(template, scan, T_scan_atlas)
    # What lies outside the scan cannot be compared, and must not be a way to a better fit.
    return found * min(1.0, share + 0.3)


def _moved(
    template: Template, T_scan_atlas: sitk.AffineTransform, along: float, forward: float, tilt_deg: float
) -> sitk.AffineTransform:
    """The transform followed by a tilt about the vertebra's centre and a shift, in the scan."""
    centre = np.array(T_scan_atlas.TransformPoint(template.centre.tolist()))
    c, s = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix, offset = affine_parts(T_scan_atlas)
    offset = tilt @ (offset - centre) + centre + [0.0, forward, along]
    return sitk.AffineTransform((tilt @ matrix).ravel().tolist(), offset.tolist())


def affine_parts(transform: sitk.AffineTransform) -> tuple[Float, Float]:
    """Matrix (3, 3) and offset (3,) of an affine transform: p goes to ``matrix @ p + offset``."""
    matrix = np.array(transform.GetMatrix()).reshape(3, 3)
    centre = np.array(transform.GetCenter())
    return matrix, np.array(transform.GetTranslation()) + centre - matrix @ centre


def affine(template: Template, scan: sitk.Image, T_scan_atlas: sitk.AffineTransform) -> sitk.AffineTransform:
    """The affine transform, atlas to scan, that fits one vertebra best; one outside the scan stays."""
    if not _seen(template, scan, T_scan_atlas):
        return T_scan_atlas
    matrix, offset = affine_parts(T_scan_atlas)
    start = sitk.AffineTransform(3)
    start.SetCenter(template.centre.tolist())
    start.SetMatrix(matrix.ravel().tolist())
    start.SetTranslation((matrix @ template.centre + offset - template.centre).tolist())
    method = _method(template, [2, 1])
    method.SetInitialTransform(start, True)
    try:
        method.Execute(template.ct, limited(scan))
    except RuntimeError:  # it has left the scan; what it began with is the better answer
        return T_scan_atlas
    return start


def similarity(template: Template, scan: sitk.Image, T_scan_atlas: sitk.AffineTransform) -> sitk.AffineTransform:
    """The best transform that turns, moves and enlarges what a given one makes of the vertebra; see `affine`."""
    if not _seen(template, scan, T_scan_atlas):
        return T_scan_atlas
    change = sitk.Similarity3DTransform()
    change.SetCenter(template.centre.tolist())
    method = _method(template, [2])
    method.SetMovingInitialTransform(T_scan_atlas)
    method.SetInitialTransform(change, True)
    try:
        method.Execute(template.ct, limited(scan))
    except RuntimeError:
        return T_scan_atlas
    own, centre = np.array(change.GetMatrix()).reshape(3, 3), np.array(change.GetCenter())
    matrix, offset = affine_parts(T_scan_atlas)
    shift = np.array(change.GetTranslation()) + centre - own @ centre
    return sitk.AffineTransform((matrix @ own).ravel().tolist(), (matrix @ shift + offset).tolist())


def _seen(template: Template, scan: sitk.Image, T_scan_atlas: sitk.AffineTransform) -> bool:
    """Whether enough of the vertebra lies in the scan to be compared: ITK prints warnings where nothing does."""
    return correlation(template, scan, T_scan_atlas)[0] > -1.0


def _method(template: Template, shrink: list[int]) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(template.near)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(SETTINGS.affine_share, 1)  # the same voxels in every run
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 0.01, SETTINGS.affine_steps, 0.6)
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([1.0 if n > 1 else 0.0 for n in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    # Sums over threads differ from run to run, and a vertebra at the limit would come and go.
    method.SetNumberOfThreads(1)
    return method


@dataclass(frozen=True)
class Fit:
    """A registered vertebra.

    Attributes
    ----------
    T_scan_atlas : SimpleITK.AffineTransform
        Its affine part.
    soft : SimpleITK.Image
        The vertebra in the scan, 0 to 1, on a grid of 2 mm.
    correlation : float
        Of atlas and scan after the demons, in the vertebra and 3 mm around it.
    share : float
        Of the vertebra that lies inside the scan.
    """

    T_scan_atlas: sitk.AffineTransform
    soft: sitk.Image = field(repr=False)
    correlation: float = 0.0
    share: float = 0.0


def deformed(template: Template, scan: sitk.Image, T_scan_atlas: sitk.AffineTransform) -> Fit | None:
    """The vertebra in the scan after the demons; None where it lies outside."""
    finest = SETTINGS.demons[-1][0]
    corners = _mask_corners(template, T_scan_atlas)
    low = np.maximum(corners.min(0), _ends(scan)[0]) - SETTINGS.around_mm
    high = np.minimum(corners.max(0), _ends(scan)[1]) + SETTINGS.around_mm
    if (high - low < 2.5 * SETTINGS.around_mm).any():
        return None
    to_atlas = T_scan_atlas.GetInverse()
    displacement = None
    for step, count, smooth in SETTINGS.demons:
        grid = _grid(low, high, step)
        fixed, moving = _pair(template, scan, to_atlas, grid, step)
        method = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        method.SetNumberOfIterations(count)
        method.SetStandardDeviations(smooth)
        method.SetSmoothDisplacementField(True)
        if displacement is None:
            displacement = method.Execute(fixed, moving)
        else:
            before = sitk.Resample(displacement, grid, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorFloat64)
            displacement = method.Execute(fixed, moving, before)
    assert displacement is not None
    field_ = sitk.DisplacementFieldTransform(sitk.Cast(displacement, sitk.sitkVectorFloat64))
    whole = sitk.CompositeTransform([to_atlas, field_])
    grid = _grid(low, high, finest)
    soft = sitk.Resample(sitk.Cast(template.mask, sitk.sitkFloat32), grid, whole, sitk.sitkLinear, 0.0)
    found, share = _agreement(template, scan, whole, soft)
    return Fit(T_scan_atlas, soft, found, share)


def _agreement(template: Template, scan: sitk.Image, whole: sitk.Transform, soft: sitk.Image) -> tuple[float, float]:
    inside = sitk.GetArrayViewFromImage(soft) > 0.5
    if inside.sum() < 50:
        return -1.0, 0.0
    # A view does not keep its image: one of an image without a name reads memory that is free already.
    distance_mm = sitk.SignedMaurerDistanceMap(soft > 0.5, False, False, True)
    near = sitk.GetArrayViewFromImage(distance_mm) < 3
    there = sitk.GetArrayFromImage(sitk.Resample(scan, soft, sitk.Transform(), sitk.sitkLinear, OUTSIDE_HU))
    atlas = sitk.GetArrayFromImage(sitk.Resample(template.ct, soft, whole, sitk.sitkLinear, OUTSIDE_HU))
    seen = there > OUTSIDE_HU + 1
    both = near & seen & (atlas > OUTSIDE_HU + 1)
    if both.sum() < 200:
        return -1.0, float(seen[inside].mean())
    a, b = atlas[both], np.clip(there[both], SETTINGS.low_hu, SETTINGS.high_hu)
    return float(np.corrcoef(a, b)[0, 1]), float(seen[inside].mean())


def _pair(
    template: Template, scan: sitk.Image, to_atlas: sitk.Transform, grid: sitk.Image, step: float
) -> tuple[sitk.Image, sitk.Image]:
    """Scan and atlas on one grid; where one of them has nothing, it takes the other's values, which exert no force."""
    fixed = sitk.Resample(scan, grid, sitk.Transform(), sitk.sitkLinear, OUTSIDE_HU)
    moving = sitk.Resample(template.ct, grid, to_atlas, sitk.sitkLinear, OUTSIDE_HU)
    a, b = sitk.GetArrayFromImage(fixed), sitk.GetArrayFromImage(moving)
    no_a, no_b = a < OUTSIDE_HU + 1, b < OUTSIDE_HU + 1
    a = np.clip(a, SETTINGS.low_hu, SETTINGS.high_hu)
    b = np.clip(b, SETTINGS.low_hu, SETTINGS.high_hu)
    a, b = np.where(no_a, b, a), np.where(no_b, a, b)
    out = []
    for values in (a, b):
        image = sitk.GetImageFromArray(values)
        image.CopyInformation(grid)
        smooth = step / 2.355 if step > SETTINGS.demons[-1][0] else 0.0
        out.append(sitk.SmoothingRecursiveGaussian(image, [smooth] * 3) if smooth else image)
    return out[0], out[1]


def _mask_corners(template: Template, T_scan_atlas: sitk.AffineTransform) -> Float:
    low, size = box_of(template.mask, 0.0)
    corners = [[low[a] + size[a] * bits[a] for a in range(3)] for bits in np.ndindex(2, 2, 2)]
    points = [template.mask.TransformContinuousIndexToPhysicalPoint([float(i) for i in c]) for c in corners]
    return np.array([T_scan_atlas.TransformPoint(p) for p in points])


def _ends(scan: sitk.Image) -> tuple[Float, Float]:
    low = np.array(scan.GetOrigin())
    return low, low + (np.array(scan.GetSize()) - 1) * np.array(scan.GetSpacing())


def _grid(low: Float, high: Float, step: float) -> sitk.Image:
    out = sitk.Image([int(n) + 1 for n in np.ceil((high - low) / step)], sitk.sitkUInt8)
    out.SetOrigin(low.tolist())
    out.SetSpacing([step] * 3)
    return out
