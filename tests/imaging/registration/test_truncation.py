"""A CT that is a part of the patient."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.case import Volume
from fluoronav.geometry import exp_so3
from fluoronav.imaging.registration.agreement import Agreement
from fluoronav.imaging.registration.model import SETTINGS as SETTINGS_OF_MODEL
from fluoronav.imaging.registration.model import RegistrationModel, bone_grid, is_part_of_patient, tissue_grid
from fluoronav.imaging.registration.truncation import SETTINGS, chords_mm, continued, is_cut


def cube(case, side_mm, height_mm=None):
    """The case with a CT of a small reconstructed field around its target."""
    image, half = case.ct.image, np.array([side_mm, side_mm, height_mm or side_mm]) / 2
    ends = [image.TransformPhysicalPointToContinuousIndex((case.target_ct + s * half).tolist()) for s in (-1, 1)]
    low, high = np.sort(ends, axis=0)
    first = np.maximum(np.ceil(low), 0).astype(int)
    last = np.minimum(np.floor(high), np.array(image.GetSize()) - 1).astype(int)
    small = sitk.RegionOfInterest(image, (last - first + 1).tolist(), first.tolist())
    return replace(case, ct=Volume(small, case.ct.path), surroundings=None)


def test_a_narrow_field_is_a_part_of_the_patient_unless_its_surroundings_are_given(case):
    assert case.surroundings is not None
    assert not is_part_of_patient(case) and is_part_of_patient(replace(case, surroundings=None))


def test_the_chord_of_a_ray_is_its_length_in_the_box():
    box = np.array([[-10.0, -20, 90], [30, 20, 110]])
    directions = np.array([[0, 0.1, 5.0], [0, 0, 0]], np.float32)
    lengths = chords_mm(directions, np.eye(4), box)
    np.testing.assert_allclose(lengths, [20, 20 * np.hypot(1, 0.1), 0], rtol=1e-5)
    turned = np.eye(4)
    turned[:3, :3] = exp_so3([0, np.pi, 0])
    assert (chords_mm(directions, turned, box) == 0).all()


def test_a_ct_is_continued_smoothly_and_is_itself_where_it_is_known():
    rng = np.random.default_rng(3)
    known = (0.02 + 0.002 * rng.random((20, 24, 22))).astype(np.float32)
    wide, n = continued(known, 3.0)
    assert n == round(SETTINGS.width_mm / 3)
    np.testing.assert_allclose(wide[n:-n, n:-n, n:-n], known, atol=1e-7)
    assert wide[0].max() < 0.002 and wide.shape == tuple(size + 2 * n for size in known.shape)
    along = wide[n + 10, n + 12, : n + 1]
    assert np.abs(np.diff(along)).max() < 0.0035


def test_a_cube_in_a_trunk_is_cut_also_between_lungs_and_a_trunk_is_not(case):
    """Regression: between lungs a cube was taken for the whole patient, and right poses agreed with 0.46."""
    between_lungs = cube(case, 140)
    solid = replace(between_lungs, ct=Volume(sitk.Maximum(between_lungs.ct.image, 0), case.ct.path))
    for cut in (solid, between_lungs):
        part = RegistrationModel.of_case(cut).tissue.grid.known_ct
        np.testing.assert_allclose(np.ptp(part, axis=0), np.ptp(cut.ct.corners_ct(), axis=0), atol=1.5)
    for whole in (case, replace(case, ct=case.surroundings, surroundings=None)):
        assert RegistrationModel.of_case(whole).tissue.grid.known_ct is None
    # Where the model ends before the CT, the patient is not cut.
    assert tissue_grid(case.surroundings, case.target_ct, 60.0, 2.0, 8.0).known_ct is None
    assert not is_cut(np.full((8, 8, 8), -1000, np.float32))


def test_little_bone_counts_only_where_it_agrees_very_well(case, camera):
    """Regression: two thoracic vertebrae were believed 35 and 111 mm beside their place, one in view with 0.05."""
    T = case.prior.T_camera_ct()
    for height_mm, little in ((140, False), (55, True)):
        model = RegistrationModel.of_case(cube(case, 140, height_mm))
        agreement = Agreement(model.tissue, model.bones, camera, 128, T)
        picture, field = agreement._rendered(T)[0], np.ones((128, 128), bool)
        assert agreement.is_of_little is little
        assert (agreement(T, picture, field) > 0.9) is not little
        # Half of the bones behind a blade count for less than all of them, however well they agree.
        narrow = field.copy()
        narrow[:, 64:] = False
        assert agreement(T, picture, narrow) < 0.9 * agreement(T, picture, field)


def test_bone_that_the_ct_cuts_off_fades_in_and_whole_bone_does_not(case):
    """Regression: patches lay on the end that a CT makes of a skull, where the patient's bone goes on."""
    whole = bone_grid(case.ct, None, (), 2.0)
    cut = replace(case, ct=Volume(_above(case.ct.image, case.ct.corners_ct().min(0)[2] + 10), case.ct.path))
    part = bone_grid(cut.ct, None, (), 2.0)
    z = part.origin_ct[2] + 2.0 * np.arange(part.voxels.shape[0]) - cut.ct.corners_ct().min(0)[2]
    assert part.voxels[z < SETTINGS_OF_MODEL.fade_mm].max() == 0
    uncut = z > SETTINGS_OF_MODEL.fade_mm + SETTINGS_OF_MODEL.cut_bone_mm
    z_whole = whole.origin_ct[2] + 2.0 * np.arange(whole.voxels.shape[0]) - cut.ct.corners_ct().min(0)[2]
    same = z_whole > z[uncut][0] - 1
    # The grids are not aligned: one plane of twenty may lie on the other side.
    assert part.voxels[uncut].sum() == pytest.approx(whole.voxels[same].sum(), rel=0.12)


def _above(image, z_ct):
    """The part of an image above a height."""
    first = int(np.ceil(image.TransformPhysicalPointToContinuousIndex((*image.GetOrigin()[:2], z_ct))[2]))
    return image[:, :, max(first, 0) :]


def test_a_small_bone_keeps_the_end_that_the_ct_makes(case):
    """Regression: nearly all of a radius of 80 mm faded, and it was found nowhere."""
    low = case.target_ct[2] - 4
    cut = Volume(_above(case.ct.image, low), case.ct.path)
    part = bone_grid(cut, case.labels, case.rigid_labels, 2.0)
    assert part.voxels[part.origin_ct[2] + 2.0 * np.arange(len(part.voxels)) < low + 6].max() > 0
