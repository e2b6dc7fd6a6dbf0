"""What the node needs to know of a received object: read from its header; pixels are never decoded."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    XRay3DAngiographicImageStorage,
    XRay3DCraniofacialImageStorage,
)

from fluoronav.dicom.slices import UNREADABLE

_PREAMBLE = 132
# Pictures of screens and papers, whatever their modality is called.
_CAPTURES = (
    SecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)
_SCREENS = {"SCREEN SAVE", "SCREENSHOT", "SCREEN CAPTURE"}  # in ImageType, as vendors write it
_XRAY_3D = (XRay3DAngiographicImageStorage, XRay3DCraniofacialImageStorage)
_GROUP_LENGTH = 12  # bytes of (0002,0000) itself
_MOST_HEADER_BYTES = 16 * 2**20  # of a deflated object; chosen: headers with functional groups take 1 to 5 MB
_MOST_UID_CHARS = 64  # of a UID, PS3.5 9.1


class HeaderError(ValueError):
    """A received object without what every object has; the text names the attribute, never its value."""


@dataclass(frozen=True)
class Header:
    """The identifying attributes of an object, and where it lies.

    Attributes
    ----------
    sop, sop_class, series, study : str
        UIDs.
    patient_id, issuer : str
        Empty where absent.
    kind : str
        Modality; `CBCT` for the volume of a C-arm, whose modality is that of its pictures.
    place : str
        JSON: `o` direction cosines (6), `p` position (3) in LPS mm, `n` frames, `l` whether it is a localizer,
        `t` whether text may be burned into its pixels (see :func:`may_hold_text`).
        Functional groups are not looked at.
    digest_offset : int
        Where the dataset begins in the file, in bytes.
    """

    sop: str
    sop_class: str
    series: str
    study: str
    patient_id: str
    issuer: str
    kind: str
    place: str
    digest_offset: int


def read_header(path: Path) -> Header:
    """Reads the header of a Part 10 file.

    Raises
    ------
    HeaderError
        It is no DICOM, or an identifying attribute is absent.
    """
    try:
        meta = read_file_meta_info(path)
        offset = _PREAMBLE + _GROUP_LENGTH + int(meta.FileMetaInformationGroupLength)
        header = _dataset(path, str(meta.TransferSyntaxUID), offset)
        uids = {k: _uid(header, k) for k in ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")}
        return Header(
            uids["SOPInstanceUID"],
            uids["SOPClassUID"],
            uids["SeriesInstanceUID"],
            uids["StudyInstanceUID"],
            str(header.get("PatientID") or "").strip(),
            str(header.get("IssuerOfPatientID") or "").strip(),
            "CBCT" if uids["SOPClassUID"] in _XRAY_3D else str(header.get("Modality") or "")[:16],
            json.dumps(_place(header)),
            offset,
        )
    except HeaderError:
        raise
    except zlib.error as error:
        raise HeaderError("the deflated dataset is damaged") from error
    except UNREADABLE as error:
        raise HeaderError(f"the header cannot be read ({type(error).__name__})") from error


def may_hold_text(header: Dataset) -> bool:
    """Whether a name may be burned into the pixels: the image says so, or is a picture of a screen or a paper.

    BurnedInAnnotation (0028,0301) is PS3.3 C.7.6.1.1.5; an image without it says nothing.
    """
    kind = {str(k).upper().replace("_", " ") for k in header.get("ImageType") or ()}
    return (
        str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES"
        or header.get("SOPClassUID") in _CAPTURES
        or bool(kind & _SCREENS)
    )


def _dataset(path: Path, transfer_syntax: str, offset: int) -> Dataset:
    if transfer_syntax != DeflatedExplicitVRLittleEndian:
        return dcmread(path, stop_before_pixels=True, defer_size=1 << 20)
    # Inflated no further than a header goes: a few kilobytes may hold gigabytes.
    with path.open("rb") as file:
        file.seek(offset)
        start = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(_MOST_HEADER_BYTES), _MOST_HEADER_BYTES)
    return dcmread(BytesIO(start), stop_before_pixels=True, force=True)


def _uid(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    if not value:
        raise HeaderError(f"{keyword} is absent or empty")
    text = str(value).strip()
    if len(text) > _MOST_UID_CHARS or set(text) - set("0123456789."):
        raise HeaderError(f"{keyword} is no UID")
    return text


def _place(header: Dataset) -> dict[str, Any]:
    kind = [str(k).upper() for k in header.get("ImageType") or ()]
    place: dict[str, Any] = {"l": "LOCALIZER" in kind, "n": int(header.get("NumberOfFrames") or 1)}
    place["t"] = may_hold_text(header)
    for key, keyword, count in (("o", "ImageOrientationPatient", 6), ("p", "ImagePositionPatient", 3)):
        value = header.get(keyword)
        try:
            numbers = [float(v) for v in value or ()]
        except (TypeError, ValueError):
            numbers = []
        place[key] = numbers if len(numbers) == count else None
    return place
