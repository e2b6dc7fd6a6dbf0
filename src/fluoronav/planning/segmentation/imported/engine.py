"""The import engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.file import CaseFile
from fluoronav.case.label_checks import check_labels
from fluoronav.case.schema import CaseError
from fluoronav.case.volume import Volume, bounds, read_volume
from fluoronav.dicom.errors import DicomError
from fluoronav.planning.anatomy import OWN_LABELS, by_name
from fluoronav.planning.segmentation.engine import Progress, Segmentation, SegmentationError, SegmentedStructure
from fluoronav.planning.segmentation.imported.checks import exchanged, unusual
from fluoronav.planning.segmentation.imported.names import (
    SCHEMES,
    ImportScheme,
    known_name,
    names_beside,
    names_from,
    names_in_file,
    names_of_scheme,
)
from fluoronav.planning.segmentation.imported.surface import Coordinates, read_surface, voxels_of

# Nothing but the label map itself says how good it is; by a person's hand or a network, bones were held against HU.
_CONFIDENCE, _BONE_CONFIDENCE = 0.6, 0.8


@dataclass(frozen=True)
class ImportOptions:
    """What is imported.

    Attributes
    ----------
    files : tuple of Path
        Label maps (NIfTI, NRRD, MetaImage), DICOM segmentations, or surfaces (STL).
    scheme : ImportScheme or None
        What the values of label maps mean; None: as the file or a file beside it says.
    names : Path or None
        JSON or CSV with the names of values.
    name : str or None
        Of the structure, where a file holds one: an STL, or a mask of one value.
    coordinates : "lps", "ras" or None
        Of STL files; None: as their header says, else LPS.
    """

    files: tuple[Path, ...]
    scheme: ImportScheme | None = None
    names: Path | None = None
    name: str | None = None
    coordinates: Coordinates | None = None


@dataclass(frozen=True)
class _Part:
    """Structures of one file on the CT's grid."""

    voxels: NDArray[np.uint16]
    names: dict[int, str]
    warnings: list[str]


