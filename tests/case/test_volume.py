"""Volumes from DICOM, NRRD and NIfTI: the right place in the patient, or a refusal with the reason."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from fluoronav.case import CaseError, read_volume

SPACING = (0.8, 0.7, 2.0)  # x, y, z


def write_series(
    folder, hu, *, uid=None, origin=(-10.0, -20.0, -30.0), tilt_mm=0.0, skip=(), orientation=None, shuffle=True
):
    """An axial series; ``tilt_mm`` moves each slice sideways as a tilted gantry does."""
    uid = uid or generate_uid()
    order = [k for k in range(len(hu)) if k not in skip]
    if shuffle:
        order = order[::2] + order[1::2]
    for n, k in enumerate(order):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        ds.Modality, ds.SeriesInstanceUID, ds.SeriesDescription = "CT", uid, "test"
        ds.Rows, ds.Columns = hu.shape[1:]
        ds.PixelSpacing = [SPACING[1], SPACING[0]]
        ds.ImageOrientationPatient = orientation or [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [origin[0], origin[1] + k * tilt_mm, origin[2] + k * SPACING[2]]
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 0, 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.RescaleSlope, ds.RescaleIntercept = 2, -1024
        ds.PixelData = ((hu[k] + 1024) // 2).astype("<u2").tobytes()
        pydicom.dcmwrite(folder / f"{n:03}.dcm", ds, enforce_file_format=True)
    return uid


@pytest.fixture
def hu():
    return (2 * np.random.default_rng(1).integers(-500, 500, (6, 5, 4))).astype(int)


def test_a_dicom_series_is_sorted_rescaled_and_placed(tmp_path, hu):
    write_series(tmp_path, hu)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.voxels, hu)
    assert volume.image.GetSpacing() == pytest.approx(SPACING)
    assert volume.image.GetOrigin() == pytest.approx((-10, -20, -30))


def test_the_same_scan_as_dicom_nrrd_and_nifti_lies_at_the_same_place(tmp_path, hu):
    (tmp_path / "dicom").mkdir()
    write_series(tmp_path / "dicom", hu)
    image = read_volume(tmp_path / "dicom").image
    for name in ("a.nrrd", "a.nii.gz"):
        sitk.WriteImage(image, str(tmp_path / name))
        other = read_volume(tmp_path / name)
        np.testing.assert_allclose(other.corners_ct(), read_volume(tmp_path / "dicom").corners_ct(), atol=1e-3)
        point = image.TransformIndexToPhysicalPoint((3, 1, 4))
        assert other.image[other.image.TransformPhysicalPointToIndex(point)] == hu[4, 1, 3]


def test_handedness_comes_from_the_file_a_flipped_axis_does_not_mirror_the_patient(tmp_path, hu):
    image = sitk.GetImageFromArray(hu[:, ::-1].astype(np.int16))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((0, 4, 0))
    sitk.WriteImage(image, str(tmp_path / "flipped.nrrd"))
    volume = read_volume(tmp_path / "flipped.nrrd")
    np.testing.assert_allclose(volume.resampled(np.zeros(3), (4, 5, 6), 1.0, -1000.0), hu, atol=1e-3)


def test_two_series_in_one_folder_are_listed_and_one_can_be_named(tmp_path, hu):
    first = write_series(tmp_path, hu)
    (tmp_path / "x").mkdir()
    second = write_series(tmp_path / "x", hu + 10)
    for path in (tmp_path / "x").iterdir():
        path.rename(tmp_path / f"second-{path.name}")
    with pytest.raises(CaseError, match="2 series") as caught:
        read_volume(tmp_path)
    assert first in str(caught.value) and second in str(caught.value) and "ct_series" in str(caught.value)
    np.testing.assert_array_equal(read_volume(tmp_path, second).voxels, hu + 10)
    with pytest.raises(CaseError, match="has no series 1.2.3"):
        read_volume(tmp_path, "1.2.3")


def test_gantry_tilt_is_refused_with_its_angle(tmp_path, hu):
    write_series(tmp_path, hu, tilt_mm=2 * np.tan(np.deg2rad(12)))
    with pytest.raises(CaseError, match=r"gantry was tilted by 12.0 degrees"):
        read_volume(tmp_path)


def test_a_missing_slice_is_refused_with_its_place(tmp_path, hu):
    write_series(tmp_path, hu, skip=(3,))
    with pytest.raises(CaseError, match=r"slices are missing.*4.00 mm after .*-26.*1 missing in all"):
        read_volume(tmp_path)


def test_a_slice_that_is_there_twice_is_set_aside_and_another_one_at_its_place_is_refused(tmp_path, hu):
    uid = write_series(tmp_path, hu)
    again = tmp_path / "again"
    for values in (hu, hu + 10):
        again.mkdir()
        write_series(again, values, uid=uid, skip=(0, 1, 3, 4, 5))
        next(again.iterdir()).rename(tmp_path / "again.dcm")
        again.rmdir()
        if values is hu:
            volume = read_volume(tmp_path)
            np.testing.assert_array_equal(volume.voxels, hu)
            assert any("1 slices are there twice" in w and "again.dcm" in w for w in volume.warnings)
    with pytest.raises(CaseError, match="two slices at the same position .* have different pixels: .*again.dcm"):
        read_volume(tmp_path)


def test_slices_of_another_orientation_are_refused(tmp_path, hu):
    uid = write_series(tmp_path, hu)
    (tmp_path / "x").mkdir()
    write_series(tmp_path / "x", hu, uid=uid, orientation=[0, 1, 0, 0, 0, 1], skip=(1, 2, 3, 4, 5))
    next((tmp_path / "x").iterdir()).rename(tmp_path / "localiser.dcm")
    with pytest.raises(CaseError, match="different planes"):
        read_volume(tmp_path)


def test_a_folder_without_dicom_and_a_file_that_is_none_are_named(tmp_path):
    with pytest.raises(CaseError, match="no DICOM slices"):
        read_volume(tmp_path)
    (tmp_path / "notes.nrrd").write_text("not a volume")
    with pytest.raises(CaseError, match="notes.nrrd: cannot be read"):
        read_volume(tmp_path / "notes.nrrd")
    with pytest.raises(CaseError, match="no such file"):
        read_volume(tmp_path / "nothing.nrrd")


def write_array(path, array):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def test_nan_and_a_single_slice_are_refused(tmp_path):
    bad = np.zeros((4, 4, 4), np.float32)
    bad[1, 2, 3] = np.nan
    with pytest.raises(CaseError, match="1 voxels are not finite"):
        read_volume(write_array(tmp_path / "nan.nrrd", bad))
    with pytest.raises(CaseError, match="4 x 4 x 1 voxels"):
        read_volume(write_array(tmp_path / "slice.nrrd", np.zeros((1, 4, 4), np.int16)))
