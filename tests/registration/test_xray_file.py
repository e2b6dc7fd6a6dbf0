"""X-ray files: what a DICOM header says of the C-arm, and what is refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage, generate_uid

from fluoronav.geometry import inverse, moved_about, transform_points
from fluoronav.registration.register import RegisterError, Request, register_files
from fluoronav.registration.xray_file import XrayFileError, read_xray
from fluoronav.simulation.detector import Detector, ImageChain
from fluoronav.simulation.sequence import Anatomy

SDD, SOD, PIXEL = 1000.0, 620.0, 300 / 1024


def xa(path, counts, **change):
    """An XA image as an angiography system stores it: facing the patient, the patient's left on the right."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = XRayAngiographicImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    d.Modality, d.PhotometricInterpretation, d.SamplesPerPixel = "XA", "MONOCHROME2", 1
    d.Rows, d.Columns, d.BitsAllocated, d.BitsStored, d.HighBit = *counts.shape, 16, 16, 15
    d.PixelRepresentation, d.PixelIntensityRelationship, d.PixelIntensityRelationshipSign = 0, "LIN", 1
    d.DistanceSourceToDetector, d.DistanceSourceToPatient = SDD, SOD
    d.ImagerPixelSpacing = [PIXEL, PIXEL]
    d.PositionerPrimaryAngle, d.PositionerSecondaryAngle = 0.0, 0.0
    d.PatientOrientation = ["L", "F"]
    d.PixelData = counts.astype("<u2").tobytes()
    for name, value in change.items():
        if value is None:
            delattr(d, name)
        else:
            setattr(d, name, value)
    d.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def counts(rng):
    return rng.integers(1000, 60000, (64, 96)).astype(np.uint16)


def seen_at(geometry, point_ct):
    """Pixel of a point given from the isocentre, in the file's own columns."""
    u, v = geometry.camera.project(transform_points(geometry.camera.T_camera_world, point_ct)[None])[0]
    return (geometry.camera.cols - 1 - u if geometry.mirrored else u), v


def test_a_header_puts_the_patients_left_right_and_the_head_up_and_enlarges_what_is_near_the_source(tmp_path, counts):
    g = read_xray(xa(tmp_path / "a.dcm", counts), with_camera=False).geometry
    assert g.mirrored  # the source is behind the patient, the picture as seen from the front
    left, head = seen_at(g, [20.0, 0, 0]), seen_at(g, [0, 0, 20.0])
    assert left[0] > 47.5 + 20 and left[1] == pytest.approx(31.5)
    assert head[1] < 31.5 - 20 and head[0] == pytest.approx(47.5)
    back, front = seen_at(g, [10.0, 50, 0]), seen_at(g, [10.0, -50, 0])
    assert back[0] - 47.5 == pytest.approx((front[0] - 47.5) * (SOD + 50) / (SOD - 50))
    assert left[0] - 47.5 == pytest.approx(20 * SDD / SOD / PIXEL)


@pytest.mark.parametrize(
    ("primary", "secondary", "detector"),
    [(90, 0, [1, 0, 0]), (-90, 0, [-1, 0, 0]), (0, 0, [0, -1, 0]), (0, 90, [0, 0, 1]), (30, 0, [0.5, -0.866, 0])],
)
def test_angles_move_the_detector_to_the_left_and_to_the_head(tmp_path, counts, primary, secondary, detector):
    change = {"PositionerPrimaryAngle": primary, "PositionerSecondaryAngle": secondary}
    if secondary == 90:
        change["PatientOrientation"] = ["L", "P"]
    if abs(primary) == 90:
        change["PatientOrientation"] = ["P", "F"]
    g = read_xray(xa(tmp_path / "a.dcm", counts, **change), with_camera=False).geometry
    np.testing.assert_allclose(g.R_camera_ct[2], detector, atol=1e-3)
    assert np.linalg.det(g.R_camera_ct) == pytest.approx(1)


