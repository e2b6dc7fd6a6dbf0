"""The case that the registration gets: a CT as a hospital would hand it over, made worse as the scene says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case import Case, CaseFile, Structure, Volume
from fluoronav.case.distance import distance_field
from fluoronav.case.loading import Bones, along_patient_axes
from fluoronav.lab.bench.cohort.people import VESSELS, Person, Region
from fluoronav.lab.bench.cohort.physics import BLOOD_HU, CONTRAST_HU
from fluoronav.lab.bench.cohort.scenes import GivenCt
from fluoronav.lab.bench.cohort.streaks import with_screws
from fluoronav.paths import cache_folder

Float = NDArray[np.float64]


@dataclass(frozen=True)
class CropSettings:
    """How small fields are cut out; all chosen."""

    around_vertebrae_mm: float = 70.0  # to the sides of a CT of few vertebrae: a small field of an intraoperative CT
    margin_mm: float = 3.0  # above and below them
    whole: float = 0.9  # a bone counts as seen with so much of it in the field
    source_to_isocentre_mm: float = 620.0  # of the prior, as in `bench registration`


SETTINGS = CropSettings()


@lru_cache(4)
def given_case(person: Person, region: Region, given: GivenCt, turn: int) -> Case:
    """The case of one person for one region.

    Parameters
    ----------
    person : Person
    region : Region
    given : GivenCt
    turn : int
        Which of the kernels and slice thicknesses, counted on.
    """
    target = person.target_ct(region)
    ct, around = person.ct, person.surroundings
    labels = person.labels if given.labels and region.target else None
    if not given.contrast and person.labels is not None:
        ct = replace(ct, image=without_contrast(ct.image, person.labels.image))
    if given.screws:
        ct = replace(ct, image=with_screws(person, region, given.screws))
    if given.kernels:
        ct = replace(ct, image=_with_kernel(ct.image, given.kernels[turn % len(given.kernels)]))
    if given.slices_mm:
        ct = replace(ct, image=_with_slices(ct.image, given.slices_mm[turn % len(given.slices_mm)]))
    if given.cube_mm:
        half = np.full(3, given.cube_mm / 2)
        ct, labels, around = _cut(ct, labels, target - half, target + half)
    if given.vertebrae and person.labels is not None:
        kept = [n for n in region.rigid if region.target - given.vertebrae < n <= region.target]
        low, high = person.labels.extent_ct(tuple(kept))
        side = np.array([SETTINGS.around_vertebrae_mm] * 2 + [0])
        room = np.array([0, 0, SETTINGS.margin_mm])
        middle = np.array([*target[:2], 0.0])
        z = np.array([0, 0, 1.0])
        ct, labels, around = _cut(ct, labels, middle - side + z * low - room, middle + side + z * high + room)
    rigid = _seen(person, region, labels)
    return _case(person, region, ct, labels, around, rigid, target)


def _case(
    person: Person, region: Region, ct: Volume, labels: Volume | None, around: Volume | None,
    rigid: tuple[int, ...], target: Float,
) -> Case:  # fmt: skip
    names = person.structures
    at = [round(float(x), 1) for x in target]
    file = CaseFile.model_validate({
        "name": f"{person.name}-{region.name}",
        "ct": ct.path.name,
        "rigid": {"structures": [names[n] for n in rigid]} if rigid else None,
        "structures": [{"name": names[n], "label": n} for n in rigid],
        "labels": labels.path.name if labels is not None and rigid else None,
        "plan": [{"name": "target", "entry_ct": (target + [0, 40, 0]).tolist(), "target_ct": target.tolist()}],
        "prior": {"isocentre_ct": at, "source_to_isocentre_mm": SETTINGS.source_to_isocentre_mm},
    })  # fmt: skip
    structures, objects = [], []
    if labels is not None and rigid:
        aligned = along_patient_axes(labels)
        for n in rigid:
            field = distance_field(aligned, n, cache_folder("distance"))
            structures.append(Structure(names[n], n, "#ffffff", None, None, field))
            objects.append(Bones(names[n], (n,), None))
    return Case(
        id=f"{person.name}-{region.name}", path=ct.path, file=file, ct=ct, labels=labels if rigid else None,
        surroundings=around, structures=tuple(structures), objects=tuple(objects),
    )  # fmt: skip


def _seen(person: Person, region: Region, labels: Volume | None) -> tuple[int, ...]:
    """Bones of the region that the label map still shows, nearly whole."""
    if labels is None or person.labels is None:
        return ()
    before, after = (np.bincount(v.voxels.ravel().astype(np.int64), minlength=120) for v in (person.labels, labels))
    return tuple(n for n in region.rigid if after[n] > SETTINGS.whole * before[n])


def without_contrast(image: sitk.Image, labels: sitk.Image) -> sitk.Image:
    """The CT with blood in its vessels instead of contrast."""
    voxels = sitk.GetArrayFromImage(image)
    there = sitk.Resample(sitk.Cast(labels, sitk.sitkUInt8), image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    vessels = np.isin(sitk.GetArrayViewFromImage(there), [*VESSELS])
    voxels[vessels & (voxels > CONTRAST_HU)] = BLOOD_HU
    out = sitk.GetImageFromArray(voxels)
    out.CopyInformation(image)
    return out


def _with_kernel(image: sitk.Image, blur_mm: float) -> sitk.Image:
    """Blurred in the slices; with a negative width sharpened by what such a blur takes away."""
    values = sitk.Cast(image, sitk.sitkFloat32)
    smooth = values
    for axis in (0, 1):
        smooth = sitk.RecursiveGaussian(smooth, abs(blur_mm), False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis)
    out = smooth if blur_mm > 0 else 2 * values - smooth
    return sitk.Cast(sitk.Round(sitk.Clamp(out, sitk.sitkFloat32, -1024, 3071)), sitk.sitkInt16)


def _with_slices(image: sitk.Image, slice_mm: float) -> sitk.Image:
    """Thick slices: the mean over each slice's thickness along the image's third axis."""
    values = sitk.Cast(image, sitk.sitkFloat32)
    spacing, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    thin = slice_mm / 5
    grid = size[:2].tolist(), int(np.floor((size[2] - 1) * spacing[2] / slice_mm))
    total = None
    for k in range(5):
        first = image.TransformContinuousIndexToPhysicalPoint([0.0, 0.0, (k + 0.5) * thin / spacing[2]])
        one = sitk.Resample(
            values, [*grid[0], grid[1]], sitk.Transform(), sitk.sitkLinear, first,
            [*spacing[:2].tolist(), slice_mm], image.GetDirection(), -1024.0, sitk.sitkFloat32,
        )  # fmt: skip
        # Five samples make a slice; all are put where the slice's middle is.
        one.SetOrigin(image.TransformContinuousIndexToPhysicalPoint([0.0, 0.0, slice_mm / 2 / spacing[2]]))
        total = one if total is None else total + one
    assert total is not None
    return sitk.Cast(sitk.Round(total / 5), sitk.sitkInt16)


def _cut(ct: Volume, labels: Volume | None, low: Float, high: Float) -> tuple[Volume, Volume | None, None]:
    """CT and label map in a box, LPS mm; a reconstruction of a small field has no surroundings."""
    inside = _box_of(ct.image, low, high)
    return replace(ct, image=inside), labels and replace(labels, image=_box_of(labels.image, low, high)), None


def _box_of(image: sitk.Image, low: Float, high: Float) -> sitk.Image:
    at = np.array([image.TransformPhysicalPointToContinuousIndex(p.tolist()) for p in (low, high)])
    first = np.maximum(np.ceil(at.min(0)), 0).astype(int)
    last = np.minimum(np.floor(at.max(0)), np.array(image.GetSize()) - 1).astype(int)
    return sitk.RegionOfInterest(image, (last - first + 1).tolist(), first.tolist())
