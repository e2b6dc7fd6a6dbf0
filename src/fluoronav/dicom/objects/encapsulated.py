"""Encapsulated documents: surfaces as STL and reports as PDF (PS3.3 A.85.1, A.45.1)."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage, EncapsulatedSTLStorage

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.modules import finished, identity, instance_reference, new_object, referenced_series
from fluoronav.dicom.objects.provenance import Provenance, coded, digest_of
from fluoronav.dicom.objects.source import Source

_MM = Code("mm", "UCUM", "mm")
_MOST_BYTES = 2**32 - 2  # of a value with a length of 32 bits (PS3.5 7.1.1)
_HEADER = 80  # bytes of free text before the triangles of a binary STL
_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def encapsulated_stl(source: Source, provenance: Provenance, stl: bytes, title: str) -> Dataset:
    """A surface in the frame of reference of the source.

    Parameters
    ----------
    source : Source
        The CT that the surface was made from.
    provenance : Provenance
    stl : bytes
        Binary STL (:func:`stl_bytes`): mm, DICOM LPS of the source.
    title : str
        What it shows.

    Raises
    ------
    DicomError
        No binary STL, or the source has no frame of reference.
    """
    count = int.from_bytes(stl[_HEADER : _HEADER + 4], "little") if len(stl) >= _HEADER + 4 else 0
    if not count or len(stl) != _HEADER + 4 + count * _TRIANGLE.itemsize:
        raise DicomError(f"{title}: is no binary STL with triangles; save the surface as binary STL, mm, DICOM LPS")
    if not source.first.get("FrameOfReferenceUID"):
        raise DicomError(f"{source.name}: FrameOfReferenceUID (0020,0052) is missing; the surface would have no place")
    ids = identity("STL", source, provenance, digest_of(title, stl))
    out = new_object(EncapsulatedSTLStorage, ids, "M3D")
    _add_document(out, source, stl, "model/stl", provenance.labelled(title))
    out.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    out.PositionReferenceIndicator = source.first.get("PositionReferenceIndicator") or ""
    out.MeasurementUnitsCodeSequence = [coded(_MM)]
    out.ReferencedSeriesSequence = referenced_series(source)
    out.ModelModification, out.ModelMirroring = "NO", "NO"
    out.ContentDescription = provenance.labelled(title)
    return finished(out, source, provenance, title)


def encapsulated_pdf(source: Source, provenance: Provenance, pdf: bytes, title: str) -> Dataset:
    """A PDF in the study of the source.

    Parameters
    ----------
    source : Source
    provenance : Provenance
    pdf : bytes
    title : str
        For the list of documents of a viewer.

    Raises
    ------
    DicomError
        The bytes are no PDF, or an unfinished one.
    """
    if not re.match(rb"%PDF-\d\.\d", pdf) or b"%%EOF" not in pdf[-1024:]:
        raise DicomError(f"{title}: is no whole PDF: it does not begin with %PDF- and end with %%EOF")
    ids = identity("PDF", source, provenance, digest_of(title, pdf))
    out = new_object(EncapsulatedPDFStorage, ids, "DOC")
    _add_document(out, source, pdf, "application/pdf", provenance.labelled(title))
    out.ConversionType = "WSD"
    return finished(out, source, provenance, title)


def stl_bytes(points_ct: NDArray[np.float64], triangles: NDArray[np.integer]) -> bytes:
    """Binary STL of a surface.

    Parameters
    ----------
    points_ct : ndarray, shape (n, 3)
        LPS mm.
    triangles : ndarray, shape (m, 3)
        Indices of corners, counter-clockwise seen from outside.
    """
    corners = np.asarray(points_ct, np.float64)[np.asarray(triangles)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    out = np.zeros(len(corners), _TRIANGLE)
    out["normal"] = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    out["corners"] = corners
    # The header must not begin with "solid", which means the text form.
    return b"binary STL, mm, DICOM LPS".ljust(_HEADER) + len(out).to_bytes(4, "little") + out.tobytes()


def _add_document(out: Dataset, source: Source, document: bytes, mime: str, title: str) -> None:
    """The encapsulated document module (PS3.3 C.24.2)."""
    if len(document) > _MOST_BYTES:
        raise DicomError(f"{title}: has {len(document)} bytes; one DICOM object holds {_MOST_BYTES}")
    out.ContentDate = out.ContentTime = out.AcquisitionDateTime = ""
    out.BurnedInAnnotation = "YES"  # a report names the patient; a surface may show a face
    out.DocumentTitle = title
    out.ConceptNameCodeSequence = []
    out.SourceInstanceSequence = [instance_reference(source.first)]
    out.MIMETypeOfEncapsulatedDocument = mime
    out.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    out.EncapsulatedDocumentLength = len(document)
