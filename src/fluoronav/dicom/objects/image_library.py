"""Which images a report is about: the image library of a measurement report (PS3.16 TID 1600)."""

from __future__ import annotations

from collections.abc import Iterable

from highdicom import sr
from pydicom.sr.coding import Code

from fluoronav.dicom.objects.source import Source

_LIBRARY, _GROUP = Code("111028", "DCM", "Image Library"), Code("126200", "DCM", "Image Library Group")
_IMAGE = Code("260753009", "SCT", "Source")  # the name of its IMAGE items is open in TID 1601
_MODALITY = Code("121139", "DCM", "Modality")
_MEANING = {  # PS3.16 CID 29
    "CT": "Computed Tomography",
    "MR": "Magnetic Resonance",
    "XA": "X-Ray Angiography",
    "RF": "Radiofluoroscopy",
    "CR": "Computed Radiography",
    "DX": "Digital Radiography",
    "OT": "Other",
}


def image_library(sources: Iterable[Source]) -> sr.ContainerContentItem:
    """One group for each series, with its modality and all its images.

    The images themselves say where they lie and how large their pixels are; an entry repeats none of it.

    Parameters
    ----------
    sources : iterable of Source
    """
    library = _container(_LIBRARY)
    library.ContentSequence = sr.ContentSequence([_group(s) for s in sources])
    return library


def _group(source: Source) -> sr.ContainerContentItem:
    group = _container(_GROUP)
    modality = str(source.first.get("Modality") or "OT")
    items: list[sr.ContentItem] = [
        sr.CodeContentItem(
            name=sr.CodedConcept.from_code(_MODALITY),
            value=sr.CodedConcept.from_code(Code(modality, "DCM", _MEANING.get(modality, modality))),
            relationship_type="HAS ACQ CONTEXT",
        )
    ]
    items += [
        sr.ImageContentItem(
            name=sr.CodedConcept.from_code(_IMAGE),
            referenced_sop_class_uid=str(d.SOPClassUID),
            referenced_sop_instance_uid=str(d.SOPInstanceUID),
            relationship_type="CONTAINS",
        )
        for d in source.datasets
    ]
    group.ContentSequence = sr.ContentSequence(items)
    return group


def _container(name: Code) -> sr.ContainerContentItem:
    return sr.ContainerContentItem(name=sr.CodedConcept.from_code(name), relationship_type="CONTAINS")
