"""How the values of an X-ray image follow from the X-rays: PixelIntensityRelationship and the tables that undo it.

LIN is proportional to the X-rays, LOG to their logarithm (PS3.3 C.8.7.1.1.2, C.8.11.3.1.2). What lies behind DISP (for
display), DRM (dynamic range modified) and makers' own words, the file alone can tell: by a
PixelIntensityRelationshipLUT to linear or logarithmic values (PS3.3 C.7.6.16.2.13), or, in fluoroscopy, by its modality
lookup table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pydicom

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.xray_header import XrayHeader

Response = Literal["linear", "log"]
_FUNCTIONS: dict[str, Response] = {"TO_LINEAR": "linear", "TO_LOG": "log"}


@dataclass(frozen=True)
class IntensityRelationship:
    """What the values of a frame are of the X-rays.

    Attributes
    ----------
    said : str
        PixelIntensityRelationship (0028,1040); empty where it is absent.
    response : "linear" or "log"
        Of the values after `table`: proportional to the X-rays, or to their logarithm up to gain and offset.
    source : str
        What says so, in words.
    table : pydicom.Dataset or None
        Item with the lookup table to apply first.
    note : str
        Remark for the user; empty where the header says everything.
    """

    said: str
    response: Response
    source: str
    table: pydicom.Dataset | None = None
    note: str = ""


def read_relationship(header: XrayHeader, option: Response | None = None) -> IntensityRelationship:
    """The relationship of a frame.

    Parameters
    ----------
    header : XrayHeader
    option : "linear", "log" or None
        The user's word for the stored values; the file's tables are then not applied.

    Raises
    ------
    DicomError
        The relationship is one whose inverse the file does not define.
    """
    said = header.word("PixelIntensityRelationship")
    if option is not None:
        return IntensityRelationship(said, option, "the option --intensity")
    for item in header.items("PixelIntensityRelationshipLUTSequence"):
        response = _FUNCTIONS.get(str(item.get("LUTFunction") or "").upper())
        if response is not None and not (said == "LIN" and response == "log"):
            source = f"PixelIntensityRelationshipLUTSequence (0028,9422), {item.LUTFunction}"
            return IntensityRelationship(said, response, source, item)
    tables = header.items("ModalityLUTSequence")
    if tables and header.is_fluoroscopy:
        # In fluoroscopy this table makes values proportional to the X-rays (PS3.3 C.8.7.1.1.2).
        return IntensityRelationship(said, "linear", "ModalityLUTSequence (0028,3000)", tables[0])
    table = tables[0] if tables else None
    if said == "LIN" and table is None:
        return IntensityRelationship(said, "linear", "PixelIntensityRelationship (0028,1040)")
    if said in ("LIN", "LOG"):
        return IntensityRelationship(said, "log", "PixelIntensityRelationship (0028,1040)", table)
    if said == "":
        return _assumed(header, table)
    raise DicomError(
        f"{header.path}: PixelIntensityRelationship (0028,1040) is {said[:16]}: its values were changed for display, "
        "and no lookup table in the file undoes that (PixelIntensityRelationshipLUTSequence (0028,9422), "
        "ModalityLUTSequence (0028,3000)). Export the image for processing (LIN or LOG), or say --intensity log (about "
        "the logarithm of the X-rays, as most displayed images are) or --intensity linear"
    )


def _assumed(header: XrayHeader, table: pydicom.Dataset | None) -> IntensityRelationship:
    """Where nothing is said: fluoroscopy is linear, a radiograph logarithmic."""
    response: Response = "linear" if header.is_fluoroscopy else "log"
    other = "log" if response == "linear" else "linear"
    what = "proportional to the X-rays" if response == "linear" else "the logarithm of the X-rays"
    note = (
        f"has no PixelIntensityRelationship (0028,1040): its values are taken as {what}, as of "
        f"{header.word('Modality')}; --intensity {other} says otherwise"
    )
    return IntensityRelationship("", response, f"assumed for {header.word('Modality')}", table, note)
