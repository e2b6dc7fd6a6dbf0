"""Loads ``case.yaml`` and the files that it names."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from fluoronav.case.approved_plan import check_approved_plan
from fluoronav.case.ct import checked_ct
from fluoronav.case.distance import DistanceField, distance_field, sample_distances
from fluoronav.case.file import CaseFile, PriorPose, Trajectory, read_case_file
from fluoronav.case.intensity import to_hounsfield
from fluoronav.case.label_checks import check_labels
from fluoronav.case.no_go import NoGo
from fluoronav.case.place_checks import check_places
from fluoronav.case.plausible import check_bone_volume
from fluoronav.case.schema import CaseError
from fluoronav.case.tool import Tool
from fluoronav.case.volume import Volume, read_volume
from fluoronav.paths import cache_folder, embedded_case

log = logging.getLogger(__name__)
_MOST_LABEL = 65_535  # largest value of a label map; chosen: larger values number no structures


@dataclass(frozen=True)
class Structure:
    """An anatomical structure with its distance field and thresholds (mm; None: without alerts)."""

    name: str
    label: int
    color: str
    caution_mm: float | None
    danger_mm: float | None
    field: DistanceField = field(repr=False)
    drawn: bool = True

    def distances(self, points_ct: np.ndarray, out: np.ndarray) -> None:
        """Signed distances to the surface and unit vectors away from it: points (n, 3) LPS mm, out (n, 4)."""
        sample_distances(self.field.hundredths, self.field.origin_ct, self.field.spacing_mm, points_ct, out)


@dataclass(frozen=True)
class Bones:
    """Bones that move as one body: labels of the label map, or a volume of their own (HU, air around them)."""

    name: str
    labels: tuple[int, ...]
    volume: Volume | None = field(repr=False)


@dataclass(frozen=True)
class Case:
    """One patient's case, loaded.

    Attributes
    ----------
    id : str
        Name, and the first digits of a hash of everything that changes guidance: the case file with its tool files, and
        the voxels and the position of every volume. `health` reports it.
    warnings : tuple of str
        What was not read, or is unusual.
    """

    id: str
    path: Path
    file: CaseFile = field(repr=False)
    ct: Volume = field(repr=False)
    labels: Volume | None = field(repr=False)
    surroundings: Volume | None = field(repr=False)
    structures: tuple[Structure, ...] = field(repr=False)
    objects: tuple[Bones, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def plan(self) -> tuple[Trajectory, ...]:
        return self.file.plan

    @property
    def tools(self) -> tuple[Tool, ...]:
        return self.file.tools

    @property
    def watched(self) -> tuple[Structure | NoGo, ...]:
        """Structures and no-go regions with thresholds."""
        return (*(s for s in self.structures if s.caution_mm is not None), *self.file.no_go)

    @property
    def prior(self) -> PriorPose:
        return self.file.prior

    @property
    def rigid_labels(self) -> tuple[int, ...]:
        """Labels of the bones that move as one body; empty where the case does not name them."""
        names = self.file.rigid.structures if self.file.rigid else ()
        return tuple(s.label for s in self.structures if s.name in names)

    @property
    def target_ct(self) -> np.ndarray:
        """The point at which the registration's error is stated: the plan's first target, or the isocentre."""
        return np.array(self.plan[0].target_ct if self.plan else self.prior.isocentre_ct, dtype=np.float64)


def load_case(path: str | Path, cache: Path | None = None, progress: Callable[[str], None] = lambda _: None) -> Case:
    """Loads a case, computing what is not cached.

    Parameters
    ----------
    path : path
        A ``case.yaml``, a folder that holds one, or the word ``embedded``.
    cache : Path, optional
        Folder for distance fields; the user's cache by default.
    progress : callable
        Takes a text for each step.

    Raises
    ------
    CaseError
    """
    path = embedded_case() if str(path) == "embedded" else Path(path)
    path = _case_file(path)
    file = read_case_file(path)
    folder = path.parent
    cache = cache or cache_folder("distance")

    progress(f"reading {file.ct}")
    ct, warnings = checked_ct(read_volume(folder / file.ct, file.ct_series), file.units)
    surroundings = None
    if file.surroundings is not None:
        surroundings, unusual = checked_ct(read_volume(folder / file.surroundings), file.units)
        warnings += unusual
    warnings += check_places(file, ct, surroundings, path)

    structures = []
    labels = read_volume(folder / file.labels) if file.labels is not None else None
    if file.approved_plan is not None:
        progress(f"checking the approved plan {file.approved_plan.file}")
        check_approved_plan(file.approved_plan, path, ct, labels, file.plan)
    if labels is not None:
        aligned = along_patient_axes(labels)
        warnings += [*labels.warnings, *check_labels(ct, labels, aligned, file, path)]
        for s in file.structures:
            progress(f"distance field of {s.name}")
            structure_field = distance_field(aligned, s.label, cache)
            structures.append(Structure(s.name, s.label, s.color, s.caution_mm, s.danger_mm, structure_field, s.drawn))
    objects = []
    for o in file.objects:
        own = tuple(s.label for s in structures if s.name in o.structures)
        volume = None
        if o.volume is not None:
            bone = to_hounsfield(read_volume(folder / o.volume), o.units, "units:")
            volume = bone.volume
            check_bone_volume(ct, volume, f"{path}: objects: {o.name}")
            warnings += [*volume.warnings, *([bone.note] if bone.note and bone.units != "hu" else [])]
        objects.append(Bones(o.name, own, volume))
    for warning in warnings:
        log.warning("%s", warning)
    return Case(
        id=f"{file.name}@{_digest(file, [ct, labels, surroundings, *(o.volume for o in objects)])[:12]}",
        path=path,
        file=file,
        ct=ct,
        labels=labels,
        surroundings=surroundings,
        structures=tuple(structures),
        objects=tuple(objects),
        warnings=tuple(warnings),
    )


def _case_file(path: Path) -> Path:
    """The case file of a folder; raises :class:`CaseError` where it is DICOM that was named instead."""
    if path.name.upper() == "DICOMDIR" or path.suffix.lower() == ".dcm":
        what = "is DICOM, not a case file"
    elif path.is_dir() and not (path / "case.yaml").exists():
        what = "holds no case.yaml"
    else:
        return path / "case.yaml" if path.is_dir() else path
    raise CaseError(
        f"{path}: {what}; write a case.yaml that names the CT (a DICOM folder, DICOMDIR or file) as `ct`. `fluoronav "
        f"dicom show {path}` says what DICOM there is, and which `ct_series`"
    )


def _digest(file: CaseFile, volumes: Sequence[Volume | None]) -> str:
    """Hash of everything that changes guidance: the case file, and each volume's voxels and position.

    Paths are no part of it: a copy of a case is the same case. Nor is `procedure`, which is only shown.
    """
    shown_or_paths = {"procedure", "ct", "units", "ct_series", "labels", "surroundings"}
    content = file.model_dump(mode="json", exclude=shown_or_paths)
    if file.approved_plan is None:
        del content["approved_plan"]
    else:
        del content["approved_plan"]["file"]
    for o in content["objects"]:
        # The voxels are in HU by now.
        del o["units"]
        o["volume"] = o["volume"] is not None
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for volume in volumes:
        if volume is None:
            digest.update(b"none")
            continue
        image = volume.image
        place = np.array([*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection()])
        digest.update(f"{image.GetSize()} {volume.voxels.dtype.str}".encode())
        digest.update(place.tobytes())
        digest.update(np.ascontiguousarray(volume.voxels).data)
    return digest.hexdigest()


def along_patient_axes(labels: Volume) -> sitk.Image:
    """The label map with unit direction cosines: flipped or permuted, or resampled where it is oblique."""
    image = labels.image
    low, high = labels.voxels.min(), labels.voxels.max()
    if low < 0 or high > _MOST_LABEL:
        raise CaseError(f"{labels.path}: is not a label map: its values reach from {low:g} to {high:g}")
    if image.GetPixelID() not in (sitk.sitkUInt8, sitk.sitkUInt16, sitk.sitkInt16, sitk.sitkInt32, sitk.sitkUInt32):
        rounded = np.rint(labels.voxels)
        if np.abs(labels.voxels - rounded).max() > 1e-3:
            raise CaseError(f"{labels.path}: is not a label map: its values are not whole numbers")
        whole = sitk.GetImageFromArray(rounded.astype(np.int32))
        whole.CopyInformation(image)
        image = whole
    image = sitk.DICOMOrient(image, "LPS")
    if np.allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-4):
        return image
    corners = labels.corners_ct()
    spacing = min(image.GetSpacing())
    size = np.ceil(np.ptp(corners, axis=0) / spacing).astype(int) + 1
    grid = sitk.Image([int(n) for n in size], image.GetPixelID())
    grid.SetOrigin(corners.min(0).tolist())
    grid.SetSpacing([spacing] * 3)
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
