"""Which way up a picture is: attenuation is higher where there is bone, whatever the file has."""

import json
import os

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fluoronav.cli import main
from fluoronav.geometry import Camera, inverse, moved_about
from fluoronav.imaging.registration.register import RegistrationRequest, register_files
from fluoronav.imaging.xray.file import XrayFileError, read_xray
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.sequence import Anatomy

from .test_file import xa

SIDE = 256
FOCAL = 1000 / 300 * SIDE
CR, DX, RF = {"Modality": "CR"}, {"Modality": "DX"}, {"Modality": "RF"}
NOT_SAID = {"PixelIntensityRelationship": None, "PixelIntensityRelationshipSign": None}


@pytest.fixture(scope="module")
def camera():
    return Camera(SIDE, SIDE, np.array([[FOCAL, 0, (SIDE - 1) / 2], [0, FOCAL, (SIDE - 1) / 2], [0, 0, 1]]))


@pytest.fixture(scope="module")
def exposed(case, camera):
    """Counts of a chest, 16 bit, and the pose."""
    T = np.eye(4)
    T[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    T[:3, 3] = np.array([0, 0, 620]) - T[:3, :3] @ np.array(case.prior.isocentre_ct)
    anatomy = Anatomy(case, camera)
    beam = anatomy.transmission(*anatomy.paths(T))
    # As many photons as sixteen pixels of a 1024 image have.
    return ImageChain(FlatPanel(photons=16 * 80), SIDE, SIDE, 3).counts(beam, 1).astype(np.float64), T


@pytest.fixture(scope="module")
def linear(exposed):
    return exposed[0] / 65535


@pytest.fixture(scope="module")
def logarithm(linear):
    return np.log1p(linear * 4000) / np.log1p(4000)


def agreement(attenuation, linear):
    """Correlation with the true attenuation, well inside the field."""
    middle = slice(SIDE // 4, 3 * SIDE // 4)
    true = -np.log(np.maximum(linear, 1e-3))
    return np.corrcoef(attenuation[middle, middle].ravel(), true[middle, middle].ravel())[0, 1]


@pytest.mark.parametrize(
    ("rises", "change", "source"),
    [
        ("linear", {}, "header"),
        ("-linear", {"PixelIntensityRelationshipSign": -1}, "header"),
        ("linear", {"PixelIntensityRelationshipSign": None}, "header"),
        ("-linear", {"PixelIntensityRelationshipSign": None, "PhotometricInterpretation": "MONOCHROME1"}, "header"),
        ("log", {"PixelIntensityRelationship": "LOG"}, "header"),
        ("-log", CR | NOT_SAID, "assumed"),
        ("log", CR | NOT_SAID | {"PhotometricInterpretation": "MONOCHROME1"}, "assumed"),
        ("log", CR | NOT_SAID | {"RescaleSlope": -10, "RescaleIntercept": 3000}, "assumed"),
        ("-log", CR | NOT_SAID | {"RescaleSlope": 2, "RescaleIntercept": -5}, "assumed"),
        ("-log", DX | {"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1}, "header"),
        (
            "log",
            DX
            | {"PixelIntensityRelationship": "LOG", "PhotometricInterpretation": "MONOCHROME1"}
            | {"PresentationLUTShape": "INVERSE"},
            "header",
        ),
        ("-log", DX | NOT_SAID | {"PresentationLUTShape": "IDENTITY"}, "assumed"),
        # Shown otherwise than is usual: the rim of the field tells.
        ("log", CR | NOT_SAID, "picture"),
    ],
)
def test_attenuation_is_higher_where_there_is_bone(tmp_path, linear, logarithm, rises, change, source):
    share = linear if rises.endswith("linear") else logarithm
    counts = np.rint(65535 * (1 - share if rises[0] == "-" else share))
    frame = read_xray(xa(tmp_path / "a.dcm", counts, **change), with_camera=True)
    assert agreement(frame.attenuation, linear) > 0.9
    assert frame.polarity == ("inverse" if rises[0] == "-" else "counts")
    assert frame.polarity_source == source
    assert bool(frame.notes) == (source != "header")


@pytest.mark.parametrize("word", ["DISP", "DRM", "OTHER"])
def test_values_changed_for_display_are_refused_unless_the_user_says_what_they_are(tmp_path, linear, logarithm, word):
    change = {"PixelIntensityRelationship": word, "PixelIntensityRelationshipSign": None}
    path = xa(tmp_path / "a.dcm", np.rint(65535 * logarithm), **change)
    with pytest.raises(XrayFileError, match=rf"\(0028,1040\) is {word}: .*--intensity log .* or --intensity linear"):
        read_xray(path, with_camera=True)
    frame = read_xray(path, with_camera=True, intensity="log")
    assert agreement(frame.attenuation, linear) > 0.9
    path = xa(tmp_path / "b.dcm", np.rint(65535 * linear), **change)
    assert agreement(read_xray(path, with_camera=True, intensity="linear").attenuation, linear) > 0.99
    upside_down = xa(tmp_path / "c.dcm", np.rint(65535 * (1 - logarithm)), **change)
    assert agreement(read_xray(upside_down, with_camera=True, intensity="log").attenuation, linear) > 0.9


def test_logarithms_are_attenuation_up_to_gain_and_offset(tmp_path, linear):
    attenuation = -np.log(np.maximum(linear, 1e-3))
    stored = np.rint(60000 * (1 - attenuation / attenuation.max()))
    frame = read_xray(xa(tmp_path / "a.dcm", stored, PixelIntensityRelationship="LOG"), with_camera=True)
    assert agreement(frame.attenuation, linear) > 0.9999


def test_a_frames_own_table_undoes_what_was_done_for_display(tmp_path, linear):
    """Enhanced XA: PixelIntensityRelationshipLUTSequence TO_LINEAR in the frame's functional groups."""
    curve = np.rint(65535 * np.linspace(0, 1, 4096) ** 0.45)  # what a maker's display curve may be
    stored = np.searchsorted(curve, 65535 * linear**0.45).clip(0, 4095)
    items = []
    for function, entries in (("TO_LOG", np.zeros(4096)), ("TO_LINEAR", 65535 * np.linspace(0, 1, 4096))):
        item = Dataset()
        item.LUTDescriptor, item.LUTFunction = [4096, 0, 16], function
        item.LUTData = np.rint(entries).astype("<u2").tobytes()
        item["LUTData"].VR = "OW"
        items.append(item)
    frames = []
    for own in (items[:1], items[1:]):
        groups = Dataset()
        groups.PixelIntensityRelationshipLUTSequence = Sequence(own)
        frames.append(groups)
    pixels = stored.astype("<u2").tobytes()
    change = {
        "PixelIntensityRelationship": "OTHER", "BitsStored": 12, "HighBit": 11, "NumberOfFrames": 2,
        "PixelData": pixels + pixels, "PerFrameFunctionalGroupsSequence": Sequence(frames),
    }  # fmt: skip
    path = xa(tmp_path / "a.dcm", stored, **change)
    assert agreement(read_xray(path, with_camera=True, frame=2).attenuation, linear) > 0.99
    with pytest.raises(XrayFileError, match="PixelIntensityRelationshipLUTSequence .* neither rises nor falls"):
        read_xray(path, with_camera=True, frame=1)


def test_a_table_that_makes_intensities_of_logarithms_is_used(tmp_path, linear, logarithm):
    table = Dataset()
    table.LUTDescriptor = [1024, 0, 16]
    table.ModalityLUTType = "US"
    entries = np.rint(np.expm1(np.arange(1024)[::-1] / 1023 * np.log1p(4000)) / 4000 * 65535).astype("<u2")
    table.LUTData = entries.tobytes()
    table["LUTData"].VR = "OW"
    change = {"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1, "BitsStored": 10, "HighBit": 9}
    path = xa(tmp_path / "a.dcm", np.rint((1 - logarithm) * 1023), ModalityLUTSequence=Sequence([table]), **change)
    frame = read_xray(path, with_camera=True)
    assert agreement(frame.attenuation, linear) > 0.9


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_plain_picture_with_white_bone_is_told_by_the_rim_of_its_field(tmp_path, linear, logarithm, dtype):
    full = 255 if dtype == np.uint8 else 4095  # 12 bits in 16
    for k, share in enumerate((1 - logarithm, logarithm)):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.rint(share * full).astype(dtype))
        frame = read_xray(tmp_path / f"{k}.png", with_camera=True)
        assert agreement(frame.attenuation, linear) > 0.85
        assert frame.polarity_source == "picture"
        assert "beyond the rim" in frame.notes[0]


def test_a_plain_picture_that_does_not_tell_is_taken_as_counts_and_that_is_said(tmp_path, linear, logarithm):
    middle = slice(SIDE // 4, 3 * SIDE // 4)
    cropped = np.rint((1 - logarithm[middle, middle]) * 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), cropped)
    frame = read_xray(tmp_path / "a.png", with_camera=True)
    assert (frame.polarity, frame.polarity_source) == ("counts", "assumed")
    assert "--polarity inverse" in frame.notes[0]
    turned = read_xray(tmp_path / "a.png", with_camera=True, polarity="inverse")
    assert np.corrcoef(turned.attenuation.ravel(), -np.log(linear[middle, middle]).ravel())[0, 1] > 0.85
    assert (turned.polarity, turned.polarity_source, turned.notes) == ("inverse", "option", ())


def test_a_black_filling_around_a_field_tells_nothing(tmp_path, logarithm):
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    shown = np.where(np.hypot(x, y) < 0.44 * SIDE, np.rint((1 - logarithm) * 255), 0).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), shown)
    frame = read_xray(tmp_path / "a.png", with_camera=True)
    assert frame.polarity_source == "assumed"


def test_a_header_that_the_picture_contradicts_is_doubted_in_words(tmp_path, exposed):
    path = xa(tmp_path / "a.dcm", 65535 - exposed[0])  # LIN, sign 1
    frame = read_xray(path, with_camera=True)
    assert frame.polarity == "counts"
    assert "looks inverted" in frame.notes[0] and "--polarity inverse" in frame.notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PixelIntensityRelationshipSign": 3}, r"PixelIntensityRelationshipSign \(0028,1041\) is 3; .* --polarity"),
        (CR | NOT_SAID | {"PresentationLUTShape": "INVERSE"}, "contradict each other: say --polarity"),
        ({"RescaleSlope": 0}, "RescaleSlope .* is 0"),
    ],
)
def test_a_header_that_contradicts_itself_is_not_guessed_at(tmp_path, exposed, change, message):
    path = xa(tmp_path / "a.dcm", exposed[0], **change)
    with pytest.raises(XrayFileError, match=message):
        read_xray(path, with_camera=True)


