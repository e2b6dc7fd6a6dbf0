"""A scan as the atlas engine works on it: a coarse copy, and blocks of the scan itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.plausible import check_hounsfield, check_size_of_patient
from fluoronav.case.schema import CaseError
from fluoronav.case.volume import Volume
from fluoronav.planning.segmentation.engine import SegmentationError

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """What a scan must be."""

    working_mm: float = 1.5  # voxels of the coarse copy, about; chosen: a pedicle is 4 mm wide
    coarsest_mm: float = 5.0  # chosen: thicker slices do not show where one vertebra ends
    least_height_mm: float = 30.0  # along the patient; chosen: one lumbar vertebra
    metal_hu: float = 2500.0  # enamel and cortical bone stay below
    little_metal_cm3: float = 0.3  # a clip or an electrode
    much_metal_cm3: float = 150.0  # chosen: a long instrumentation of the spine has 60


LIMITS = ScanLimits()


@dataclass(frozen=True)
class Scan:
    """A scan.

    Attributes
    ----------
    native : SimpleITK.Image
        HU, as it was read.
    working : SimpleITK.Image
        HU, float32, voxels of about 1.5 mm, axes along the patient's as far as the scan's allow.
    metal_cm3 : float
        Volume above 2500 HU.
    warnings : tuple of str
    """

    native: sitk.Image = field(repr=False)
    working: sitk.Image = field(repr=False)
    metal_cm3: float = 0.0
    warnings: tuple[str, ...] = ()


def scan_of(ct: Volume) -> Scan:
    """Checks a CT and makes its coarse copy.

    Raises
    ------
    SegmentationError
        It is no CT in HU, too small, too coarse, or mostly metal.
    """
    try:
        check_size_of_patient(ct)
        warnings = check_hounsfield(_sampled(ct))
    except CaseError as error:
        raise SegmentationError(str(error)) from error
    image = ct.image
    spacing = np.array(image.GetSpacing())
    if spacing.max() > LIMITS.coarsest_mm:
        raise SegmentationError(
            f"{ct.path}: its voxels are {spacing.max():.3g} mm apart; the atlas needs {LIMITS.coarsest_mm:g} mm or less"
        )
    factors = [int(max(1, LIMITS.working_mm // s)) for s in spacing]
    working = sitk.Cast(sitk.BinShrink(image, factors) if max(factors) > 1 else image, sitk.sitkFloat32)
    working = _along_patient(sitk.DICOMOrient(working, "LPS"))
    height = working.GetSize()[2] * working.GetSpacing()[2]
    if height < LIMITS.least_height_mm:
        raise SegmentationError(
            f"{ct.path}: reaches {height:.0f} mm along the patient; at least {LIMITS.least_height_mm:g} mm are needed "
            "to recognise a vertebra"
        )
    metal = float((sitk.GetArrayViewFromImage(working) > LIMITS.metal_hu).sum() * np.prod(working.GetSpacing()) / 1000)
    if metal > LIMITS.much_metal_cm3:
        raise SegmentationError(
            f"{ct.path}: {metal:.0f} cm3 of it are above {LIMITS.metal_hu:g} HU, as metal is: too much to recognise "
            "bones in; import a segmentation instead (--engine import)"
        )
    if metal > LIMITS.little_metal_cm3:
        warnings.append(
            f"{ct.path}: {metal:.1f} cm3 of metal: bones beside it are less sure, and their confidence is lowered"
        )
    return Scan(image, working, metal, (*ct.warnings, *warnings))


def _sampled(ct: Volume) -> Volume:
    """The CT with every nth voxel, so that the checks of a large one take no second copy."""
    step = [max(1, n // 160) for n in ct.image.GetSize()]
    return Volume(sitk.Shrink(ct.image, step), ct.path, units=ct.units)


def _along_patient(image: sitk.Image) -> sitk.Image:
    """The image on axes that are the patient's; an oblique one is resampled."""
    if np.allclose(np.array(image.GetDirection()), np.eye(3).ravel(), atol=1e-3):
        image.SetDirection(np.eye(3).ravel().tolist())
        return image
    size = np.array(image.GetSize()) - 1
    corners = np.array(
        [image.TransformIndexToPhysicalPoint([int(s * b) for s, b in zip(size, bits, strict=True)])
         for bits in np.ndindex(2, 2, 2)]
    )  # fmt: skip
    spacing = np.full(3, max(min(image.GetSpacing()), LIMITS.working_mm))
    count = [int(n) + 1 for n in np.ptp(corners, axis=0) / spacing]
    return sitk.Resample(
        image, count, sitk.Transform(), sitk.sitkLinear, corners.min(0).tolist(), spacing.tolist(),
        np.eye(3).ravel().tolist(), OUTSIDE_HU,
    )  # fmt: skip


# Where the scan has nothing; below every tissue, so that it can be told apart.
OUTSIDE_HU = -2000.0
