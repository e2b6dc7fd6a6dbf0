"""What of a CT tells its left side from its right: the heart lies to the left of the spine, and the liver to the right.

Vertebrae alone look the same in a mirror. One person in about 10,000 has these organs on the other sides (situs
inversus), so the result is a question for a person, never an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SideSettings:
    """How heart and liver are looked for; chosen, and seen to hold on the CTs that docs/screws.md names."""

    grid_mm: float = 4.0
    air_hu: float = -500.0  # below it and inside the body: lung
    body_hu: float = -300.0
    lung_cm3: float = 300.0  # of each lung that is there at least
    border: float = 0.02  # share of a lung's voxels that may lie at the side of the scan
    heart_mm: float = 4.0  # that the middle of what lies between the lungs is off the spine at least
    organ_hu: tuple[float, float] = (35.0, 180.0)  # of liver and spleen, with and without contrast
    smooth_hu: float = 35.0  # largest standard deviation within 12 mm
    organ_cm3: float = 250.0  # of such tissue in front of the spine, at least
    liver_share: float = 0.62  # of it on one side


SETTINGS = SideSettings()


@dataclass(frozen=True)
class Evidence:
    """What one organ says.

    Attributes
    ----------
    what : str
        In words, with the figure.
    says : "as usual" or "mirrored"
    """

    what: str
    says: Literal["as usual", "mirrored"]


def evidence_of_sides(ct: sitk.Image, spine_ct: Sequence[Sequence[float]] | Float) -> tuple[Evidence, ...]:
    """Where heart and liver lie, as far as the scan shows them clearly.

    Parameters
    ----------
    ct : SimpleITK.Image
        HU.
    spine_ct : array_like, shape (n, 3)
        Middles of vertebrae, LPS mm.

    Returns
    -------
    tuple of Evidence
        Empty where neither organ is in the scan, or clear.
    """
    scan = _Coarse.of(ct, np.asarray(spine_ct, np.float64))
    return tuple(e for e in (_heart(scan), _liver(scan)) if e is not None)


def question_of_sides(evidence: Sequence[Evidence]) -> str | None:
    """What a person is asked where organs lie as in a mirror; None where nothing speaks for it, or more against it."""
    against = [e.what for e in evidence if e.says == "mirrored"]
    if not against or len(against) < len(evidence):
        return None
    return (
        f"{' and '.join(against)}: is the CT mirrored (left and right exchanged), or does this patient have situs "
        "inversus? Compare with another study before left and right of a screw are believed"
    )


@dataclass(frozen=True)
class _Coarse:
    """A CT on a coarse grid along the patient's axes: z, y (to the back), x (to the left).

    Attributes
    ----------
    inside : ndarray of bool
        In the body.
    off_mm : ndarray, shape (z, 1, x)
        To the left of the spine.
    in_front : ndarray of bool, shape (z, y, 1)
        In front of the spine.
    """

    hu: NDArray[np.float32]
    inside: NDArray[np.bool_]
    off_mm: Float
    in_front: NDArray[np.bool_]
    voxel_cm3: float

    @classmethod
    def of(cls, ct: sitk.Image, spine_ct: Float) -> _Coarse:
        image = sitk.DICOMOrient(ct, "LPS")
        step = SETTINGS.grid_mm
        # Averages of blocks, so that the noise of a fine scan does not decide.
        image = sitk.BinShrink(image, np.maximum(step // np.array(image.GetSpacing()), 1).astype(int).tolist())
        image = sitk.Cast(image, sitk.sitkFloat32)
        size = np.floor((np.array(image.GetSize()) - 1) * image.GetSpacing() / step).astype(int) + 1
        image = sitk.Resample(
            image, size.tolist(), sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), [step] * 3,
            image.GetDirection(), -1000.0, sitk.sitkFloat32,
        )  # fmt: skip
        hu = sitk.GetArrayFromImage(image)
        origin = np.array(image.GetOrigin())
        order = np.argsort(spine_ct[:, 2])
        heights = origin[2] + step * np.arange(hu.shape[0])
        x, y = (np.interp(heights, spine_ct[order, 2], spine_ct[order, a]) for a in (0, 1))
        columns, rows = (origin[a] + step * np.arange(hu.shape[2 - a]) for a in (0, 1))
        off = columns[None, None, :] - x[:, None, None]
        in_front = rows[None, :, None] < y[:, None, None]
        return cls(hu, _body(hu), off, in_front, step**3 / 1000)


def _body(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    parts = np.zeros(hu.shape, np.int32)
    n = int(ndimage.label(hu > SETTINGS.body_hu, output=parts))  # type: ignore[call-overload,arg-type]
    if not n:
        return np.zeros(hu.shape, bool)
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return np.stack([np.asarray(ndimage.binary_fill_holes(plane), bool) for plane in largest])


def _heart(scan: _Coarse) -> Evidence | None:
    lung = scan.inside & (scan.hu < SETTINGS.air_hu)
    left, right = lung & (scan.off_mm > 0), lung & (scan.off_mm < 0)
    least = SETTINGS.lung_cm3 / scan.voxel_cm3
    for side, column in ((left, -1), (right, 0)):
        if side.sum() < least or side[:, :, column].sum() > SETTINGS.border * side.sum():
            return None
    # In each row in front of the spine with both lungs: what lies between them.
    both = left.any(2) & right.any(2) & scan.in_front[:, :, 0]
    z, y = np.nonzero(both)
    if not len(z):
        return None
    first = lung.shape[2] - np.argmax(right[z, y, ::-1], axis=1)  # after the right lung's innermost voxel
    last = np.argmax(left[z, y], axis=1)
    columns = np.arange(lung.shape[2])
    between = (columns >= first[:, None]) & (columns < last[:, None])
    if between.sum() < least:
        return None
    off = float((np.broadcast_to(scan.off_mm, lung.shape)[z, y] * between).sum() / between.sum())
    if abs(off) < SETTINGS.heart_mm:
        return None
    where = "left" if off > 0 else "right"
    return Evidence(
        f"what lies between the lungs, the heart above all, reaches to the {where} ({abs(off):.0f} mm off the spine)",
        "as usual" if off > 0 else "mirrored",
    )


def _liver(scan: _Coarse) -> Evidence | None:
    low, high = SETTINGS.organ_hu
    mean = ndimage.uniform_filter(scan.hu, 3)
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(scan.hu**2, 3) - mean**2, 0))
    organ = scan.inside & scan.in_front & (mean > low) & (mean < high) & (spread < SETTINGS.smooth_hu)
    organ = np.asarray(ndimage.binary_opening(organ, np.ones((3, 3, 3), bool), iterations=2), bool)
    total = float(organ.sum())
    if total * scan.voxel_cm3 < SETTINGS.organ_cm3:
        return None
    right = float((organ & (scan.off_mm < 0)).sum()) / total
    if max(right, 1 - right) < SETTINGS.liver_share:
        return None
    where = "right" if right > 0.5 else "left"
    return Evidence(
        f"{100 * max(right, 1 - right):.0f} % of what looks like liver and spleen lies to the {where} of the spine",
        "as usual" if right > 0.5 else "mirrored",
    )
