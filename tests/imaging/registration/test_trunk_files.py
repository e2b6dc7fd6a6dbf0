"""`fluoronav register` on one frame of a trunk: metal that the CT does not have, and a picture that is mirrored."""

import json

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.imaging.registration.register import RegistrationRequest, register_files
from fluoronav.imaging.xray.anatomy_mask import find_anatomy_of_log
from fluoronav.imaging.xray.file import read_xray
from fluoronav.lab.bench.subjects import errors_mm, starts
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.lab.simulation.spinal_hardware import beam_behind, screws_and_rods
from fluoronav.paths import shipped

LEVELS = tuple(f"vertebrae_T{n}" for n in range(6, 11))


@pytest.fixture(scope="module")
def shot(case, camera):
    """Counts with ten screws and two rods, the truth, and where the metal is."""
    anatomy, truth = Anatomy(case, camera.scaled(0.5)), Scenario().poses(case)[30]
    chain, bars = ImageChain(FlatPanel(), camera.rows, camera.cols, 3), screws_and_rods(case, LEVELS)
    bare, behind = (beam_behind(anatomy, camera, truth, some) for some in ((), bars))
    metal = cv2.resize((behind < 0.5 * bare).astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA)
    return chain.counts(behind, 1), truth, metal > 0.5


@pytest.fixture(scope="module")
def folder(case, tmp_path_factory):
    """The CT and its label map on a grid of 2 mm, which is faster."""
    folder, spacing = tmp_path_factory.mktemp("ct"), 2.0
    for name, volume, by in (("ct", case.ct, sitk.sitkLinear), ("labels", case.labels, sitk.sitkNearestNeighbor)):
        image = volume.image
        size = [int(n * s / spacing) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
        grid = (size, sitk.Transform(), by, image.GetOrigin(), [spacing] * 3, image.GetDirection())
        sitk.WriteImage(sitk.Resample(image, *grid), str(folder / f"{name}.nrrd"))
    return folder


def request(case, folder, tmp_path, counts, truth):
    cv2.imwrite(str(tmp_path / "frame.png"), counts)
    start = next(starts(truth, case.target_ct, 3, 3, 3, 1))
    (tmp_path / "init.json").write_text(json.dumps({"T_camera_ct": start.tolist()}))
    return RegistrationRequest(
        folder / "ct.nrrd",
        [tmp_path / "frame.png"],
        [shipped("calibration/demo-carm.yaml")],
        tmp_path / "init.json",
        labels=folder / "labels.nrrd",
        bones=case.rigid_labels,
        polarity="counts",
    )


def test_metal_is_left_out_of_what_a_file_is_compared_by(tmp_path, shot):
    counts, _, metal = shot
    cv2.imwrite(str(tmp_path / "frame.png"), counts)
    frame = read_xray(tmp_path / "frame.png", with_camera=True, polarity="counts")
    assert frame.anatomy_mask[metal & frame.field_mask].mean() < 0.003  # a cell at a rod's border, of 726
    assert frame.anatomy_mask.sum() > 0.75 * frame.field_mask.sum()


def test_a_logarithmic_image_is_freed_of_metal_whatever_its_gain(shot):
    counts, _, metal = shot
    small = cv2.resize(counts.astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:128, :128] / 63.5 - 1
    field = (np.hypot(x, y) < 0.93) & (np.abs(x) < 0.85)
    log = -np.log(np.maximum(small - 1300, 20)).astype(np.float32)
    masks = [find_anatomy_of_log(gain * log, field) for gain in (1.0, 500.0)]
    np.testing.assert_array_equal(*masks)
    assert masks[0][metal & field].mean() < 0.1 and masks[0].sum() > 0.7 * field.sum()


def test_a_spine_with_ten_screws_and_two_rods_is_registered_from_a_file(case, folder, tmp_path, shot):
    counts, truth, _ = shot
    result = register_files(request(case, folder, tmp_path, counts, truth))
    assert result["accepted"], result["reason"]
    found = np.array(result["views"][0]["T_camera_ct"])
    assert errors_mm(found, truth, case.target_ct[None])[1] < 1.0


def test_a_mirrored_picture_is_refused_and_told_as_such(case, folder, tmp_path, shot):
    counts, truth, _ = shot
    result = register_files(request(case, folder, tmp_path, np.ascontiguousarray(counts[:, ::-1]), truth))
    assert not result["accepted"] and "mirrored" in result["reason"]
