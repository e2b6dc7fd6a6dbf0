"""Runs, surfaces, documents, registrations and reports say what they hold, and refuse what they cannot."""

import io

import numpy as np
import pydicom
import pytest
from tests.dicom.objects.scene import (
    ACCEPTED,
    ALERTS,
    COUNTS,
    DRAFT,
    PDF,
    REGISTRATION,
    ct,
    dumped,
    errors_of,
    every_object,
    findings,
    recorded,
)

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects import (
    Acquisition,
    Finding,
    Measurement,
    alert_findings,
    encapsulated_pdf,
    encapsulated_stl,
    key_object_selection,
    measurement_report,
    source_of,
    spatial_registration,
    stl_bytes,
    write_object,
    xray_run,
)
from fluoronav.dicom.xray_geometry import read_geometry
from fluoronav.dicom.xray_header import XrayHeader

SOURCE = source_of(ct(), "ct")
RUN = source_of([recorded()], "run")


def test_a_run_keeps_every_count_and_its_geometry(tmp_path):
    write_object(recorded(), tmp_path / "run.dcm")
    read = pydicom.dcmread(tmp_path / "run.dcm")
    np.testing.assert_array_equal(read.pixel_array, COUNTS)
    assert (read.PixelIntensityRelationship, read.PixelIntensityRelationshipSign) == ("LIN", 1)
    assert [float(t) for t in read.FrameTimeVector] == [0, 33.3, 33.4, 33.3]
    assert (read.PositionerMotion, [float(a) for a in read.PositionerPrimaryAngleIncrement]) == (
        "DYNAMIC",
        [0, 1, 2, 3],
    )
    geometry = read_geometry(XrayHeader(tmp_path / "run.dcm", read))
    assert geometry.camera.K[0, 0] == pytest.approx(1000 / 0.3)


def test_an_odd_number_of_bytes_and_a_single_frame_are_written(tmp_path):
    counts = np.arange(105, dtype=np.uint8).reshape(1, 7, 15)
    made = xray_run(SOURCE, DRAFT, counts, Acquisition(bits=8, times_ms=(0,), inverse=True))
    write_object(made, tmp_path / "run.dcm")
    read = pydicom.dcmread(tmp_path / "run.dcm")
    np.testing.assert_array_equal(read.pixel_array.reshape(counts.shape), counts)
    assert read.PixelIntensityRelationshipSign == -1


@pytest.mark.parametrize(
    ("counts", "acquisition", "said"),
    [
        (COUNTS[:0], Acquisition(12, ()), "frames are an array"),
        (COUNTS.astype(np.float32), Acquisition(12, (0, 1, 2, 3)), "frames are an array"),
        (COUNTS, Acquisition(8, (0, 1, 2, 3)), "which 8 bits do not hold"),
        (COUNTS, Acquisition(12, (0, 1, 2)), "need as many times"),
        (COUNTS, Acquisition(12, (0, 2, 1, 3)), "each later than the one before"),
        (COUNTS, Acquisition(12, (0, 1, 2, 3), primary_deg=(1,)), "4 frames have 1 angles"),
    ],
)
def test_frames_that_cannot_be_a_run_are_refused(counts, acquisition, said):
    with pytest.raises(DicomError, match=said):
        xray_run(SOURCE, DRAFT, counts, acquisition)


def test_a_run_larger_than_one_object_is_refused_before_it_is_copied():
    huge = np.broadcast_to(np.uint16(0), (1100, 1400, 1400))
    with pytest.raises(DicomError, match=r"4.0 GiB; one object holds 4 GiB"):
        xray_run(SOURCE, DRAFT, huge, Acquisition(12, tuple(range(1100))))


def test_documents_come_out_as_they_went_in():
    odd = PDF + b"\n" if len(PDF) % 2 == 0 else PDF
    made = encapsulated_pdf(SOURCE, DRAFT, odd, "Briefing")
    assert made.EncapsulatedDocument[: made.EncapsulatedDocumentLength] == odd
    assert made.DocumentTitle == "DRAFT Briefing" and len(made.EncapsulatedDocument) % 2 == 0
    with pytest.raises(DicomError, match="no whole PDF"):
        encapsulated_pdf(SOURCE, DRAFT, PDF[:-8], "Briefing")
    with pytest.raises(DicomError, match="no binary STL"):
        encapsulated_stl(SOURCE, DRAFT, b"solid aorta\nendsolid", "aorta")


