"""`fluoronav dicom show`: what is read, in words and as JSON, and never who the patient is."""

import json

import numpy as np
import pytest
from pydicom import dcmread
from tests.case.scans import patient, save, slices
from tests.imaging.xray.test_file import xa

from fluoronav.cli import main


@pytest.fixture
def counts(rng):
    return rng.integers(1000, 60000, (64, 96)).astype(np.uint16)


def identified(path):
    dataset = dcmread(path)
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Geheim^Name", "SECRET-ID", "19010203"
    dataset.StudyDescription = dataset.SeriesDescription = "SECRET description"
    dataset.save_as(path)
    return path


def shown(path, tmp_path, capsys, *options):
    assert main(["dicom", "show", str(path), "--json", str(tmp_path / "out.json"), *options]) == 0
    text, content = capsys.readouterr().out, (tmp_path / "out.json").read_text()
    for secret in ("Geheim", "SECRET", "19010203"):
        assert secret not in text + content
    return text, json.loads(content)


def test_an_x_ray_image_is_described_by_geometry_intensity_field_and_syntax(tmp_path, counts, capsys):
    change = {
        "FieldOfViewDimensions": [16, 24], "ImagerPixelSpacing": None, "ShutterShape": "CIRCULAR",
        "CenterOfCircularShutter": [32, 48], "RadiusOfCircularShutter": 20,
    }  # fmt: skip
    path = identified(xa(tmp_path / "a.dcm", counts, **change))
    text, found = shown(path, tmp_path, capsys)
    (image,) = found["images"]
    assert image["kind"] == "X-Ray Angiographic Image" and image["refused"] is None
    assert image["geometry"]["spacing_source"].startswith("FieldOfViewDimensions (0018,1149)")
    assert image["intensity"] == {
        "relationship": "LIN", "sign": 1, "response": "linear", "source": "PixelIntensityRelationship (0028,1040)",
    }  # fmt: skip
    assert image["field"]["seen"] == pytest.approx(np.pi * 20**2 / (64 * 96), abs=0.01)
    assert image["transfer_syntax"]["name"] == "Explicit VR Little Endian"
    assert "StudyInstanceUID" in image["missing"] and "PatientID" not in image["missing"]
    assert "source to detector 1000 mm" in text and "circular shutter, centre in row 32 and column 48" in text


def test_what_is_refused_says_why_and_the_rest_is_shown(tmp_path, counts, capsys):
    path = identified(xa(tmp_path / "a.dcm", counts, PixelIntensityRelationship="DISP", DistanceSourceToDetector=None))
    text, found = shown(path, tmp_path, capsys)
    (image,) = found["images"]
    assert "is DISP" in image["refused"] and "no DistanceSourceToDetector" in image["geometry"]["refused"]
    assert "REFUSED: " in text and "geometry: none" in text


def test_a_folder_is_described_by_its_series_and_images(tmp_path, counts, capsys):
    folder = save(slices(patient()), tmp_path / "ct")
    for path in folder.iterdir():
        identified(path)
    identified(xa(folder / "z.dcm", counts, SeriesInstanceUID="1.2.3"))
    text, found = shown(folder, tmp_path, capsys)
    (series,), (image,) = found["series"], found["images"]
    assert series["size"] == [52, 48, 26] and series["spacing_mm"] == [1, 1, 2] and series["refused"] is None
    assert series["directions"] == ["left", "back", "head"] and image["modality"] == "XA"
    assert "CT Image, 26 slices in 26 files" in text
    (folder / "0011.dcm").unlink()
    _, found = shown(folder, tmp_path, capsys)
    assert "slices are missing" in found["series"][0]["refused"]


def test_a_file_that_is_no_dicom_or_has_no_image_is_refused(tmp_path, counts, capsys):
    (tmp_path / "a.txt").write_text("text")
    assert main(["dicom", "show", str(tmp_path / "a.txt")]) == 1
    assert "a.txt: is no DICOM file" in capsys.readouterr().err
    dataset = dcmread(xa(tmp_path / "b.dcm", counts))
    del dataset.Rows
    dataset.save_as(tmp_path / "b.dcm")
    assert main(["dicom", "show", str(tmp_path / "b.dcm")]) == 1
    assert "without an image" in capsys.readouterr().err
    assert main(["dicom", "show", str(tmp_path / "none")]) == 1
    assert "no such file or folder" in capsys.readouterr().err