def test_pixels_are_bright_where_there_is_more_x_ray_whatever_the_header_calls_it(tmp_path, counts):
    plain = read_xray(xa(tmp_path / "a.dcm", counts), with_camera=True)
    change = {"PixelIntensityRelationshipSign": None, "PhotometricInterpretation": "MONOCHROME1"}
    inverted = read_xray(xa(tmp_path / "b.dcm", 65535 - counts, **change), with_camera=True)
    signed = read_xray(xa(tmp_path / "c.dcm", 65535 - counts, PixelIntensityRelationshipSign=-1), with_camera=True)
    np.testing.assert_array_equal(plain.attenuation, inverted.attenuation)
    np.testing.assert_array_equal(plain.attenuation, signed.attenuation)
    cv2.imwrite(str(tmp_path / "a.png"), counts)
    np.testing.assert_array_equal(plain.attenuation, read_xray(tmp_path / "a.png", with_camera=True).attenuation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"DistanceSourceToDetector": None}, r"no DistanceSourceToDetector \(0018,1110\)"),
        ({"DistanceSourceToPatient": -3}, "DistanceSourceToPatient .* is -3"),
        ({"ImagerPixelSpacing": None}, "no ImagerPixelSpacing"),
        ({"PositionerPrimaryAngle": None}, "no PositionerPrimaryAngle"),
        ({"PatientOrientation": ["X", "F"]}, "names no direction"),
        ({"PatientOrientation": ["L", "A"]}, "contradict"),
        ({"Modality": "CT"}, "modality CT"),
        ({"PixelData": b"\0" * 10}, "cannot be decoded"),
    ],
)
def test_a_header_that_does_not_say_enough_is_refused_by_name(tmp_path, counts, change, message):
    with pytest.raises(XrayFileError, match=message):
        read_xray(xa(tmp_path / "a.dcm", counts, **change), with_camera=False)


def test_an_empty_frame_and_a_frame_number_that_is_not_there_are_refused(tmp_path, counts):
    with pytest.raises(XrayFileError, match="same value"):
        read_xray(xa(tmp_path / "a.dcm", np.full((64, 64), 7, np.uint16)), with_camera=True)
    two = xa(tmp_path / "b.dcm", counts, NumberOfFrames=2, PixelData=counts.astype("<u2").tobytes() * 2)
    assert read_xray(two, with_camera=True, frame=2).attenuation.shape == counts.shape
    with pytest.raises(XrayFileError, match="has 2 frames, not 3"):
        read_xray(two, with_camera=True, frame=3)
    (tmp_path / "c.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:200])
    with pytest.raises(XrayFileError, match=r"c\.dcm"):
        read_xray(tmp_path / "c.dcm", with_camera=True)


def test_a_patient_is_found_from_the_header_of_a_dicom_frame_alone(case, tmp_path, rng):
    """No camera file, no start: the patient lies 25 mm off the isocentre and is turned by 10 degrees."""
    change = {"PositionerPrimaryAngle": 12.0, "PositionerSecondaryAngle": -5.0}
    blank = rng.integers(1000, 60000, (1024, 1024)).astype(np.uint16)
    geometry = read_xray(xa(tmp_path / "blank.dcm", blank, **change), with_camera=False).geometry
    centre = np.array(case.prior.isocentre_ct)
    T = np.eye(4)
    T[:3, :3] = geometry.R_camera_ct
    T[:3, 3] = np.array([0, 0, SOD]) - T[:3, :3] @ centre
    truth = inverse(moved_about(centre, [*np.deg2rad([6, -5, 6]), 15, 12, -16]) @ inverse(T))
    beam = Anatomy(case, geometry.camera.scaled(0.5))
    beam = cv2.resize(beam.transmission(*beam.paths(truth)), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    exposed = ImageChain(Detector(), 1024, 1024, 3).counts(beam, 1)
    image = xa(tmp_path / "frame.dcm", exposed[:, ::-1], **change)
    vertebrae = [s.label for s in case.structures if s.name.startswith("vertebrae")]
    cut = sitk.Mask(sitk.Cast(case.ct.image, sitk.sitkInt16) + 1000, case.labels.image == vertebrae[2])
    sitk.WriteImage(cut, str(tmp_path / "bone.nrrd"))
    bones = (*vertebrae[:2], tmp_path / "bone.nrrd")  # by label, and as a volume of its own
    request = Request(
        case.path.parent / "ct.nrrd", [image], auto=True, labels=case.path.parent / "labels.nrrd", bones=bones
    )
    result = register_files(request)
    assert result["accepted"] and result["views"][0]["mirrored"]
    found = np.array(result["views"][0]["T_camera_ct"])
    a, b = transform_points(found, case.target_ct), transform_points(truth, case.target_ct)
    assert np.linalg.norm((a - b)[:2]) < 1.0
    # Each vertebra gets its pose; in a rigid patient it is the same.
    assert [bone["label"] or Path(bone["volume"]) for bone in result["bones"]] == list(bones)
    for bone in result["bones"]:
        own = transform_points(np.array(bone["views"][0]["T_camera_ct"]), case.target_ct)
        assert np.linalg.norm((own - b)[:2]) < 3.0
    with pytest.raises(RegisterError, match="only a prior: add --auto"):
        register_files(Request(case.path.parent / "ct.nrrd", [image]))


def test_the_camera_of_a_tiff_must_be_given(case, tmp_path, counts):
    cv2.imwrite(str(tmp_path / "a.png"), counts)
    with pytest.raises(RegisterError, match="give a file with --camera"):
        register_files(Request(case.path.parent / "ct.nrrd", [tmp_path / "a.png"], auto=True))