def test_a_picture_that_was_taken_upside_down_is_refused_as_inverted_and_found_when_that_is_said(
    case, camera, exposed, logarithm, tmp_path
):
    _, T = exposed
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    shown = np.where(np.hypot(x, y) < 0.44 * SIDE, np.rint((1 - logarithm) * 255), 0).astype(np.uint8)
    image, file, init = tmp_path / "bone-white.png", tmp_path / "carm.yaml", tmp_path / "init.json"
    cv2.imwrite(str(image), shown)
    file.write_text(f"rows: {SIDE}\ncols: {SIDE}\nK: {camera.K.tolist()}\n")
    start = inverse(moved_about(np.array(case.prior.isocentre_ct), [*np.deg2rad([1, -1.5, 1]), 2, -2, 3]) @ inverse(T))
    init.write_text(json.dumps({"T_camera_ct": start.tolist()}))
    volume = case.path.parent / "ct.nrrd"
    result = register_files(RegistrationRequest(volume, [image], cameras=[file], init=init))
    assert not result["accepted"]
    assert "looks inverted" in result["reason"] and "--polarity inverse" in result["reason"]
    assert any("taken as counts" in note for note in result["notes"])
    out = tmp_path / "pose.json"
    words = ["register", "--volume", volume, "--image", image, "--camera", file, "--init", init, "--json", out]
    assert main([str(w) for w in (*words, "--polarity", "inverse")]) == 0
    found = json.loads(out.read_text())
    assert found["accepted"] and found["views"][0]["polarity"] == "inverse"


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(XrayFileError, match=r"a\.png: is a named pipe"):
        read_xray(tmp_path / "a.png", with_camera=True)
