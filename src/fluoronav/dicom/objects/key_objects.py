"""Key object selections (KO): images and frames that somebody marked (PS3.3 A.35.4, PS3.16 TID 2010)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.modules import finished, identity, stand_ins
from fluoronav.dicom.objects.provenance import Provenance, digest_of
from fluoronav.dicom.objects.report import coded_concept
from fluoronav.dicom.objects.source import Source

# PS3.16 CID 7010.
TITLES = {
    "interest": Code("113000", "DCM", "Of Interest"),
    "surgery": Code("113007", "DCM", "For Surgery"),
    "report": Code("113018", "DCM", "For Report Attachment"),
}


def key_object_selection(
    sources: Sequence[Source],
    provenance: Provenance,
    *,
    frames: Mapping[str, Sequence[int]] | None = None,
    note: str = "",
    title: str = "interest",
) -> Dataset:
    """A selection of images, and of frames in them, of one study.

    Parameters
    ----------
    sources : sequence of Source
    provenance : Provenance
    frames : mapping of str to sequence of int, optional
        By SOPInstanceUID, the frames that were marked, counted from 1; all where an image is not named.
    note : str
        What a person is to know about them.
    title : {"interest", "surgery", "report"}

    Raises
    ------
    DicomError
        Nothing selected, images of several patients or studies, or no such frame.
    """
    if not sources:
        raise DicomError("no image is selected; name at least one")
    first, frames = sources[0], dict(frames or {})
    for other in sources[1:]:
        if other.study_uid != first.study_uid or other.first.PatientID != first.first.PatientID:
            raise DicomError(f"{other.name}: is of another patient or study than {first.name}; a selection is of one")
    for source in sources:
        for uid in source.instance_uids:
            for frame in frames.get(uid, ()):
                source.check_frame(frame)
    chosen = [f"{uid} {sorted(frames.get(uid, ()))}" for s in sources for uid in s.instance_uids]
    ids = identity("KO", first, provenance, digest_of(title, note, *chosen))
    images = [d for s in sources for d in stand_ins(s)]
    out = hd.ko.KeyObjectSelectionDocument(
        evidence=images,
        content=hd.ko.KeyObjectSelection(
            document_title=coded_concept(TITLES[title]), referenced_objects=images, description=note or None
        ),
        series_instance_uid=ids.series_uid,
        series_number=ids.series_number,
        sop_instance_uid=ids.instance_uid,
        instance_number=1,
        manufacturer=provenance.producer.manufacturer,
    )
    for item in out.ContentSequence:
        for reference in item.get("ReferencedSOPSequence") or ():
            marked = sorted(frames.get(str(reference.ReferencedSOPInstanceUID), ()))
            if marked:
                reference.ReferencedFrameNumber = marked if len(marked) > 1 else marked[0]
    return finished(out, first, provenance, "Marked images")
