"""Structured reports (SR): measurements, alerts and the accepted registration (PS3.16 TID 1500)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import highdicom as hd
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.anatomy import anatomy_of
from fluoronav.dicom.objects.findings import QUANTITIES, Finding
from fluoronav.dicom.objects.image_library import image_library
from fluoronav.dicom.objects.modules import finished, identity, local_time, stand_ins
from fluoronav.dicom.objects.provenance import Provenance, digest_of, uid_of
from fluoronav.dicom.objects.source import Source, check_same_patient

_PROCEDURES = {
    "CT": Code("77477000", "SCT", "Computed tomography"),
    "MR": Code("113091000", "SCT", "Magnetic resonance imaging"),
}
_FLUOROSCOPY = Code("44491008", "SCT", "Fluoroscopy")
_COMMENT = Code("121106", "DCM", "Comment")
_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
_MOST_DECIMALS = 3  # of a measured value; chosen: nothing is measured finer


def measurement_report(
    source: Source,
    provenance: Provenance,
    findings: Sequence[Finding],
    *,
    references: Sequence[Source] = (),
    segmentation: Dataset | None = None,
    description: str = "Measurements",
) -> Dataset:
    """A measurement report in the study of the source.

    Parameters
    ----------
    source : Source
        The images that were measured.
    provenance : Provenance
        Without an approval the report is UNVERIFIED and preliminary; with one it is verified by that person and final.
    findings : sequence of Finding
    references : sequence of Source
        Further images of the same patient that the findings come from.
    segmentation : pydicom.Dataset, optional
        The segmentation that findings with a segment refer to.
    description : str

    Raises
    ------
    DicomError
        No finding, an unknown quantity, or anything of another patient or study.
    """
    if not findings:
        raise DicomError(f"{source.name}: nothing was found or measured; there is nothing to report")
    for other in references:
        check_same_patient(source, other)
    if segmentation is not None:
        _check_segmentation(source, segmentation, findings)
    ids = identity(
        "SR",
        source,
        provenance,
        digest_of(*(f.content() for f in findings), *(u for r in references for u in r.instance_uids)),
    )
    images = stand_ins(source)
    groups = [_group(k, f, provenance, ids.instance_uid, source, segmentation) for k, f in enumerate(findings)]
    content = sr.MeasurementReport(
        observation_context=_observers(provenance),
        procedure_reported=_PROCEDURES.get(str(source.first.get("Modality")), _FLUOROSCOPY),
        imaging_measurements=groups,
        title=_TITLE,
    )
    # Every finding is of these images; those that no segment shows say so here and, of one image, in their group.
    parts = content[0].ContentSequence
    measured = next(k for k, p in enumerate(parts) if p.ConceptNameCodeSequence[0].CodeValue == _MEASUREMENTS.value)
    parts.insert(measured, image_library([source, *references]))
    approval = provenance.approval
    out = sr.Comprehensive3DSR(
        evidence=[
            *images,
            *(d for r in references for d in stand_ins(r)),
            *([segmentation] if segmentation is not None else []),
        ],
        content=content[0],
        series_instance_uid=ids.series_uid,
        series_number=ids.series_number,
        sop_instance_uid=ids.instance_uid,
        instance_number=1,
        manufacturer=provenance.producer.manufacturer,
        is_complete=True,
        is_final=approval is not None,
        is_verified=approval is not None,
        verifying_observer_name=approval.person if approval else None,
        verifying_organization=approval.organization if approval else None,
    )
    assert out.SOPClassUID == Comprehensive3DSRStorage
    if approval is not None:
        out.VerifyingObserverSequence[0].VerificationDateTime = f"{local_time(approval.at, source):%Y%m%d%H%M%S}"
    return finished(out, source, provenance, description)


def _check_segmentation(source: Source, segmentation: Dataset, findings: Sequence[Finding]) -> None:
    if (
        segmentation.get("StudyInstanceUID") != source.study_uid
        or segmentation.get("PatientID") != source.first.PatientID
    ):
        raise DicomError(f"{source.name}: the segmentation is of another patient or study; the report would be, too")
    numbers = {int(s.SegmentNumber) for s in segmentation.SegmentSequence}
    missing = sorted({f.segment for f in findings if f.segment is not None} - numbers)
    if missing:
        raise DicomError(f"{source.name}: the segmentation has no segment {missing[0]}")


def _observers(provenance: Provenance) -> sr.ObservationContext:
    producer = provenance.producer
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uid_of("device", producer.manufacturer, producer.model, producer.serial),
            name=f"{producer.model} {producer.software[0]}",
            manufacturer_name=producer.manufacturer,
            model_name=producer.model,
            serial_number=producer.serial,
        ),
    )
    person = None
    if provenance.approval is not None:
        person = sr.ObserverContext(
            observer_type=codes.DCM.Person,
            observer_identifying_attributes=sr.PersonObserverIdentifyingAttributes(name=provenance.approval.person),
        )
    return sr.ObservationContext(observer_person_context=person, observer_device_context=device)


def _group(
    number: int, finding: Finding, provenance: Provenance, uid: str, source: Source, segmentation: Dataset | None
) -> sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """A measurement group (TID 1501), or one of a volume (TID 1411) where the finding has a segment."""
    tracking = sr.TrackingIdentifier(uid=uid_of("finding", uid, str(number)), identifier=finding.name)
    site = anatomy_of(finding.structure) if finding.structure else None
    common = {
        "tracking_identifier": tracking,
        "finding_type": finding.kind,
        "finding_sites": [sr.FindingSite(anatomic_location=site.type, laterality=site.side)] if site else None,
        "measurements": [_measurement(m.quantity, m.value) for m in finding.measurements],
        "algorithm_id": sr.AlgorithmIdentification(
            name=provenance.producer.model, version=provenance.producer.software[0]
        ),
    }
    if segmentation is not None and finding.segment is not None:
        group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=sr.ReferencedSegment(
                sop_class_uid=segmentation.SOPClassUID,
                sop_instance_uid=segmentation.SOPInstanceUID,
                segment_number=finding.segment,
                source_series=sr.SourceSeriesForSegmentation(source.series_uid),
            ),
            **common,
        )
    else:
        images = source.datasets if len(source.datasets) == 1 else ()
        group = sr.MeasurementsAndQualitativeEvaluations(
            **common, source_images=[sr.SourceImageForMeasurementGroup.from_source_image(d) for d in images] or None
        )
    if finding.comment:
        # TID 1501 is extensible; TID 1500 has no text of its own.
        text = sr.TextContentItem(coded_concept(_COMMENT), finding.comment, relationship_type="CONTAINS")
        group[0].ContentSequence.append(text)
    return group


def _measurement(quantity: str, value: float) -> sr.Measurement:
    if quantity not in QUANTITIES:
        raise DicomError(f"{quantity!r} is no quantity of a report; there are {', '.join(QUANTITIES)}")
    if not math.isfinite(value):
        raise DicomError(f"{quantity} is {value}, which is not a finite number")
    name, unit = QUANTITIES[quantity]
    return sr.Measurement(name=name, value=round(float(value), _MOST_DECIMALS), unit=unit)


def coded_concept(code: Code) -> hd.sr.CodedConcept:
    """A code as highdicom's content items take it."""
    return hd.sr.CodedConcept.from_code(code)
