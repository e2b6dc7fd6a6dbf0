"""DICOM objects that results leave as: segmentations, reports, graphics, pictures, surfaces, documents, poses.

Each function takes a :class:`Source` (whose patient and study it goes to) and a :class:`Provenance` (who and what made
it), and returns a dataset. The same content gives the same UID. Needs the extra `pacs`.
"""

import logging

from fluoronav.dicom.objects.capture import secondary_capture
from fluoronav.dicom.objects.encapsulated import encapsulated_pdf, encapsulated_stl, stl_bytes
from fluoronav.dicom.objects.findings import Finding, Measurement, alert_findings, registration_finding
from fluoronav.dicom.objects.graphics import Graphics, graphics_in, graphics_of
from fluoronav.dicom.objects.key_objects import key_object_selection
from fluoronav.dicom.objects.modules import write_object
from fluoronav.dicom.objects.presentation import presentation_state, referenced_frame
from fluoronav.dicom.objects.provenance import Approval, Producer, Provenance
from fluoronav.dicom.objects.report import measurement_report
from fluoronav.dicom.objects.segmentation import Segment, segmentation
from fluoronav.dicom.objects.segmentation_reading import (
    ReadSegment,
    ReadSegmentation,
    is_segmentation,
    read_segmentation,
)
from fluoronav.dicom.objects.source import Source, check_same_patient, check_study, read_source, source_of
from fluoronav.dicom.objects.spatial import spatial_registration
from fluoronav.dicom.objects.xray_run import Acquisition, xray_run

# It logs every step with the patient's UIDs.
logging.getLogger("highdicom").setLevel(logging.WARNING)

__all__ = [
    "Acquisition",
    "Approval",
    "Finding",
    "Graphics",
    "Measurement",
    "Producer",
    "Provenance",
    "ReadSegment",
    "ReadSegmentation",
    "Segment",
    "Source",
    "alert_findings",
    "check_same_patient",
    "check_study",
    "encapsulated_pdf",
    "encapsulated_stl",
    "graphics_in",
    "graphics_of",
    "is_segmentation",
    "key_object_selection",
    "measurement_report",
    "presentation_state",
    "read_segmentation",
    "read_source",
    "referenced_frame",
    "registration_finding",
    "secondary_capture",
    "segmentation",
    "source_of",
    "spatial_registration",
    "stl_bytes",
    "write_object",
    "xray_run",
]
