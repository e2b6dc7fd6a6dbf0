"""CT and MR slices in DICOM files: single slices (PS3.3 C.7.6.2, image plane module; C.11.1, rescale) and multi-frame
objects whose functional groups place each frame (PS3.3 C.7.6.16; Enhanced CT and MR, X-Ray 3D). Only headers are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedXAImageStorage,
    EnhancedXRFImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    XRay3DAngiographicImageStorage,
    XRay3DCraniofacialImageStorage,
)

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.reading import LIMITS as FILE
from fluoronav.dicom.reading import UNREADABLE, read_dataset


@dataclass(frozen=True, slots=True)
class SliceLimits:
    """Limits of one slice; chosen."""

    cosine: float = 1e-3  # tolerance of direction cosines


LIMITS = SliceLimits()
# Volumes reconstructed by a C-arm or a dental scanner; their modality is that of the C-arm.
_XRAY_3D = (XRay3DAngiographicImageStorage, XRay3DCraniofacialImageStorage)
_CAPTURED = (
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
# The SOP classes that are a volume of that modality.
_CLASSES = {
    "CT": (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage, *_CAPTURED),
    "MR": (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage),
}
_MODALITIES = {"MR": "magnetic resonance", "PT": "positron emission", "NM": "nuclear medicine", "US": "ultrasound"}
# Their functional groups place no frame.
_PROJECTIONS = (EnhancedXAImageStorage, EnhancedXRFImageStorage)
# How makers call a scout view in ImageType or FrameType; LOCALIZER is the standard's word (PS3.3 C.8.2.1.1.1).
_LOCALIZERS = {"LOCALIZER", "SCOUT", "TOPOGRAM"}


@dataclass(frozen=True)
class DicomFile:
    """The header and the path of a readable file with pixels."""

    header: pydicom.Dataset
    path: Path

    @property
    def frames(self) -> int:
        return max(int(self.header.get("NumberOfFrames") or 1), 1)

    @property
    def has_groups(self) -> bool:
        return "PerFrameFunctionalGroupsSequence" in self.header

    @property
    def is_placed(self) -> bool:
        """Whether it has a tag of a position in the patient, if only an empty one."""
        if self.has_groups:
            return sop_class(self.header) not in _PROJECTIONS
        return "ImageOrientationPatient" in self.header or "ImagePositionPatient" in self.header


@dataclass(frozen=True)
class Slice:
    """One slice: a file, or one frame of it."""

    file: DicomFile
    frame: int
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]
    slope: float
    intercept: float

    @property
    def name(self) -> str:
        return f"{self.file.path}" + (f", frame {self.frame + 1}" if self.file.has_groups else "")


def opened_file(path: Path) -> tuple[DicomFile | None, str]:
    """The header of a file with pixels; or the reason why it has none."""
    if not path.is_file():
        return None, "pipe, socket or device"
    length = path.stat().st_size
    if length == 0:
        return None, "empty"
    if length > FILE.most_bytes:
        return None, f"larger than {FILE.most_bytes / 2**30:.2f} GiB"
    try:
        with path.open("rb") as file:
            start = file.read(132)
        # Without the preamble an element of group 2 or 8 comes first.
        if start[128:132] != b"DICM" and start[:2] not in (b"\x02\x00", b"\x08\x00"):
            return None, "no DICOM"
        header = read_dataset(path, with_pixels=False, force=True)
        if "Rows" not in header or "Columns" not in header:
            return None, "without an image, or cut off in the header"
        return DicomFile(header, path), ""
    except DicomError:
        return None, "deflated, and too large when inflated"
    except UNREADABLE:
        return None, "unreadable"


def check_is_volume(file: DicomFile, modalities: Sequence[str]) -> None:
    """Refuses an object that is no volume of these modalities ("CT", "MR"); the text names what it is."""
    header, path = file.header, file.path
    uid, modality = sop_class(header), str(header.get("Modality") or "")
    if uid not in _XRAY_3D or "CT" not in modalities:
        if modality not in modalities:
            known = f" ({_MODALITIES[modality]})" if modality in _MODALITIES else ""
            is_what = f"is {modality}{known}" if modality else "is empty or absent"
            needs = "; a case needs a CT in HU" if tuple(modalities) == ("CT",) else ""
            raise DicomError(f"{path}: Modality (0008,0060) {is_what}, not {' or '.join(modalities)}{needs}")
        if uid and uid not in _CLASSES[modality]:
            raise DicomError(f"{path}: is {UID(uid).name} although Modality (0008,0060) says {modality}")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise DicomError(f"{path}: SamplesPerPixel (0028,0002) is {header.SamplesPerPixel}: a picture, not a CT")
    if file.frames > 1 and not file.has_groups:
        raise DicomError(
            f"{path}: has {file.frames} frames but no functional groups that place them in the patient "
            f"(PerFrameFunctionalGroupsSequence (5200,9230)); export it as single slices or as enhanced {modality}"
        )
    if "ModalityLUTSequence" in header:
        raise DicomError(f"{path}: ModalityLUTSequence (0028,3000) is not read; export it with a rescale")


def sop_class(header: pydicom.Dataset) -> str:
    """The SOP class's UID; empty where none is said."""
    meta = getattr(header, "file_meta", None)
    return str(header.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta else "") or "")


