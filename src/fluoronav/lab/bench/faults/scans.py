"""Small scans of the embedded patient, as images and as DICOM series, and cases of them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from fluoronav.lab.bench.faults.command import Ended, fluoronav
from fluoronav.paths import embedded_case

# 80 x 90 x 20 voxels of the embedded CT, around T8.
_CROP = (slice(58, 138), slice(110, 200), slice(33, 53))
_INTERCEPT_HU = -1024
# Lengths that a DICOM decimal string and a double hold exactly, so that two readers agree.
_EXACT_SPACING_MM, _EXACT_ORIGIN_MM = (0.75, 0.75, 2.5), (-30.0, 64.0, -185.0)
PRIOR = {"isocentre_ct": [0, 91.7, -158.5], "source_to_isocentre_mm": 620}
CORD = {"name": "spinal_cord", "label": 79, "color": "#ffffff", "caution_mm": 5, "danger_mm": 2}
T8 = {"name": "vertebrae_T8", "label": 36, "color": "#ffffff"}


def embedded(name: str) -> sitk.Image:
    """The whole ``ct`` or ``labels`` of the embedded case."""
    return sitk.ReadImage(str(embedded_case().parent / f"{name}.nrrd"))


def crop(name: str) -> sitk.Image:
    """Its part around T8."""
    return embedded(name)[_CROP]


def exact_ct(spacing_mm: Sequence[float] = _EXACT_SPACING_MM) -> sitk.Image:
    """The crop as float32 HU, with origin and spacing that every file format holds exactly."""
    ct = sitk.Cast(crop("ct"), sitk.sitkFloat32)
    ct.SetSpacing(spacing_mm)
    ct.SetOrigin(_EXACT_ORIGIN_MM)
    return ct


def write_case(folder: Path, ct: str, **more: Any) -> Path:
    """A case file in the folder; returns its path."""
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump({"name": "odd", "ct": ct, "prior": PRIOR} | more))
    return path


def build(folder: Path, case: Path, seconds: float = 60.0, **how: Any) -> Ended:
    """`fluoronav case build` of it."""
    return fluoronav("case", "build", case, folder=folder, seconds=seconds, **how)


def case_id(ended: Ended) -> str | None:
    """The id that `case build` printed; it covers every voxel and its position."""
    ids = [line.split()[1] for line in ended.text.splitlines() if line.startswith("case ")]
    return ids[0] if ended.code == 0 and ids else None


def slices(ct: sitk.Image, **tags: Any) -> list[FileDataset]:
    """The image as one DICOM dataset a slice; a tag that is None is left out."""
    voxels, (sx, sy, sz) = sitk.GetArrayFromImage(ct), ct.GetSpacing()
    series, frame = generate_uid(), generate_uid()
    out = []
    for k in range(voxels.shape[0]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CTImageStorage)
        meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
        d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
            "SeriesInstanceUID": series, "FrameOfReferenceUID": frame, "InstanceNumber": k + 1,
            "Rows": voxels.shape[1], "Columns": voxels.shape[2], "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
            "PixelRepresentation": 0, "PixelSpacing": [sy, sx], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": list(ct.TransformIndexToPhysicalPoint((0, 0, k))), "SliceThickness": sz,
            "RescaleSlope": 1, "RescaleIntercept": _INTERCEPT_HU,
            "PixelData": (voxels[k].astype(np.int32) - _INTERCEPT_HU).clip(0, 65535).astype("<u2").tobytes(),
        }  # fmt: skip
        for name, value in (values | tags).items():
            if value is not None:
                setattr(d, name, value)
        out.append(d)
    return out


def enhanced(single: Sequence[FileDataset]) -> FileDataset:
    """Single slices as one enhanced CT, with shuffled frames (PS3.3 C.7.6.16)."""
    # The order of frames need not be spatial.
    single = [*single[::2], *single[1::2]]
    e = deepcopy(single[0])
    e.file_meta.MediaStorageSOPClassUID = e.SOPClassUID = EnhancedCTImageStorage
    e.NumberOfFrames = len(single)
    e.PixelData = b"".join(s.PixelData for s in single)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_part(single[0], "PixelSpacing", "SliceThickness")]
    shared.PlaneOrientationSequence = [_part(single[0], "ImageOrientationPatient")]
    shared.PixelValueTransformationSequence = [_part(single[0], "RescaleSlope", "RescaleIntercept")]
    shared.PixelValueTransformationSequence[0].RescaleType = "HU"
    e.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for s in single:
        frame = Dataset()
        frame.PlanePositionSequence = [_part(s, "ImagePositionPatient")]
        frames.append(frame)
    e.PerFrameFunctionalGroupsSequence = frames
    for tag in (
        "PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope",
        "RescaleIntercept",
    ):  # fmt: skip
        delattr(e, tag)
    return e


def save(datasets: Sequence[FileDataset], folder: Path, prefix: str = "") -> Path:
    """One numbered file each; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, d in enumerate(datasets):
        d.save_as(folder / f"{prefix}{k:04d}.dcm", enforce_file_format=True)
    return folder


def _part(source: Dataset, *tags: str) -> Dataset:
    """A dataset with some of another's tags."""
    part = Dataset()
    for tag in tags:
        setattr(part, tag, getattr(source, tag))
    return part
