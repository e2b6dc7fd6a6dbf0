"""De-identification by the Basic Application Level Confidentiality Profile (PS3.15 Annex E, table E.1-1, 2024b).

The table is that of dicom-anonymizer, which generates it from the standard. No option of the profile is used: nothing
is kept that it removes. UIDs are replaced by keyed ones, so that the objects of a study still refer to one another.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2024b as table
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fluoronav.pacs.pseudonyms import Pseudonyms

Action = Literal["remove", "empty", "dummy"]
# Registered UIDs (classes, transfer syntaxes, coding schemes) name no patient.
_REGISTERED = "1.2.840.10008."
# Code, scheme and meaning. pydicom's own Code comes with all codes of the standard, 18 MB of them.
_BASIC_PROFILE = ("113100", "DCM", "Basic Application Confidentiality Profile")
_DUMMY = {
    "DA": "19000101", "TM": "000000", "DT": "19000101000000", "PN": "REMOVED", "AS": "000Y", "IS": "0", "DS": "0",
    "US": 0, "UL": 0, "SS": 0, "SL": 0, "FL": 0.0, "FD": 0.0,
}  # fmt: skip
_TEXTS = ("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "UR")


@cache
def actions() -> dict[tuple[int, int], Action]:
    """What the profile does with an attribute, by group and element.

    Where the profile leaves a choice, an attribute that may be absent is removed, and one that a class may require
    (codes with D) gets a dummy value.
    """
    out: dict[tuple[int, int], Action] = {}
    for tags, action in (
        (table.X_TAGS, "remove"), (table.X_Z_TAGS, "remove"), (table.X_Z_U_STAR_TAGS, "remove"),
        (table.Z_TAGS, "empty"), (table.Z_D_TAGS, "dummy"), (table.X_D_TAGS, "dummy"), (table.X_Z_D_TAGS, "dummy"),
        (table.D_TAGS, "dummy"),
    ):  # fmt: skip
        out.update({(tag[0], tag[1]): action for tag in tags if len(tag) == 2})  # type: ignore[misc]
    return out


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms, patient: str) -> None:
    """De-identifies a dataset in place.

    Parameters
    ----------
    dataset : Dataset
    pseudonyms : Pseudonyms
    patient : str
        The patient's pseudonym, which becomes the PatientID and the PatientName.
    """
    _clean(dataset, pseudonyms)
    dataset.PatientID = dataset.PatientName = patient
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "PS3.15 table E.1-1 (2024b), basic profile, no option"
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = _BASIC_PROFILE
    dataset.DeidentificationMethodCodeSequence = Sequence([item])
    meta = getattr(dataset, "file_meta", None)
    if meta is not None:
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        for keyword in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle", "PrivateInformation"):
            if keyword in meta:
                delattr(meta, keyword)


def _clean(dataset: Dataset, pseudonyms: Pseudonyms) -> None:
    for tag in list(dataset.keys()):
        # Curves (50xx) and overlays (60xx) may be drawings or texts about the patient.
        if tag.is_private or tag.group & 0xFF00 == 0x5000 or (tag.group & 0xFF00 == 0x6000 and tag.element >= 0x3000):
            del dataset[tag]
            continue
        action = actions().get((tag.group, tag.element))
        if action == "remove":
            del dataset[tag]
            continue
        element = dataset[tag]
        if element.VR == "UI":
            _replace_uids(element, pseudonyms)
        elif element.VR == "SQ":
            if action is not None:
                del dataset[tag]
                continue
            for item in element.value or ():
                _clean(item, pseudonyms)
        elif action == "empty":
            element.value = None
        elif action == "dummy":
            element.value = _dummy(element.VR)


def _replace_uids(element: DataElement, pseudonyms: Pseudonyms) -> None:
    if not element.value:
        return
    values = [element.value] if isinstance(element.value, str) else list(element.value)
    new = [u if u.startswith(_REGISTERED) else pseudonyms.uid(u) for u in values]
    element.value = new[0] if len(new) == 1 else new


def _dummy(vr: str) -> object:
    if vr in _DUMMY:
        return _DUMMY[vr]
    return "REMOVED" if vr in _TEXTS else None