def is_xray_volume(header: pydicom.Dataset) -> bool:
    """Whether it is a volume that a C-arm or a dental scanner reconstructed (X-Ray 3D)."""
    return sop_class(header) in _XRAY_3D


def is_localizer(file: DicomFile, frame: int = 0) -> bool:
    """Whether a frame, from 0, is a scout view, by ImageType (0008,0008) or FrameType (0008,9007)."""
    words = _words(file.header.get("ImageType"))
    if file.has_groups:
        shared = file.header.get("SharedFunctionalGroupsSequence") or ()
        own = file.header.PerFrameFunctionalGroupsSequence or ()
        for groups in (*own[frame : frame + 1], *shared[:1]):
            for macro in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence"):
                for item in groups.get(macro) or ():
                    words += _words(item.get("FrameType"))
    return not _LOCALIZERS.isdisjoint(words)


def _words(value: object) -> list[str]:
    if value is None or isinstance(value, str):
        return [value.upper()] if value else []
    return [str(v).upper() for v in value] if isinstance(value, Iterable) else []


def is_mr(file: DicomFile) -> bool:
    """Whether it is magnetic resonance, by its modality."""
    return str(file.header.get("Modality") or "") == "MR"


def slices_of(file: DicomFile) -> list[Slice]:
    """The slices of a file, one for each frame; raises :class:`DicomError` where a tag is absent or invalid."""
    header, path = file.header, file.path
    if not file.has_groups:
        return [_slice(file, 0, [header] * 4, path)]
    per_frame = header.PerFrameFunctionalGroupsSequence or ()
    if len(per_frame) != file.frames:
        raise DicomError(
            f"{path}: NumberOfFrames (0028,0008) is {file.frames}, but {len(per_frame)} frames are described in "
            "PerFrameFunctionalGroupsSequence (5200,9230)"
        )
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    out = []
    for k, own in enumerate(per_frame):
        parts = []
        for macro in (
            "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
            "PixelValueTransformationSequence",
        ):  # fmt: skip
            items = own.get(macro) or shared.get(macro)
            if not items and macro == "PixelValueTransformationSequence" and is_mr(file):
                items = [pydicom.Dataset()]
            if not items:
                raise DicomError(f"{path}, frame {k + 1}: {tag_name(macro)} is absent or empty")
            parts.append(items[0])
        out.append(_slice(file, k, parts, f"{path}, frame {k + 1}"))
    return out


def _slice(file: DicomFile, frame: int, parts: Sequence[pydicom.Dataset], where: Path | str) -> Slice:
    """One slice, from the datasets with its position, orientation, spacing and rescale (often one and the same)."""
    position, orientation, measures, values = parts
    unit = str(values.get("RescaleType") or "HU")
    # Most CBCT write US (unspecified); the values tell later whether they are HU.
    if unit not in ("HU", "HU_MOD", "US") and not is_mr(file):
        raise DicomError(f"{where}: {tag_name('RescaleType')} is {unit}, not HU")
    if is_mr(file) and values.get("RescaleSlope") is None:
        slope, intercept = 1.0, 0.0  # the intensities of MR have no unit, and most series no rescale
    else:
        slope, intercept = (_numbers(values, k, 1, where)[0] for k in ("RescaleSlope", "RescaleIntercept"))
    if not slope > 0:
        raise DicomError(f"{where}: {tag_name('RescaleSlope')} is {slope:g}; it must be above 0")
    cosines = _numbers(orientation, "ImageOrientationPatient", 6, where)
    row, column = cosines[:3], cosines[3:]
    if abs(row @ column) > LIMITS.cosine or abs(np.linalg.norm(np.cross(row, column)) - 1) > LIMITS.cosine:
        tag = tag_name("ImageOrientationPatient")
        raise DicomError(f"{where}: {tag} {cosines.tolist()} is not two perpendicular unit vectors")
    spacing = _numbers(measures, "PixelSpacing", 2, where)
    if not (spacing > 0).all():
        raise DicomError(f"{where}: {tag_name('PixelSpacing')} {spacing.tolist()} must be above 0")
    at = _numbers(position, "ImagePositionPatient", 3, where)
    return Slice(file, frame, at, cosines, spacing, float(slope), float(intercept))


def _numbers(dataset: pydicom.Dataset, keyword: str, count: int, where: Path | str) -> NDArray[np.float64]:
    """The numbers of a tag; raises :class:`DicomError` that names file and tag."""
    if keyword not in dataset:
        raise DicomError(f"{where}: {tag_name(keyword)} is absent")
    try:
        value = dataset[keyword].value
        if value is None or value == "" or (count > 1 and len(value) == 0):
            raise DicomError(f"{where}: {tag_name(keyword)} is empty")
        numbers = np.array(value, dtype=np.float64).reshape(-1)
    except DicomError:
        raise
    except (TypeError, OverflowError, ValueError) as error:
        raise DicomError(f"{where}: {tag_name(keyword)} is not a number") from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DicomError(f"{where}: {tag_name(keyword)} is {numbers.tolist()}, not {count} finite number(s)")
    return numbers


def tag_name(keyword: str) -> str:
    """An attribute with its tag, for messages: "Rows (0028,0010)"."""
    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04x},{tag & 0xFFFF:04x})"
