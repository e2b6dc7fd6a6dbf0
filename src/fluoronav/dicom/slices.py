"""CT slices in DICOM files: single slices (PS3.3 C.7.6.2, image plane module; C.11.1, rescale) and multi-frame objects
whose functional groups place each frame (PS3.3 C.7.6.16; Enhanced CT, X-Ray 3D). Only headers are read here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    XRay3DAngiographicImageStorage,
    XRay3DCraniofacialImageStorage,
)

from fluoronav.dicom.errors import DicomError
from fluoronav.geometry.grid import LIMITS as GRID


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Limits of one file; all are chosen."""

    most_bytes: int = GRID.most_bytes + 256 * 2**20  # a file holds little besides its pixels
    most_element_bytes: int = 1 << 20  # longer elements of a header are not loaded; no tag that is read is so long
    cosine: float = 1e-3  # tolerance of direction cosines


LIMITS = FileLimits()
# This transfer syntax is inflated as a whole when a file is opened, so that its size cannot be bounded.
_DEFLATED = DeflatedExplicitVRLittleEndian.encode()
# Volumes reconstructed by a C-arm or a dental scanner; their modality is that of the C-arm.
_XRAY_3D = (XRay3DAngiographicImageStorage, XRay3DCraniofacialImageStorage)
_CT_CLASSES = (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    SecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
_MODALITIES = {"MR": "magnetic resonance", "PT": "positron emission", "NM": "nuclear medicine", "US": "ultrasound"}
# What pydicom raises on a header that is no DICOM, or is truncated.
UNREADABLE = (
    InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, NotImplementedError,
    struct.error,
)  # fmt: skip


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
        return self.has_groups or "ImageOrientationPatient" in self.header or "ImagePositionPatient" in self.header


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
    if length > LIMITS.most_bytes:
        return None, f"larger than {LIMITS.most_bytes / 2**30:.2f} GiB"
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        # Without the preamble an element of group 2 or 8 comes first.
        if start[128:132] != b"DICM" and start[:2] not in (b"\x02\x00", b"\x08\x00"):
            return None, "no DICOM"
        if _DEFLATED in start:
            return None, "deflated as a whole (write it as explicit VR little endian)"
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, defer_size=LIMITS.most_element_bytes)
        if "Rows" not in header or "Columns" not in header:
            return None, "without an image, or cut off in the header"
        return DicomFile(header, path), ""
    except UNREADABLE:
        return None, "unreadable"


def check_is_ct(file: DicomFile) -> None:
    """Refuses an object that is no CT; the text names what it is."""
    header, path = file.header, file.path
    meta = getattr(header, "file_meta", None)
    uid = str(header.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta else "") or "")
    modality = str(header.get("Modality") or "")
    if uid not in _XRAY_3D:
        if modality != "CT":
            known = f" ({_MODALITIES[modality]})" if modality in _MODALITIES else ""
            is_what = f"is {modality}{known}" if modality else "is empty or absent"
            raise DicomError(f"{path}: Modality (0008,0060) {is_what}, not CT; a case needs a CT in HU")
        if uid and uid not in _CT_CLASSES:
            raise DicomError(f"{path}: is {UID(uid).name} although Modality (0008,0060) says CT")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise DicomError(f"{path}: SamplesPerPixel (0028,0002) is {header.SamplesPerPixel}: a picture, not a CT")
    if file.frames > 1 and not file.has_groups:
        raise DicomError(
            f"{path}: has {file.frames} frames but no functional groups that place them in the patient "
            "(PerFrameFunctionalGroupsSequence (5200,9230)); export it as single slices or as enhanced CT"
        )
    if "ModalityLUTSequence" in header:
        raise DicomError(f"{path}: ModalityLUTSequence (0028,3000) is not read; export it with a rescale")


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
            if not items:
                raise DicomError(f"{path}, frame {k + 1}: {_tag(macro)} is absent or empty")
            parts.append(items[0])
        out.append(_slice(file, k, parts, f"{path}, frame {k + 1}"))
    return out


def _slice(file: DicomFile, frame: int, parts: Sequence[pydicom.Dataset], where: Path | str) -> Slice:
    """One slice, from the datasets with its position, orientation, spacing and rescale (often one and the same)."""
    position, orientation, measures, values = parts
    unit = str(values.get("RescaleType") or "HU")
    # Most CBCT write US (unspecified); the values tell later whether they are HU.
    if unit not in ("HU", "HU_MOD", "US"):
        raise DicomError(f"{where}: {_tag('RescaleType')} is {unit}, not HU")
    slope, intercept = (_numbers(values, k, 1, where)[0] for k in ("RescaleSlope", "RescaleIntercept"))
    if not slope > 0:
        raise DicomError(f"{where}: {_tag('RescaleSlope')} is {slope:g}; it must be above 0")
    cosines = _numbers(orientation, "ImageOrientationPatient", 6, where)
    row, column = cosines[:3], cosines[3:]
    if abs(row @ column) > LIMITS.cosine or abs(np.linalg.norm(np.cross(row, column)) - 1) > LIMITS.cosine:
        tag = _tag("ImageOrientationPatient")
        raise DicomError(f"{where}: {tag} {cosines.tolist()} is not two perpendicular unit vectors")
    spacing = _numbers(measures, "PixelSpacing", 2, where)
    if not (spacing > 0).all():
        raise DicomError(f"{where}: {_tag('PixelSpacing')} {spacing.tolist()} must be above 0")
    at = _numbers(position, "ImagePositionPatient", 3, where)
    return Slice(file, frame, at, cosines, spacing, float(slope), float(intercept))


def _numbers(dataset: pydicom.Dataset, keyword: str, count: int, where: Path | str) -> NDArray[np.float64]:
    """The numbers of a tag; raises :class:`DicomError` that names file and tag."""
    if keyword not in dataset:
        raise DicomError(f"{where}: {_tag(keyword)} is absent")
    try:
        value = dataset[keyword].value
        if value is None or value == "" or (count > 1 and len(value) == 0):
            raise DicomError(f"{where}: {_tag(keyword)} is empty")
        numbers = np.array(value, dtype=np.float64).reshape(-1)
    except DicomError:
        raise
    except (TypeError, OverflowError, ValueError) as error:
        raise DicomError(f"{where}: {_tag(keyword)} is not a number") from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DicomError(f"{where}: {_tag(keyword)} is {numbers.tolist()}, not {count} finite number(s)")
    return numbers


def _tag(keyword: str) -> str:
    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04x},{tag & 0xFFFF:04x})"
