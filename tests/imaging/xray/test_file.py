"""X-ray files: what a DICOM header says of the C-arm, and what is refused."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    XRayAngiographicImageStorage,
    generate_uid,
)

from fluoronav.dicom import reading
from fluoronav.geometry import inverse, moved_about, transform_points
from fluoronav.imaging.registration.register import RegisterError, RegistrationRequest, register_files
from fluoronav.imaging.xray.file import XrayFileError, read_xray
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.sequence import Anatomy

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
        ({"DistanceSourceToDetector": 0}, "DistanceSourceToDetector .* is 0, which no C-arm has"),
        ({"DistanceSourceToDetector": 1.0}, "DistanceSourceToDetector .* is 1, which no C-arm has"),
        ({"DistanceSourceToDetector": 500}, "is not less than DistanceSourceToDetector"),
        ({"EstimatedRadiographicMagnificationFactor": 3.0}, "is 3, but the distances"),
        ({"EstimatedRadiographicMagnificationFactor": 0.5}, "a picture is larger than the patient"),
        ({"ImagerPixelSpacing": [0.0003, 0.0003]}, "ImagerPixelSpacing .* which no detector has"),
        ({"ImagerPixelSpacing": [PIXEL, 0]}, "ImagerPixelSpacing .* which no detector has"),
        ({"PixelAspectRatio": [2, 1]}, "PixelAspectRatio .* contradict each other"),
        ({"PixelSpacing": [PIXEL, PIXEL / 2]}, "PixelSpacing .* contradict each other"),
        ({"PixelSpacing": [2 * PIXEL, 2 * PIXEL]}, "in the patient, nearer the source, a pixel is smaller"),
        ({"FieldOfViewDimensions": [10, 10]}, "one of them is of another zoom"),
        ({"FieldOfViewRotation": 90, "PatientOrientation": None}, "turned or mirrored after it was read"),
        ({"FieldOfViewHorizontalFlip": "YES", "PatientOrientation": None}, "turned or mirrored after it was read"),
        ({"PositionerPrimaryAngle": 400}, "more than 180 degrees"),
        ({"HighBit": 11}, "BitsAllocated, BitsStored and HighBit are 16, 16 and 11"),
        ({"BitsStored": 12, "HighBit": 11}, "values up to [0-9]+, BitsStored says up to 4095"),
        ({"PixelRepresentation": 1}, "BitsStored and PixelRepresentation say 0 to 32767"),
        ({"Rows": 60000, "Columns": 60000}, "has 60000 x 60000 pixels"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, r"is a colour image \(PALETTE COLOR\)"),
    ],
)
def test_a_header_that_does_not_say_enough_is_refused_by_name(tmp_path, counts, change, message):
    with pytest.raises(XrayFileError, match=message):
        read_xray(xa(tmp_path / "a.dcm", counts, **change), with_camera=False)


def test_the_magnification_tells_the_patients_distance_where_that_is_missing(tmp_path, counts):
    change = {"DistanceSourceToPatient": None, "EstimatedRadiographicMagnificationFactor": 1.25}
    geometry = read_xray(xa(tmp_path / "a.dcm", counts, **change), with_camera=False).geometry
    assert geometry.T_camera_isocentre[2, 3] == pytest.approx(800)


def test_pixels_that_are_not_square_have_two_focal_lengths(tmp_path, counts):
    path = xa(tmp_path / "a.dcm", counts, ImagerPixelSpacing=[2 * PIXEL, PIXEL], PixelAspectRatio=[2, 1])
    K = read_xray(path, with_camera=False).geometry.camera.K
    assert K[0, 0] == pytest.approx(SDD / PIXEL) and K[1, 1] == pytest.approx(SDD / PIXEL / 2)


def test_a_header_may_lie_in_the_functional_groups_of_its_frame(tmp_path, counts):
    moved, angles = Dataset(), Dataset()
    angles.PositionerPrimaryAngle, angles.PositionerSecondaryAngle = 90.0, 0.0
    moved.PositionerPositionSequence = Sequence([angles])
    first = Dataset()
    first.PositionerPositionSequence = Sequence([Dataset()])
    change = {
        "PositionerPrimaryAngle": None, "PositionerSecondaryAngle": None, "PatientOrientation": ["P", "F"],
        "NumberOfFrames": 2, "PixelData": counts.astype("<u2").tobytes() * 2,
        "PerFrameFunctionalGroupsSequence": Sequence([first, moved]),
    }  # fmt: skip
    path = xa(tmp_path / "a.dcm", counts, **change)
    geometry = read_xray(path, with_camera=False, frame=2).geometry
    np.testing.assert_allclose(geometry.R_camera_ct[2], [1, 0, 0], atol=1e-6)
    with pytest.raises(XrayFileError, match="no PositionerPrimaryAngle"):
        read_xray(path, with_camera=False)


def test_the_angles_of_an_arm_that_moves_are_those_of_the_first_frame(tmp_path, counts):
    change = {"PositionerMotion": "DYNAMIC", "NumberOfFrames": 2, "PixelData": counts.astype("<u2").tobytes() * 2}
    path = xa(tmp_path / "a.dcm", counts, **change)
    first = read_xray(path, with_camera=False)
    assert first.notes == ("frame 1 of 2 is taken; --frame names another",)
    with pytest.raises(XrayFileError, match="the C-arm moved"):
        read_xray(path, with_camera=False, frame=2)


def test_what_a_detector_has_filled_is_not_seen(tmp_path, counts):
    counts[:, :20] = 0
    frame = read_xray(xa(tmp_path / "a.dcm", counts, PixelPaddingValue=0), with_camera=True)
    assert not frame.field_mask[:, :25].any() and frame.field_mask.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"FieldOfViewRotation": 45}, r"FieldOfViewRotation \(0018,7032\) is 45 degrees; 0, 90, 180 or 270"),
        ({"FieldOfViewHorizontalFlip": "MAYBE"}, "FieldOfViewHorizontalFlip .* YES or NO was expected"),
        ({"DistanceSourceToDetector": 1200.0}, "it is not of this zoom or this distance"),
        ({"ImagerPixelSpacing": [PIXEL / 2, PIXEL / 2]}, "it is not of this zoom or this distance"),
        ({"ImagerPixelSpacing": [PIXEL, PIXEL / 2]}, "which are of other pixels"),
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": [4, 3]}, "resample it to square pixels"),
    ],
)
def test_a_camera_file_that_the_header_contradicts_is_refused(tmp_path, counts, change, message):
    f = SDD / PIXEL
    camera = tmp_path / "carm.yaml"
    camera.write_text(f"rows: 64\ncols: 96\nK: [[{f}, 0, 47.5], [0, {f}, 31.5], [0, 0, 1]]\n")
    path = xa(tmp_path / "a.dcm", counts, **change)
    with pytest.raises((XrayFileError, RegisterError), match=message):
        register_files(
            RegistrationRequest(tmp_path / "nothing.nrrd", [path], cameras=[camera], init=tmp_path / "init.json")
        )


def test_a_plain_picture_of_several_pages_or_in_colour_or_too_large_is_refused(tmp_path, counts):
    cv2.imwritemulti(str(tmp_path / "a.tif"), [counts, counts])
    with pytest.raises(XrayFileError, match="has 2 pages"):
        read_xray(tmp_path / "a.tif", with_camera=True)
    cv2.imwrite(str(tmp_path / "b.png"), np.dstack([counts, counts // 2, counts]))
    with pytest.raises(XrayFileError, match="is a colour picture"):
        read_xray(tmp_path / "b.png", with_camera=True)
    cv2.imwrite(str(tmp_path / "grey.png"), np.dstack([counts] * 3))
    assert read_xray(tmp_path / "grey.png", with_camera=True).attenuation.shape == counts.shape
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((6000, 6000), np.uint8))
    with pytest.raises(XrayFileError, match="has 6000 x 6000 pixels"):
        read_xray(tmp_path / "c.png", with_camera=True)
    with pytest.raises(XrayFileError, match="has 1 frames, not 2"):
        read_xray(tmp_path / "grey.png", with_camera=True, frame=2)


def test_a_deflated_file_is_inflated_up_to_its_limit(tmp_path, counts, monkeypatch):
    path = xa(tmp_path / "a.dcm", counts)
    plain = read_xray(path, with_camera=True)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    np.testing.assert_array_equal(read_xray(path, with_camera=True).attenuation, plain.attenuation)
    monkeypatch.setattr(reading, "LIMITS", replace(reading.LIMITS, most_inflated_bytes=8192))
    with pytest.raises(XrayFileError, match="inflates to more than 0 MiB; store it uncompressed"):
        read_xray(path, with_camera=True)


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
    exposed = ImageChain(FlatPanel(), 1024, 1024, 3).counts(beam, 1)
    image = xa(tmp_path / "frame.dcm", exposed[:, ::-1], **change)
    vertebrae = [s.label for s in case.structures if s.name.startswith("vertebrae")]
    cut = sitk.Mask(sitk.Cast(case.ct.image, sitk.sitkInt16) + 1000, case.labels.image == vertebrae[2])
    sitk.WriteImage(cut, str(tmp_path / "bone.nrrd"))
    bones = (*vertebrae[:2], tmp_path / "bone.nrrd")  # by label, and as a volume of its own
    request = RegistrationRequest(
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
        register_files(RegistrationRequest(case.path.parent / "ct.nrrd", [image]))


def test_the_camera_of_a_tiff_must_be_given(case, tmp_path, counts):
    cv2.imwrite(str(tmp_path / "a.png"), counts)
    with pytest.raises(RegisterError, match="give a file with --camera"):
        register_files(RegistrationRequest(case.path.parent / "ct.nrrd", [tmp_path / "a.png"], auto=True))
