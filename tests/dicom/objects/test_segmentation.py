"""A segmentation lies where the structures are, whatever the order and direction of slices and voxels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, JPEGLSLossless
from scipy.spatial.transform import Rotation
from tests.case.scans import label_map, patient
from tests.dicom.objects.scene import DRAFT, SEGMENTS, ct, errors_of, oriented

from fluoronav.case import read_volume
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects import Segment, read_source, segmentation, source_of, write_object
from fluoronav.dicom.objects.label_grid import is_on_grid, planes_of, resampled

TURNED = Rotation.from_euler("xyz", [20, -35, 10], degrees=True)


def turned(image, rotation):
    """The image with another direction: an oblique series."""
    out = sitk.Image(image)
    out.SetDirection((rotation.as_matrix() @ np.array(image.GetDirection()).reshape(3, 3)).ravel().tolist())
    return out


def points_of(labels, number):
    """Places of the voxels with a label, LPS mm, rounded to 0.1 mm."""
    at = np.argwhere(sitk.GetArrayViewFromImage(labels) == number)[:, ::-1]
    direction = np.array(labels.GetDirection()).reshape(3, 3)
    return rounded(at * np.array(labels.GetSpacing()) @ direction.T + np.array(labels.GetOrigin()))


def points_in(dataset, number):
    """Places of the pixels of a segment in a BINARY object, by its own functional groups."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    down, right = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    masks = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    found = []
    for mask, groups in zip(masks, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number:
            rows, columns = np.nonzero(mask)
            origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
            found.append(origin + np.outer(columns, cosines[:3] * right) + np.outer(rows, cosines[3:] * down))
    return rounded(np.concatenate(found))


def rounded(points):
    return {tuple(p) for p in np.rint(points * 10).astype(int).tolist()}


@settings(max_examples=25)
@given(
    permutation=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.booleans()] * 3),
    order=st.permutations([0, 1, 2]),
    turns=st.tuples(*[st.booleans()] * 3),
    oblique=st.booleans(),
    crop=st.integers(0, 4),
)
def test_every_labelled_voxel_stays_at_its_place_in_the_patient(permutation, flips, order, turns, oblique, crop):
    rotation = TURNED if oblique else Rotation.identity()
    series = oriented(turned(patient(), rotation), permutation, flips)
    # Slices of a series form a right-handed stack; which way they are numbered is the series' own affair.
    if np.linalg.det(np.array(series.GetDirection()).reshape(3, 3)) < 0:
        series = sitk.Flip(series, [False, False, True], False)
    labels = oriented(turned(label_map(), rotation)[crop:, :, crop:], order, turns)
    made = segmentation(source_of(ct(series), "ct"), DRAFT, labels, SEGMENTS)
    for k, segment in enumerate(SEGMENTS):
        assert points_in(made, k + 1) == points_of(labels, segment.label)


@pytest.mark.parametrize("encoding", ["BINARY", "LABELMAP"])
def test_dcmqi_reads_the_voxels_that_were_written(tmp_path, encoding):
    rotation = TURNED
    feet_first = sitk.Flip(turned(patient(), rotation), [True, False, True], False)
    labels = turned(label_map(), rotation)
    made = segmentation(source_of(ct(feet_first), "ct"), DRAFT, labels, SEGMENTS, encoding=encoding)
    write_object(made, tmp_path / "seg.dcm")
    if encoding == "LABELMAP":
        # dcmqi takes JPEG-LS for lossy, so dcmtk decodes it first.
        (tmp_path / "seg.dcm").rename(tmp_path / "packed.dcm")
        subprocess.run(["dcmdjpls", str(tmp_path / "packed.dcm"), str(tmp_path / "seg.dcm")], check=True)
    tool = Path(sys.executable).parent / "segimage2itkimage"
    command = [str(tool), "--inputDICOM", str(tmp_path / "seg.dcm"), "--outputDirectory", str(tmp_path), "-t", "nrrd"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(tmp_path.glob("*.nrrd"))
    # A file for each segment, or one for all segments of a label map; voxels have the segment's number.
    assert len(files) == (len(SEGMENTS) if encoding == "BINARY" else 1)
    for k, segment in enumerate(SEGMENTS):
        read = sitk.ReadImage(str(files[k if encoding == "BINARY" else 0])) == k + 1
        back = sitk.Resample(read, labels, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        expected = sitk.GetArrayFromImage(labels) == segment.label
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back) != 0, expected)
        assert int(sitk.GetArrayFromImage(read).sum()) == int(expected.sum())


def test_segments_have_names_codes_sides_and_colours():
    names = [Segment("kidney_left", 1, "#2e8ab8"), Segment("plate", 2)]
    made = segmentation(source_of(ct(), "ct"), DRAFT, label_map(), names)
    kidney, plate = made.SegmentSequence
    code = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("64033007", "SCT")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert plate.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99FLUORONAV"
    assert kidney.SegmentAlgorithmType == "AUTOMATIC" and kidney.RecommendedDisplayCIELabValue[0] > 0
    by_hand = segmentation(source_of(ct(), "ct"), DRAFT, label_map(), [Segment("kidney_left", 1, algorithm="")])
    assert by_hand.SegmentSequence[0].SegmentAlgorithmType == "MANUAL"


