"""What XA headers say of moving arms, detectors and fields; handedness on points without mirror symmetry."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedXAImageStorage, SecondaryCaptureImageStorage
from tests.imaging.xray.test_file import PIXEL, SDD, seen_at, xa

from fluoronav.dicom.xray_header import XrayHeader
from fluoronav.dicom.xray_readout import Readout
from fluoronav.dicom.xray_shutters import read_shutters
from fluoronav.geometry import Camera
from fluoronav.imaging.xray.file import XrayFileError, read_xray

ROWS, COLS = 64, 96


@pytest.fixture
def counts(rng):
    return rng.integers(1000, 60000, (ROWS, COLS)).astype(np.uint16)


def frames(counts, number):
    return {"NumberOfFrames": number, "PixelData": counts.astype("<u2").tobytes() * number}


def geometry(path, frame=1):
    return read_xray(path, with_camera=False, frame=frame).geometry


def test_the_angles_of_a_moving_arm_are_the_first_frames_plus_the_increment_of_the_frame(tmp_path, counts):
    change = {
        "PositionerMotion": "DYNAMIC", "PositionerPrimaryAngle": 10, "PositionerSecondaryAngle": -5,
        "PositionerPrimaryAngleIncrement": [0, 4, 20], "PositionerSecondaryAngleIncrement": [0, 0, 0],
    }  # fmt: skip
    path = xa(tmp_path / "a.dcm", counts, **change, **frames(counts, 3))
    assert [geometry(path, k).angles.primary_deg for k in (1, 2, 3)] == [10, 14, 30]
    beam = geometry(path, 3).R_camera_ct[2]
    s, c = np.sin(np.deg2rad([30, -5])), np.cos(np.deg2rad([30, -5]))
    np.testing.assert_allclose(beam, [s[0] * c[1], -c[0] * c[1], s[1]], atol=1e-9)
    assert any("increments of frame 3" in note for note in read_xray(path, with_camera=False, frame=3).notes)


@pytest.mark.parametrize(
    ("increments", "said"),
    [
        ([0, 4], "has 2 values for 3 frames"),
        ([1.5, 1.5, 1.5], "reads as the step from one frame to the next"),
        ([0, 0, 200], "more than 180 degrees"),
    ],
)
def test_increments_that_do_not_tell_the_frames_angle_are_refused(tmp_path, counts, increments, said):
    path = xa(tmp_path / "a.dcm", counts, PositionerPrimaryAngleIncrement=increments, **frames(counts, 3))
    assert geometry(path).angles.primary_deg == 0
    with pytest.raises(XrayFileError, match=said):
        geometry(path, 3)


@pytest.mark.parametrize("dimensions", [[16, 24], [24, 16]])
def test_pixels_are_sized_by_the_field_of_view_where_their_spacing_is_missing(tmp_path, counts, dimensions):
    path = xa(tmp_path / "a.dcm", counts, ImagerPixelSpacing=None, FieldOfViewDimensions=dimensions)
    frame = read_xray(path, with_camera=False)
    assert frame.geometry.camera.K[0, 0] == pytest.approx(SDD / 0.25)
    assert any("from FieldOfViewDimensions (0018,1149)" in note for note in frame.notes)


def test_pixels_are_sized_by_the_detectors_elements_and_their_binning(tmp_path, counts):
    change = {"ImagerPixelSpacing": None, "DetectorElementSpacing": [0.15, 0.15], "DetectorBinning": [2, 2]}
    assert geometry(xa(tmp_path / "a.dcm", counts, **change)).camera.K[1, 1] == pytest.approx(SDD / 0.3)


def test_a_field_of_view_that_does_not_fit_square_pixels_sizes_none(tmp_path, counts):
    path = xa(tmp_path / "a.dcm", counts, ImagerPixelSpacing=None, FieldOfViewDimensions=[200, 200])
    with pytest.raises(XrayFileError, match=r"FieldOfViewDimensions \(0018,1149\) that fit its rows and columns"):
        geometry(path)
    assert read_xray(path, with_camera=True).geometry is None


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_turning_and_mirroring_after_readout_are_undone_for_a_camera_file(tmp_path, counts, quarter_turns, mirrored):
    stored = np.rot90(counts, -quarter_turns)  # clockwise
    stored = stored[:, ::-1] if mirrored else stored
    change = {"FieldOfViewRotation": 90 * quarter_turns, "FieldOfViewHorizontalFlip": "YES" if mirrored else "NO"}
    plain = read_xray(xa(tmp_path / "a.dcm", counts), with_camera=True)
    frame = read_xray(xa(tmp_path / "b.dcm", stored, **change), with_camera=True)
    np.testing.assert_array_equal(frame.attenuation, plain.attenuation)
    np.testing.assert_array_equal(frame.field_mask, plain.field_mask)
    assert bool(frame.notes) == bool(quarter_turns or mirrored)
    f = SDD / PIXEL
    frame.check_camera(Camera(ROWS, COLS, np.array([[f, 0, 47.5], [0, f, 31.5], [0, 0, 1]])))
    # A place on the detector is found again in the stored image.
    readout = Readout(quarter_turns, mirrored)
    row, col = readout.stored_at(7, 50, *stored.shape)
    assert stored[round(row), round(col)] == counts[7, 50]
    np.testing.assert_array_equal(readout.undone(stored), counts)


def test_pixels_that_are_not_square_are_compared_with_the_camera_as_they_were_read(tmp_path, counts):
    change = {"FieldOfViewRotation": 90, "ImagerPixelSpacing": [PIXEL, 2 * PIXEL]}
    frame = read_xray(xa(tmp_path / "a.dcm", np.rot90(counts, -1), **change), with_camera=True)
    f = SDD / PIXEL
    frame.check_camera(Camera(ROWS, COLS, np.array([[f, 0, 47.5], [0, f / 2, 31.5], [0, 0, 1]])))


@pytest.mark.parametrize("quarter_turns", [0, 1])
def test_the_isocentre_of_enhanced_xa_lies_where_the_detector_has_it(tmp_path, counts, quarter_turns):
    """On elements of 0.1 mm, three to a pixel, the field begins 30 rows and 60 columns into the detector."""
    stored = np.rot90(counts, -quarter_turns)
    at = np.array([30, 60]) + 3 * np.array([36, 55]) + 1  # the middle element of the pixel in row 36, column 55
    change = {
        "SOPClassUID": EnhancedXAImageStorage, "ImagerPixelSpacing": [0.3, 0.3], "DetectorElementSpacing": [0.1, 0.1],
        "FieldOfViewOrigin": [30, 60], "PositionOfIsocenterProjection": at.astype(float).tolist(),
        "FieldOfViewRotation": 90 * quarter_turns,
    }  # fmt: skip
    g = geometry(xa(tmp_path / "a.dcm", stored, **change))
    u, v = seen_at(g, [0.0, 0, 0])
    assert (v, u) == pytest.approx((36, 55) if quarter_turns == 0 else (55, ROWS - 1 - 36))
    left, head = seen_at(g, [20.0, 0, 0]), seen_at(g, [0, 0, 20.0])
    assert left[0] > u and head[1] < v  # still the patient's left on the right, head up


def test_enhanced_xa_has_distances_angles_and_shutters_by_frame(tmp_path, counts):
    def groups(primary, right):
        own = Dataset()
        angles, distances, shutter = Dataset(), Dataset(), Dataset()
        angles.PositionerPrimaryAngle, angles.PositionerSecondaryAngle = primary, 0.0
        distances.DistanceSourceToDetector, distances.DistanceSourceToIsocenter = SDD, 700.0
        shutter.ShutterShape = "RECTANGULAR"
        shutter.ShutterLeftVerticalEdge, shutter.ShutterRightVerticalEdge = 1, right
        shutter.ShutterUpperHorizontalEdge, shutter.ShutterLowerHorizontalEdge = 1, ROWS
        own.PositionerPositionSequence = Sequence([angles])
        own.XRayGeometrySequence = Sequence([distances])
        own.FrameDisplayShutterSequence = Sequence([shutter])
        return own

    absent = (
        "PositionerPrimaryAngle",
        "PositionerSecondaryAngle",
        "DistanceSourceToDetector",
        "DistanceSourceToPatient",
    )
    change = {
        "SOPClassUID": EnhancedXAImageStorage, "PositionerMotion": "DYNAMIC", **dict.fromkeys(absent),
        "PerFrameFunctionalGroupsSequence": Sequence([groups(0.0, COLS), groups(25.0, 40)]), **frames(counts, 2),
    }  # fmt: skip
    path = xa(tmp_path / "a.dcm", counts, **change)
    first, second = (read_xray(path, with_camera=False, frame=k) for k in (1, 2))
    assert (first.geometry.angles.primary_deg, second.geometry.angles.primary_deg) == (0, 25)
    assert second.geometry.T_camera_isocentre[2, 3] == 700
    assert second.geometry.mirrored  # so that the open columns lie on the right
    assert not second.field_mask[:, : 128 - 54].any() and second.field_mask[:, -30:].any()
    assert first.field_mask[:, :30].any()


RECTANGLE = {
    "ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 11, "ShutterRightVerticalEdge": 90,
    "ShutterUpperHorizontalEdge": 6, "ShutterLowerHorizontalEdge": 50,
}  # fmt: skip
CIRCLE = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [30, 40], "RadiusOfCircularShutter": 20}
POLYGON = {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 1, 41, 41, 1]}


def collimator(shutter):
    return {name.replace("Shutter", "Collimator"): value for name, value in shutter.items()}


def shutters(path, counts, **change):
    from pydicom import dcmread

    return read_shutters(XrayHeader(path, dcmread(xa(path, counts, **change))))


@pytest.mark.parametrize("kind", [dict, collimator], ids=["shutter", "collimator"])
def test_a_shutter_and_a_collimator_leave_what_lies_inside_their_edges(tmp_path, counts, kind):
    row, col = np.mgrid[1 : ROWS + 1, 1 : COLS + 1]
    found = shutters(tmp_path / "a.dcm", counts, **kind(RECTANGLE))
    np.testing.assert_array_equal(found.mask, (col >= 11) & (col <= 90) & (row >= 6) & (row <= 50))
    found = shutters(tmp_path / "a.dcm", counts, **kind(CIRCLE))
    np.testing.assert_array_equal(found.mask, np.hypot(row - 30, col - 40) <= 20)
    found = shutters(tmp_path / "a.dcm", counts, **kind(POLYGON))
    np.testing.assert_array_equal(found.mask, (row - 1) + (col - 1) <= 40)
    both = shutters(tmp_path / "a.dcm", counts, **RECTANGLE, **collimator(CIRCLE))
    inside = (np.hypot(row - 30, col - 40) <= 20) & (row >= 11)
    assert both.mask[inside].all() and both.mask.sum() < (np.hypot(row - 30, col - 40) <= 20).sum() + 1
    assert len(both.shapes) == 2


def test_several_shapes_leave_what_all_of_them_leave(tmp_path, counts):
    change = RECTANGLE | CIRCLE | {"ShutterShape": ["RECTANGULAR", "CIRCULAR"], "CenterOfCircularShutter": [30, 15]}
    found = shutters(tmp_path / "a.dcm", counts, **change)
    row, col = np.mgrid[1 : ROWS + 1, 1 : COLS + 1]
    np.testing.assert_array_equal(
        found.mask, (np.hypot(row - 30, col - 15) <= 20) & (col >= 11) & (row <= 50) & (row > 5)
    )


def test_what_a_shutter_hides_is_outside_of_the_field_of_view(tmp_path, counts):
    open_field = read_xray(xa(tmp_path / "a.dcm", counts), with_camera=True).field_mask
    frame = read_xray(xa(tmp_path / "b.dcm", counts, **RECTANGLE), with_camera=True)
    left, right, upper, lower = 10 / COLS * 128, 90 / COLS * 128, 5 / ROWS * 128, 50 / ROWS * 128
    assert open_field[:, : int(left)].any() and not frame.field_mask[:, : int(left)].any()
    assert not frame.field_mask[:, int(right) + 1 :].any() and not frame.field_mask[: int(upper)].any()
    assert not frame.field_mask[int(lower) + 1 :].any()
    inside = np.s_[int(upper) + 3 : int(lower) - 3, int(left) + 3 : int(right) - 3]
    np.testing.assert_array_equal(frame.field_mask[inside], open_field[inside])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (RECTANGLE | {"ShutterRightVerticalEdge": 5}, "the edges of its shutter contradict each other"),
        (RECTANGLE | {"ShutterLowerHorizontalEdge": None}, "ShutterLowerHorizontalEdge is missing"),
        (CIRCLE | {"RadiusOfCircularShutter": 0}, "RadiusOfCircularShutter is 0"),
        (CIRCLE | {"CenterOfCircularShutter": [300, 400]}, "its shutters leave nothing of the image"),
        (POLYGON | {"VerticesOfThePolygonalShutter": [1, 1, 5, 5]}, "has 4 numbers"),
    ],
)
def test_edges_that_are_no_shutter_are_refused_by_name(tmp_path, counts, change, said):
    change = {k: v for k, v in change.items() if v is not None}
    with pytest.raises(XrayFileError, match=said):
        read_xray(xa(tmp_path / "a.dcm", counts, **change), with_camera=True)


def test_a_secondary_capture_is_a_picture_without_geometry(tmp_path, counts):
    grey = (counts >> 8).astype(np.uint8)
    change = {"SOPClassUID": SecondaryCaptureImageStorage, "PixelIntensityRelationship": None}
    path = xa(tmp_path / "a.dcm", counts, **change)
    with pytest.raises(
        XrayFileError, match="is a Secondary Capture, a picture of an image: it has no geometry.*--camera"
    ):
        read_xray(path, with_camera=False)
    assert "is a Secondary Capture" in read_xray(path, with_camera=True).notes[0]
    coloured = {
        "PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8,
        "BitsStored": 8, "HighBit": 7,
    }  # fmt: skip
    same = np.repeat(grey[..., None], 3, axis=2)
    path = xa(tmp_path / "b.dcm", counts, PixelData=same.tobytes(), **coloured, **change)
    assert read_xray(path, with_camera=True).attenuation.shape == counts.shape
    same[..., 1] //= 2
    path = xa(tmp_path / "c.dcm", counts, PixelData=same.tobytes(), **coloured, **change)
    with pytest.raises(XrayFileError, match="is a colour picture"):
        read_xray(path, with_camera=True)
