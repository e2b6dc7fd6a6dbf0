"""Pixels in every transfer syntax that hospitals store: equal to the original, which other programs compressed."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, HTJ2KLossless, JPEGLosslessSV1

from fluoronav.case import read_volume
from fluoronav.dicom.decoding import COMPRESSED, PLUGIN, frame_pixels, syntax_of
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.reading import read_dataset
from fluoronav.imaging.xray.file import XrayFileError, read_xray

GOLDEN = Path(__file__).parent / "golden"
LOSSLESS = (
    "big-endian", "deflated", "implicit", "jpeg-2000", "jpeg-lossless-sv1", "jpeg-lossless-sv6", "jpeg-ls", "rle",
)  # fmt: skip
# Name, and by how much a value may differ of 4095.
LOSSY = (("jpeg-ls-near", 2), ("jpeg-2000-lossy", 8))


def pixels(name):
    path = GOLDEN / f"{name}.dcm"
    dataset = read_dataset(path)
    return np.array([frame_pixels(dataset, k, path) for k in range(2)])


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_syntax_gives_the_original_pixels_of_every_frame(name):
    found, plain = pixels(name), pixels("plain")
    assert found.dtype.kind == "u" and not np.array_equal(plain[0], plain[1])
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize(("name", "most"), LOSSY)
def test_a_lossy_syntax_stays_within_its_loss(name, most):
    difference = np.abs(pixels(name).astype(int) - pixels("plain"))
    assert 0 < difference.max() <= most


def test_jpeg_extended_of_12_bits_is_decoded_as_dcmtk_does():
    np.testing.assert_array_equal(pixels("jpeg-extended"), pixels("jpeg-extended-by-dcmtk"))


def test_every_compressed_syntax_is_decoded_by_the_plugin_whatever_else_is_installed():
    from pydicom.pixels.decoders.base import get_decoder

    for syntax in COMPRESSED:
        assert PLUGIN in get_decoder(syntax).available_plugins
    dataset = pydicom.dcmread(GOLDEN / "jpeg-lossless-sv1.dcm")
    np.testing.assert_array_equal(dataset.pixel_array, pixels("plain"))


def test_an_x_ray_image_is_the_same_in_jpeg_lossless_and_one_with_loss_says_so(tmp_path):
    plain = read_xray(GOLDEN / "plain.dcm", with_camera=True, frame=2)
    for name in LOSSLESS:
        frame = read_xray(GOLDEN / f"{name}.dcm", with_camera=True, frame=2)
        np.testing.assert_array_equal(frame.attenuation, plain.attenuation)
        assert not any("loss" in note for note in frame.notes)
    assert any("with loss" in n for n in read_xray(GOLDEN / "jpeg-ls-near.dcm", with_camera=True).notes)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, MPEG2MPML, "1.2.3.4"])
def test_a_syntax_that_is_not_read_is_refused_by_name_with_those_that_are(tmp_path, syntax):
    dataset = pydicom.dcmread(GOLDEN / "jpeg-lossless-sv1.dcm")
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "a.dcm", implicit_vr=False, little_endian=True)
    with pytest.raises(XrayFileError, match=rf"a.dcm: its transfer syntax .*{syntax} .*JPEG Lossless, JPEG-LS"):
        read_xray(tmp_path / "a.dcm", with_camera=True)


def test_damaged_compressed_pixels_are_refused_by_file_and_nothing_is_printed(tmp_path, caplog):
    dataset = pydicom.dcmread(GOLDEN / "jpeg-lossless-sv1.dcm")
    assert syntax_of(dataset) == JPEGLosslessSV1
    dataset.PixelData = encapsulate([b"\xff\xd8 nonsense"] * 2)
    with pytest.raises(DicomError, match=r"a.dcm: pixel data cannot be decoded \("):
        frame_pixels(dataset, 0, Path("a.dcm"))
    assert not caplog.records


def test_a_header_without_pixels_says_so(tmp_path):
    dataset = pydicom.dcmread(GOLDEN / "plain.dcm")
    del dataset.PixelData
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(XrayFileError, match=r"a.dcm: has no pixel data \(7fe0,0010\): it is a header alone"):
        read_xray(tmp_path / "a.dcm", with_camera=True)


def test_a_real_ct_in_jpeg_2000_without_any_uid_is_read_with_a_note(shared_data, tmp_path):
    folder = shared_data / "planning" / "patient_d_dicom"
    if not folder.is_dir():
        pytest.skip("no planning data")
    volume = read_volume(shutil.copytree(folder, tmp_path / "ct"))
    assert volume.image.GetSize() == (512, 512, 20)
    assert np.percentile(volume.voxels, 5) < -900  # air
    (note,) = volume.warnings
    assert "no PatientID (0010,0020) and no SeriesInstanceUID (0020,000e)" in note