def test_a_label_map_is_a_fraction_of_the_size_and_lossless():
    made = segmentation(source_of(ct(), "ct"), DRAFT, label_map(), SEGMENTS, encoding="LABELMAP")
    assert made.file_meta.TransferSyntaxUID == JPEGLSLossless
    height = [g.PlanePositionSequence[0].ImagePositionPatient[2] for g in made.PerFrameFunctionalGroupsSequence]
    np.testing.assert_array_equal(made.pixel_array[np.argsort(height)], sitk.GetArrayFromImage(label_map()))


def test_labels_beyond_a_missing_slice_are_refused():
    whole = ct()
    with pytest.raises(DicomError, match=r"\d+ labelled voxels lie outside the series or between its slices"):
        segmentation(source_of(whole[:6] + whole[7:], "ct"), DRAFT, label_map(), SEGMENTS)


def test_labels_on_another_grid_are_refused_and_can_be_resampled():
    source = source_of(ct(), "ct")
    shifted = label_map()
    shifted.SetOrigin((-19.5, -30, 40))
    with pytest.raises(DicomError, match="not on the grid of the series, but 0.5 voxels beside it"):
        segmentation(source, DRAFT, shifted, SEGMENTS)
    oblique = turned(label_map(), TURNED)
    assert not is_on_grid(oblique, planes_of(source))
    on_grid = resampled(oblique, planes_of(source), "ct")
    assert is_on_grid(on_grid, planes_of(source))
    segmentation(source, DRAFT, on_grid, SEGMENTS)


def test_a_slow_drift_of_the_spacing_is_refused():
    labels = label_map()
    labels.SetSpacing((1.01, 1, 2))  # half a voxel over the width
    with pytest.raises(DicomError, match="not on the grid"):
        segmentation(source_of(ct(), "ct"), DRAFT, labels, SEGMENTS)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s[4].__setattr__("ImagePositionPatient", s[3].ImagePositionPatient), "two slices lie at the same"),
        (lambda s: s[4].__setattr__("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]), "different planes"),
        (lambda s: s[4].__setattr__("PixelSpacing", [2, 2]), "differ in Rows"),
        (lambda s: [d.__delattr__("FrameOfReferenceUID") for d in s], "FrameOfReferenceUID"),
        (lambda s: s[4].__delattr__("ImagePositionPatient"), "has no ImagePositionPatient"),
        (
            lambda s: [d.__setattr__("ImagePositionPatient", [-20 + k, -30, 40 + 2 * k]) for k, d in enumerate(s)],
            "tilted gantry",
        ),
    ],
    ids=["repeated", "localiser", "another size", "no frame of reference", "no place", "tilt"],
)
def test_a_series_that_is_no_volume_is_refused(spoil, said):
    series = ct()
    spoil(series)
    with pytest.raises(DicomError, match=said):
        segmentation(source_of(series, "ct"), DRAFT, label_map(), SEGMENTS)


def test_what_is_no_label_map_is_refused():
    source, half = source_of(ct(), "ct"), sitk.Cast(label_map(), sitk.sitkFloat32) * 0.5
    with pytest.raises(DicomError, match="not whole numbers"):
        segmentation(source, DRAFT, half, SEGMENTS)
    with pytest.raises(DicomError, match="reaches from -1"):
        segmentation(source, DRAFT, sitk.Cast(label_map(), sitk.sitkInt16) - 1, SEGMENTS)
    with pytest.raises(DicomError, match="two structures have the same label"):
        segmentation(source, DRAFT, label_map(), [Segment("a", 1), Segment("b", 1)])
    with pytest.raises(DicomError, match="no structure to write"):
        segmentation(source, DRAFT, label_map(), [])


def test_a_multi_frame_ct_is_segmented_like_the_plain_series():
    from tests.case.scans import enhanced

    order = np.random.default_rng(3).permutation(26)
    whole = enhanced(ct(), order)
    shared = whole.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence[0].SliceThickness = 2
    made = segmentation(source_of([whole], "ct"), DRAFT, label_map(), SEGMENTS)
    for k, segment in enumerate(SEGMENTS):
        assert points_in(made, k + 1) == points_of(label_map(), segment.label)


def test_a_real_series_and_its_labels_agree_in_the_patient(shared_data, tmp_path):
    """20 slices of a Siemens scanner (JPEG 2000); the file was stripped of its UIDs, which are given back here."""
    folder, labels = shared_data / "planning/patient_d_dicom", shared_data / "planning/patient_d_dicom_labels.nii.gz"
    with pytest.raises(DicomError, match="UID"):
        read_source(folder)
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    for k, d in enumerate(slices):
        d.PatientID, d.StudyInstanceUID, d.SeriesInstanceUID = "D", "2.25.1", "2.25.2"
        d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, f"2.25.3{k}"
    image = read_volume(labels).image
    found = [int(v) for v in np.unique(sitk.GetArrayViewFromImage(image)) if v]
    segments = [Segment(f"structure_{v}", v) for v in found]
    made = segmentation(source_of(slices, "ct"), DRAFT, image, segments)
    write_object(made, tmp_path / "seg.dcm")
    assert errors_of(tmp_path / "seg.dcm") == []
    largest = max(range(len(found)), key=lambda k: int((sitk.GetArrayViewFromImage(image) == found[k]).sum()))
    assert points_in(made, largest + 1) == points_of(image, found[largest])
