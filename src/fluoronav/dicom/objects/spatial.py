"""Spatial registrations (REG): an accepted pose of the CT before the C-arm (PS3.3 A.39.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import SpatialRegistrationStorage

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.modules import decimal, finished, identity, image_reference, new_object, referenced_series
from fluoronav.dicom.objects.provenance import Provenance, coded, digest_of, uid_of
from fluoronav.dicom.objects.source import Source, check_same_patient
from fluoronav.geometry import is_rigid

# PS3.16 CID 7100.
_BY_CONTENT = Code("125024", "DCM", "Image Content-based Alignment")
_MOST_COMMENT = 64  # VR LO


def spatial_registration(
    ct: Source,
    image: Source,
    provenance: Provenance,
    T_camera_ct: NDArray[np.float64],
    *,
    frame: int = 1,
    comment: str = "",
) -> Dataset:
    """The transform of the CT's frame of reference to the camera's, in the study of the X-ray image.

    The camera's frame has its origin in the X-ray source, x to the right, y down in the image, z to the detector, mm.
    Its UID follows from the image and the frame.

    Parameters
    ----------
    ct : Source
    image : Source
        The X-ray image that was registered, of the same patient.
    provenance : Provenance
        With an approval: only a pose that a person has accepted is written.
    T_camera_ct : array, shape (4, 4)
        CT (LPS) to camera, mm.
    frame : int
        Of the image, counted from 1.
    comment : str

    Raises
    ------
    DicomError
        No approval, another patient, no frame of reference, or a matrix that is not rigid.
    """
    if provenance.is_draft:
        raise DicomError("a registration is written after a person has accepted it; say who (--accepted-by)")
    check_same_patient(ct, image)
    image.check_frame(frame)
    pose = np.asarray(T_camera_ct, dtype=np.float64).reshape(4, 4)
    if not is_rigid(pose.tolist()):
        raise DicomError(f"{image.name}: T_camera_ct is not a rigid, right-handed 4 x 4 matrix")
    of_ct = str(ct.first.get("FrameOfReferenceUID") or "")
    if not of_ct:
        raise DicomError(f"{ct.name}: FrameOfReferenceUID (0020,0052) is missing; there is no frame to register")
    key = digest_of(str(frame), pose.round(6).tobytes(), of_ct)
    ids = identity("REG", image, provenance, key)
    out = new_object(SpatialRegistrationStorage, ids, "REG")
    out.FrameOfReferenceUID = uid_of("camera", image.instance_uids[0], str(frame))
    out.PositionReferenceIndicator = ""
    out.ContentDate = out.ContentTime = ""
    out.ContentLabel, out.ContentDescription = provenance.content_label("CT TO C ARM"), comment[:_MOST_COMMENT]
    out.ContentCreatorName = provenance.approval.person if provenance.approval else ""
    fixed = _item(np.eye(4), "the X-ray image: the camera's own frame")
    fixed.ReferencedImageSequence = [image_reference(image.single(), (frame,))]
    moving = _item(pose, comment or "T_camera_ct, mm")
    moving.FrameOfReferenceUID = of_ct
    moving.ReferencedImageSequence = [image_reference(d) for d in ct.datasets]
    out.RegistrationSequence = [moving, fixed]
    _add_references(out, ct, image)
    return finished(out, image, provenance, "Registration of CT to C-arm")


def _item(matrix: NDArray[np.float64], comment: str) -> Dataset:
    """An item of RegistrationSequence (0070,0308): a frame of reference and its matrix."""
    transform = Dataset()
    transform.FrameOfReferenceTransformationMatrixType = "RIGID"
    transform.FrameOfReferenceTransformationMatrix = [decimal(v) for v in matrix.ravel().tolist()]
    registration = Dataset()
    registration.FrameOfReferenceTransformationComment = comment[:_MOST_COMMENT]
    registration.RegistrationTypeCodeSequence = [coded(_BY_CONTENT)]
    registration.MatrixSequence = [transform]
    item = Dataset()
    item.MatrixRegistrationSequence = [registration]
    return item


def _add_references(out: Dataset, ct: Source, image: Source) -> None:
    """The common instance reference module (PS3.3 C.12.2)."""
    out.ReferencedSeriesSequence = referenced_series(image)
    if ct.study_uid == image.study_uid:
        out.ReferencedSeriesSequence.extend(referenced_series(ct))
        return
    other = Dataset()
    other.StudyInstanceUID = ct.study_uid
    other.ReferencedSeriesSequence = referenced_series(ct)
    out.StudiesContainingOtherReferencedInstancesSequence = [other]
