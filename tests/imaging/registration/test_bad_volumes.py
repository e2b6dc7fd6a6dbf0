"""Volumes and frames that a tired person would send: a clear error or no acceptance, never a confident wrong pose."""

import json

import cv2
import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.case import CaseError
from fluoronav.geometry import CameraError
from fluoronav.imaging.registration.register import RegisterError, RegistrationRequest, register_files


@pytest.fixture
def wrist(shared_data):
    return shared_data / "wrist"


@pytest.fixture
def radius(wrist):
    return sitk.ReadImage(str(wrist / "radius.nrrd"))


def truth(wrist, camera=1):
    return np.array(json.loads((wrist / "reference.json").read_text())["0158"][f"T_camera_ct_cam0{camera}"])


def register(wrist, tmp_path, volume, **change):
    if isinstance(volume, sitk.Image):
        sitk.WriteImage(volume, str(tmp_path / "v.nrrd"))
        volume = tmp_path / "v.nrrd"
    (tmp_path / "init.json").write_text(json.dumps({"T_camera_ct": truth(wrist).tolist()}))
    request = {
        "volume": volume,
        "images": [wrist / f"frame0158_cam{c}.tif" for c in (1, 2)],
        "cameras": [wrist / f"cam{c}.yaml" for c in (1, 2)],
        "init": tmp_path / "init.json",
    } | change
    return register_files(RegistrationRequest(**request))


def like(radius, voxels):
    out = sitk.GetImageFromArray(voxels)
    out.CopyInformation(radius)
    return out


def test_a_volume_without_anything_in_it_is_refused(wrist, radius, tmp_path):
    voxels = sitk.GetArrayFromImage(radius)
    with pytest.raises(CaseError, match="every voxel has the same value"):
        register(wrist, tmp_path, like(radius, np.zeros_like(voxels)))
    air = -1000 + np.random.default_rng(0).integers(0, 20, voxels.shape)
    with pytest.raises(RegisterError, match="no bone to register"):
        register(wrist, tmp_path, like(radius, air.astype(np.int16)))


def test_one_slice_and_nan_are_refused(wrist, radius, tmp_path):
    with pytest.raises(CaseError, match="needs at least 2"):
        register(wrist, tmp_path, radius[:, :, :1])
    voxels = sitk.GetArrayFromImage(radius).astype(np.float32)
    voxels[3, 4, 5] = np.nan
    with pytest.raises(CaseError, match="1 voxels are not finite"):
        register(wrist, tmp_path, like(radius, voxels))


def test_axes_that_are_not_perpendicular_are_refused(wrist, radius, tmp_path):
    sitk.WriteImage(radius, str(tmp_path / "v.nrrd"), useCompression=False)
    header, voxels = (tmp_path / "v.nrrd").read_bytes().split(b"\n\n", 1)
    lines = [b"space directions: (0.4,0,0) (0.2,0.4,0) (0,0,0.6)" if x.startswith(b"space directions") else x
             for x in header.split(b"\n")]  # fmt: skip
    (tmp_path / "v.nrrd").write_bytes(b"\n".join(lines) + b"\n\n" + voxels)
    with pytest.raises(CaseError, match="not perpendicular"):
        register(wrist, tmp_path, tmp_path / "v.nrrd")


def test_left_handed_axes_are_followed_not_ignored(wrist, radius, tmp_path):
    """The same bone, its first axis stored backwards: the file's geometry says so, and the pose is the same."""
    flipped = sitk.Flip(radius, [True, False, False])
    assert np.linalg.det(np.array(flipped.GetDirection()).reshape(3, 3)) < 0
    result = register(wrist, tmp_path, flipped)
    assert result["accepted"]
    np.testing.assert_allclose(result["views"][0]["T_camera_ct"], truth(wrist), atol=0.5)


def test_metal_in_the_volume_leads_to_no_wrong_pose(wrist, radius, tmp_path):
    voxels = sitk.GetArrayFromImage(radius)
    voxels[60:66, 40:46, 30:36] = 4095
    result = register(wrist, tmp_path, like(radius, voxels))
    off = np.linalg.norm(np.array(result["views"][0]["T_camera_ct"])[:3, 3] - truth(wrist)[:3, 3])
    assert off < 1.0 or not result["accepted"]


def test_a_singular_camera_is_refused(wrist, radius, tmp_path):
    text = (wrist / "cam1.yaml").read_text()
    (tmp_path / "cam.yaml").write_text(text.replace("6165.63245", "0"))
    with pytest.raises(CameraError, match=r"K\[1\]\[1\] is 0"):
        register(wrist, tmp_path, radius, cameras=[tmp_path / "cam.yaml", wrist / "cam2.yaml"])


def test_a_frame_that_shows_nothing_of_the_volume_is_not_accepted(wrist, radius, tmp_path, rng):
    noise = cv2.GaussianBlur(rng.integers(0, 255, (1760, 1760)).astype(np.uint8), (0, 0), 2)
    cv2.imwrite(str(tmp_path / "noise.tif"), noise)
    for auto in (False, True):
        result = register(
            wrist, tmp_path, radius, images=[tmp_path / "noise.tif"], cameras=[wrist / "cam1.yaml"], auto=auto
        )
        assert not result["accepted"] and result["reason"]


def test_a_prior_that_looks_past_the_volume_is_not_accepted(wrist, radius, tmp_path):
    away = truth(wrist)
    away[:3, 3] += [2000, 0, 0]
    (tmp_path / "away.json").write_text(json.dumps({"T_camera_ct": away.tolist()}))
    result = register(wrist, tmp_path, radius, init=tmp_path / "away.json")
    assert not result["accepted"] and result["reason"]


def test_a_wrist_is_found_from_a_prior_25_degrees_and_40_mm_wrong(wrist, radius, tmp_path):
    from fluoronav.geometry import inverse, moved_about

    twist = np.array([0.25, -0.25, 0.25, 23, -23, 23.0])
    centre = np.array([13.5, 17.0, 40.0])
    wrong = inverse(moved_about(centre, twist) @ inverse(truth(wrist)))
    (tmp_path / "prior.json").write_text(json.dumps({"T_camera_ct": wrong.tolist()}))
    result = register(wrist, tmp_path, radius, init=tmp_path / "prior.json", auto=True)
    assert result["accepted"]
    np.testing.assert_allclose(result["views"][0]["T_camera_ct"], truth(wrist), atol=0.5)