class ImportEngine:
    """Takes segmentations from files.

    Parameters
    ----------
    options : ImportOptions
    """

    name = "import"

    def __init__(self, options: ImportOptions) -> None:
        if not options.files:
            raise SegmentationError("--engine import needs the files to import: --from FILE ...")
        if options.name is not None and len(options.files) > 1:
            raise SegmentationError("--name names the structure of one file; import the files one by one")
        self._options = options

    def segment(self, ct: Volume, progress: Progress) -> Segmentation:
        """Reads the files; see :class:`fluoronav.planning.segmentation.engine.Engine`."""
        begun = time.perf_counter()
        out = np.zeros(ct.image.GetSize()[::-1], np.uint16)
        labels: dict[str, int] = {}
        warnings: list[str] = []
        for k, path in enumerate(self._options.files):
            progress(f"reading {path.name}", k / len(self._options.files))
            part = self._part(path, ct)
            warnings += part.warnings
            for value, name in part.names.items():
                if name in labels:
                    raise SegmentationError(f"{path}: {name} is already there from another file or label")
                labels[name] = _label_of(name, set(labels.values()))
                mask = part.voxels == value
                shared = int(np.count_nonzero(out[mask]))
                if shared:
                    warnings.append(f"{name}: {shared} voxels are also of another structure; the later one has them")
                out[mask] = labels[name]
        image = sitk.GetImageFromArray(out if out.max() > 255 else out.astype(np.uint8))
        image.CopyInformation(ct.image)
        progress("checking", 0.9)
        warnings += self._checked(image, out, labels, ct)
        structures = _structures(out, labels, ct.image)
        return Segmentation(
            image, structures, "import", time.perf_counter() - begun, (), tuple(dict.fromkeys(warnings))
        )

    def _part(self, path: Path, ct: Volume) -> _Part:
        if not path.exists():
            raise SegmentationError(f"{path}: no such file")
        if path.suffix.lower() == ".stl":
            corners, triangles, notes = read_surface(path, self._options.coordinates)
            mask = voxels_of(corners, triangles, ct.image, path)
            if not mask.any():
                raise SegmentationError(f"{path}: encloses no voxel of the CT")
            return _Part(mask.astype(np.uint16), {1: known_name(self._options.name or path.stem)}, notes)
        if path.is_file() and _is_dicom(path):
            return self._of_dicom(path, ct)
        return self._of_label_map(path, ct)

    def _of_dicom(self, path: Path, ct: Volume) -> _Part:
        from fluoronav.dicom.objects import is_segmentation, read_segmentation

        if not is_segmentation(path):
            raise SegmentationError(f"{path}: is DICOM, but no segmentation (SEG)")
        try:
            read = read_segmentation(path)
        except DicomError as error:
            raise SegmentationError(str(error)) from error
        frame = frame_of_reference(ct.path)
        if frame and read.frame_of_reference_uid and frame != read.frame_of_reference_uid:
            raise SegmentationError(
                f"{path}: was made in another frame of reference than {ct.path.name}: it is of another scan or "
                "patient, or of another time. Import it with the CT that it was made on"
            )
        known = by_name()
        names = {}
        for s in read.segments:
            by_label = known_name(s.label)
            names[s.number] = by_label if by_label in known or s.name is None else known_name(s.name)
        if self._options.name is not None:
            names = {n: known_name(self._options.name) for n in names}
        return self._on_grid(Volume(read.labels, path), names, ct, list(read.warnings))

    def _of_label_map(self, path: Path, ct: Volume) -> _Part:
        try:
            labels = read_volume(path)
        except CaseError as error:
            raise SegmentationError(str(error)) from error
        voxels = sitk.GetArrayViewFromImage(labels.image)
        low, high = float(voxels.min()), float(voxels.max())
        if low < 0 or high > 65535 or (voxels.dtype.kind == "f" and (voxels != np.rint(voxels)).any()):
            raise SegmentationError(
                f"{path}: is not a label map: its values reach from {low:g} to {high:g}"
                + ("" if low < 0 or high > 65535 else " and are not whole numbers")
            )
        if high == 0:
            raise SegmentationError(f"{path}: is empty: no voxel has a label")
        values = [int(v) for v in np.unique(voxels) if v > 0]
        names, warnings = self._names(path, values)
        return self._on_grid(labels, names, ct, [*labels.warnings, *warnings])

    def _names(self, path: Path, values: list[int]) -> tuple[dict[int, str], list[str]]:
        """What the values mean, and which have no name."""
        if self._options.name is not None:
            if len(values) > 1:
                raise SegmentationError(f"{path}: holds {len(values)} labels; --name is for a mask of one")
            return {values[0]: known_name(self._options.name)}, []
        beside = names_beside(path)
        if self._options.names is not None:
            table = names_from(self._options.names)
        elif self._options.scheme is not None:
            table = names_of_scheme(self._options.scheme)
        elif found := names_in_file(path):
            table = found
        elif beside is not None:
            table = names_from(beside)
        else:
            raise SegmentationError(
                f"{path}: does not say what its labels mean ({', '.join(map(str, values[:8]))}): say "
                f"--scheme {'|'.join(SCHEMES)}, --names FILE (JSON or CSV), or --name for a mask of one structure"
            )
        names = {v: known_name(table[v]) for v in values if v in table}
        without = [v for v in values if v not in table]
        if not names:
            raise SegmentationError(f"{path}: none of its labels ({', '.join(map(str, values[:8]))}) has a name there")
        left_out = f"{path}: labels without a name are left out: {', '.join(map(str, without[:12]))}"
        return names, [left_out] if without else []

    def _on_grid(self, labels: Volume, names: dict[int, str], ct: Volume, warnings: list[str]) -> _Part:
        """The labels on the CT's grid."""
        image = sitk.Cast(labels.image, sitk.sitkUInt16)
        if not (sitk.GetArrayViewFromImage(image) > 0).any():
            raise SegmentationError(f"{labels.path}: is empty: no voxel has a label")
        if not _same_grid(image, ct.image):
            before = _volume_mm3(image)
            same_size = image.GetSize() == ct.image.GetSize()
            image = sitk.Resample(image, ct.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
            kept = _volume_mm3(image) / before
            if kept < 0.5:
                hint = (
                    "it has as many voxels as the CT, so its header was lost on the way"
                    if same_size
                    else "is it of this patient and of this scan?"
                )
                raise SegmentationError(f"{labels.path}: {100 * (1 - kept):.0f} % of it lies outside the CT: {hint}")
            warnings.append(f"{labels.path}: lies on another grid; resampled to that of the CT")
            if kept < 0.98:
                warnings.append(f"{labels.path}: {100 * (1 - kept):.0f} % of it lies outside the CT and is left out")
        voxels = sitk.GetArrayFromImage(image)
        present = set(np.unique(voxels).tolist())
        lost = [name for value, name in names.items() if value not in present]
        if lost:
            warnings.append(f"{labels.path}: {', '.join(lost[:8])}: nothing of it lies in the CT")
        return _Part(voxels, {v: n for v, n in names.items() if v in present}, warnings)

    def _checked(self, image: sitk.Image, voxels: NDArray, labels: dict[str, int], ct: Volume) -> list[str]:
        """What is unusual; raises where the labels are not of this CT."""
        structures = [{"name": name, "label": label} for name, label in labels.items()]
        prior = {"isocentre_ct": [0.0, 0.0, 0.0], "source_to_isocentre_mm": 620.0}
        file = CaseFile.model_validate(
            {"name": "import", "ct": "ct", "labels": "labels", "structures": structures, "prior": prior}
        )
        path = self._options.files[0]
        try:
            aligned = sitk.DICOMOrient(image, "LPS")
            warnings = check_labels(ct, Volume(image, path), aligned, file, path)
        except CaseError as error:
            raise SegmentationError(str(error)) from error
        centres = {}
        for name, label in labels.items():
            mask = voxels == label
            warnings += unusual(name, mask, image)
            centres[name] = _centre(mask, image)
        pairs, wrong = exchanged(centres)
        if pairs and 2 * wrong > pairs:
            raise SegmentationError(
                f"{path}: in {wrong} of {pairs} pairs the left structure lies to the right of the right one: the label "
                "map is mirrored, or its sides are exchanged"
            )
        return warnings


def frame_of_reference(path: Path) -> str:
    """FrameOfReferenceUID of a DICOM series; empty for other files."""
    from fluoronav.dicom.reading import read_dataset

    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if not _is_dicom(file):
            continue
        try:
            dataset = read_dataset(file, with_pixels=False)
        except Exception:  # what is no readable header says nothing; the series was read without it, too
            continue
        if str(dataset.get("Modality") or "") == "CT":
            return str(dataset.get("FrameOfReferenceUID") or "")
    return ""


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _label_of(name: str, taken: set[int]) -> int:
    known = by_name().get(name)
    if known is not None:
        return known.label
    free = next((k for k in OWN_LABELS if k not in taken), None)
    if free is None:
        raise SegmentationError(f"more than {len(OWN_LABELS)} structures have names that are not known")
    return free


def _same_grid(a: sitk.Image, b: sitk.Image) -> bool:
    return a.GetSize() == b.GetSize() and all(
        np.allclose(x, y, atol=1e-3)
        for x, y in (
            (a.GetOrigin(), b.GetOrigin()),
            (a.GetSpacing(), b.GetSpacing()),
            (a.GetDirection(), b.GetDirection()),
        )
    )


def _volume_mm3(image: sitk.Image) -> float:
    return float((sitk.GetArrayViewFromImage(image) > 0).sum() * np.prod(image.GetSpacing()))


def _centre(mask: NDArray[np.bool_], image: sitk.Image) -> NDArray[np.float64]:
    box = bounds(mask)
    assert box is not None
    return np.array(image.TransformContinuousIndexToPhysicalPoint(((box[0] + box[1]) / 2).tolist()))


def _structures(voxels: NDArray, labels: dict[str, int], image: sitk.Image) -> tuple[SegmentedStructure, ...]:
    counts = np.bincount(voxels.ravel(), minlength=int(max(labels.values(), default=0)) + 1)
    voxel_cm3 = float(np.prod(image.GetSpacing())) / 1000
    known = by_name()
    names: Sequence[str] = [n for n in labels if counts[labels[n]]]
    return tuple(
        SegmentedStructure(
            name, labels[name], "import",
            _BONE_CONFIDENCE if name in known and known[name].is_bone else _CONFIDENCE,
            int(counts[labels[name]]), round(float(counts[labels[name]]) * voxel_cm3, 3),
        )
        for name in names
    )  # fmt: skip