def test_a_surface_has_outward_normals_in_the_frame_of_the_ct():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    data = stl_bytes(corners, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    assert len(data) == 84 + 4 * 50
    np.testing.assert_allclose(np.frombuffer(data, "<f4", 3, 84), [0, 0, -1])
    made = encapsulated_stl(SOURCE, DRAFT, data, "aorta")
    assert made.FrameOfReferenceUID == SOURCE.first.FrameOfReferenceUID
    assert made.MeasurementUnitsCodeSequence[0].CodeValue == "mm"
    with pytest.raises(DicomError, match="FrameOfReferenceUID"):
        bare = ct()
        for d in bare:
            del d.FrameOfReferenceUID
        encapsulated_stl(source_of(bare, "ct"), DRAFT, data, "aorta")


def test_a_registration_maps_the_ct_to_the_camera_and_survives_decimal_strings():
    made = spatial_registration(SOURCE, RUN, ACCEPTED, REGISTRATION["T_camera_ct"], frame=2)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    read = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
    moving, fixed = read.RegistrationSequence
    matrix = moving.MatrixRegistrationSequence[0].MatrixSequence[0]
    assert moving.FrameOfReferenceUID == SOURCE.first.FrameOfReferenceUID
    np.testing.assert_allclose(
        np.array(matrix.FrameOfReferenceTransformationMatrix, float), REGISTRATION["T_camera_ct"], atol=1e-9
    )
    assert fixed.ReferencedImageSequence[0].ReferencedFrameNumber == 2
    identity = fixed.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix
    np.testing.assert_array_equal(np.array(identity, float), np.eye(4).ravel())


def test_only_a_rigid_pose_that_a_person_has_accepted_is_written():
    with pytest.raises(DicomError, match="after a person has accepted it"):
        spatial_registration(SOURCE, RUN, DRAFT, REGISTRATION["T_camera_ct"])
    with pytest.raises(DicomError, match="not a rigid"):
        spatial_registration(SOURCE, RUN, ACCEPTED, np.diag([1, 1, -1, 1]).astype(float))


def test_a_selection_names_the_marked_frames():
    made = key_object_selection([RUN], DRAFT, frames={RUN.instance_uids[0]: [3, 1]}, note="Wire in place")
    reference = made.ContentSequence[-1].ReferencedSOPSequence[0]
    assert list(reference.ReferencedFrameNumber) == [1, 3]
    with pytest.raises(DicomError, match="has 4 frames, not 9"):
        key_object_selection([RUN], DRAFT, frames={RUN.instance_uids[0]: [9]})
    with pytest.raises(DicomError, match="no image is selected"):
        key_object_selection([], DRAFT)


def test_a_report_says_measurements_alerts_and_the_registration(tmp_path):
    write_object(every_object()["sr"], tmp_path / "sr.dcm")
    text = dumped(tmp_path / "sr.dcm")
    for line in (
        'NUM:(,,"Volume")="2.52" (mL',
        "(SG image,,1)",
        'TEXT:(,,"Tracking Identifier")="alert proximity/kwire/aorta"',
        'NUM:(,,"Duration of alert")="5.0" (s',
        "high priority, proximity, kwire: 2.3 mm from the aorta (cleared, acknowledged)",
        'NUM:(,,"Bound of registration error at target, 95 %")="1.2" (mm',
        'CODE:(,,"Procedure reported")=(77477000,SCT,"Computed tomography")',
    ):
        assert line in text


def test_findings_without_a_segment_refer_to_the_images_that_they_are_of(tmp_path):
    write_object(measurement_report(SOURCE, DRAFT, findings(), references=[RUN]), tmp_path / "ct.dcm")
    text = dumped(tmp_path / "ct.dcm")
    assert text.count('CONTAINER:(,,"Image Library Group")') == 2
    assert text.count("(CT image,)") == len(SOURCE.datasets) and text.count("(XA image,)") == 1
    assert '(CT,DCM,"Computed Tomography")' in text and '(XA,DCM,"X-Ray Angiography")' in text
    # Of a single image each finding says it, too.
    write_object(measurement_report(RUN, DRAFT, findings()), tmp_path / "xa.dcm")
    assert dumped(tmp_path / "xa.dcm").count('IMAGE:(,,"Source of Measurement")=(XA image,)') == len(findings())
    assert errors_of(tmp_path / "ct.dcm") == errors_of(tmp_path / "xa.dcm") == []


def test_an_alert_that_was_never_cleared_is_open_at_the_end():
    (finding,) = alert_findings(ALERTS[:1])
    assert "open at the end" in finding.comment and "lasted_s" not in {m.quantity for m in finding.measurements}


def test_a_report_of_nothing_of_something_unknown_or_of_another_segmentation_is_refused():
    with pytest.raises(DicomError, match="nothing to report"):
        measurement_report(SOURCE, DRAFT, [])
    with pytest.raises(DicomError, match="'weight_kg' is no quantity"):
        measurement_report(SOURCE, DRAFT, [Finding("a", (Measurement("weight_kg", 1),))])
    with pytest.raises(DicomError, match="is not a finite number"):
        measurement_report(SOURCE, DRAFT, [Finding("a", (Measurement("volume_ml", float("nan")),))])
    segmented = every_object()["seg"]
    with pytest.raises(DicomError, match="no segment 9"):
        measurement_report(SOURCE, DRAFT, findings(9), segmentation=segmented)
    with pytest.raises(DicomError, match="another patient or study"):
        measurement_report(source_of(ct(PatientID="P2"), "ct"), DRAFT, findings(1), segmentation=segmented)
