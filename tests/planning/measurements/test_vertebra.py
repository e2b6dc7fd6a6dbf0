"""Vertebrae of known size and tilt, and what cannot be measured."""

from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.planning.measurements.built import one, spine

from fluoronav.lab.simulation.bones import SyntheticVertebra, turned
from fluoronav.planning.anatomy import labels_of_scheme
from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.mask import masks_of, spread
from fluoronav.planning.measurements.measure import MeasureError, Wanted, measure
from fluoronav.planning.measurements.pedicle import pedicle_of
from fluoronav.planning.measurements.spine import Endplates, angle_between, extreme_cobb
from fluoronav.planning.measurements.vertebra import body_of, body_voxels, canal_mm2, start_frame

UP = np.array([0.0, 0.0, 1.0])
LEVEL = SyntheticVertebra(height_front=27.0, height_back=27.0)
NAMES = {v: s.name for v, s in labels_of_scheme("totalsegmentator").items()}


def body(mask):
    return body_of(mask, mask.level(), start_frame(mask, UP))


def endplates(mask, level):
    found = body(mask)
    return Endplates(level, found.top, found.bottom, np.zeros(4))


@cache
def straight():
    return endplates(one(spine([29], vertebra=LEVEL)), "L4")


def values(results):
    return {(m.structure, m.name): m.value for m in results.items}


def test_heights_are_those_of_the_body_and_wedged_in_front():
    found = body(one(spine([29], vertebra=SyntheticVertebra(height_front=20.0, height_back=28.0))))
    assert found.heights["anterior"] == pytest.approx(21.0, abs=0.8)
    assert found.heights["middle"] == pytest.approx(24.0, abs=0.8)
    assert found.heights["posterior"] == pytest.approx(27.0, abs=0.8)


def test_the_bodys_voxels_are_without_arch_and_processes():
    mask = one(spine([29], vertebra=LEVEL))
    volume = np.count_nonzero(body_voxels(mask, body(mask))) * mask.voxel_mm3 / 1000
    ellipse, box = np.pi / 4 * 44 * 34, 2 * 0.32 * 44 * 17
    assert 0.027 * ellipse * 0.95 < volume < 0.027 * (ellipse + box)


@settings(max_examples=5)
@given(st.floats(-25, 25), st.floats(-15, 15), st.floats(-12, 12))
@example(1.5, 0.0, 0.0)  # an endplate that rises by one voxel over its whole width reads as level
def test_a_coronal_angle_is_the_one_a_vertebra_was_turned_by(coronal, sagittal, axial):
    rotation = turned(1, coronal) @ turned(0, sagittal)
    upper = one(spine([29], [turned(2, axial) if not coronal and not sagittal else rotation], vertebra=LEVEL))
    found = angle_between(endplates(upper, "L3"), straight(), 0)
    normal = rotation @ UP
    assert found.degrees == pytest.approx(abs(np.degrees(np.arctan2(normal[0], normal[2]))), abs=1.5)


@pytest.mark.parametrize("degrees", [-20, 5, 30])
def test_a_sagittal_angle_is_positive_where_the_spine_bends_forward(degrees):
    # Turned about x (to the left) by a positive angle, the back goes up: the upper vertebra tips forward.
    upper, lower = one(spine([29], [turned(0, degrees)], vertebra=LEVEL)), one(spine([29], vertebra=LEVEL))
    found = angle_between(endplates(upper, "T5"), endplates(lower, "T6"), 1)
    assert found.degrees == pytest.approx(degrees, abs=1.0)


def test_the_largest_angle_is_found_between_the_levels_that_make_it():
    image = spine([31, 30, 29], [turned(1, -8), turned(1, 9), np.eye(3)], vertebra=LEVEL, apart=46)
    masks = masks_of(image, [(31, "vertebrae_L1"), (30, "vertebrae_L2"), (29, "vertebrae_L3")])
    found = extreme_cobb({n[-2:]: endplates(m, n[-2:]) for n, m in masks.items()})
    assert (found.upper, found.lower) == ("L1", "L2")
    assert found.degrees == pytest.approx(17, abs=1.0)


@pytest.mark.parametrize("degrees", [-14, 7, 20])
def test_a_vertebra_drawn_by_hand_and_turned_has_turned_endplates(shared_data, degrees):
    image = sitk.ReadImage(str(shared_data / "planning/masks/sub-verse010_seg-vert_msk.nii.gz"))
    before = masks_of(image, [(22, "vertebrae_L3")])["vertebrae_L3"]
    middle = before.points_ct().mean(0)
    turn = sitk.AffineTransform(3)
    turn.SetMatrix(turned(1, degrees).T.ravel().tolist())
    turn.SetCenter(middle.tolist())
    after = masks_of(sitk.Resample(image, turn, sitk.sitkNearestNeighbor), [(22, "vertebrae_L3")])["vertebrae_L3"]
    a, b = body(before), body(after)
    for one_plane, other in ((a.top, b.top), (a.bottom, b.bottom)):
        expected = turned(1, degrees) @ one_plane.normal
        assert np.degrees(np.arccos(min(expected @ other.normal, 1.0))) < 1.5


@pytest.mark.parametrize(("width", "height"), [(6.0, 12.0), (9.0, 15.0)])
def test_pedicles_have_their_width_and_height_and_side(width, height):
    image = spine([29], spacing=(0.8, 0.8, 0.8), vertebra=SyntheticVertebra(pedicle_width=width, pedicle_height=height))
    mask = one(image)
    for side, sign in (("left", 1), ("right", -1)):
        found = pedicle_of(mask, mask.level(), body(mask), side)
        assert found.width_mm == pytest.approx(width, abs=0.6)
        assert found.height_mm == pytest.approx(height, abs=1.0)
        assert np.sign(found.centre_ct[0]) == sign


def test_sub_regions_drawn_by_hand_agree_with_body_and_pedicles(shared_data):
    folder = shared_data / "planning/l3"
    regions = sitk.ReadImage(str(folder / "sub-ct_seg-subreg_label-22_msk.nii.gz"))
    vertebra = sitk.ReadImage(str(folder / "sub-ct_seg-vert_label-22_msk.nii.gz"))
    mask = masks_of(vertebra, [(22, "vertebrae_L3")])["vertebrae_L3"]
    found = body(mask)
    drawn = sitk.GetArrayFromImage(regions) * (sitk.GetArrayFromImage(vertebra) == 22)
    ours = sitk.GetArrayFromImage(vertebra) * 0
    first = np.rint(np.array(vertebra.TransformPhysicalPointToIndex(mask.T_ct_index[:3, 3].tolist()))).astype(int)
    at = np.argwhere(body_voxels(mask, found)) + first[::-1]
    ours[tuple(at.T)] = 1
    theirs = np.isin(drawn, (49, 50))  # border and core of the body
    dice = 2 * np.count_nonzero(theirs & (ours > 0)) / (theirs.sum() + np.count_nonzero(ours))
    assert dice > 0.93
    for side in ("left", "right"):
        # The pedicles lie in what was drawn as the arch, or on its border to the body.
        centre = pedicle_of(mask, mask.level(), found, side).centre_ct
        assert drawn[vertebra.TransformPhysicalPointToIndex(centre.tolist())[::-1]] in (41, 49, 50)


def test_the_stated_deviation_covers_the_error():
    rng = np.random.default_rng(3)
    off = []
    for _ in range(6):
        turn = turned(1, rng.uniform(-15, 15)) @ turned(0, rng.uniform(-15, 15))
        mask = one(spine([29], [turn], vertebra=LEVEL))
        found = body(mask)
        sd = spread(mask, lambda field, mask=mask, found=found: body_of(mask, field, found.frame, 1).numbers())
        truth = (turn @ UP)[:2] / (turn @ UP)[2]
        expected = np.degrees(np.arctan(np.tile(truth, 2)))
        off += list((found.numbers()[3:] - expected) / sd[3:])
    assert np.mean(np.abs(off) < 2) >= 0.85


def test_an_open_ring_is_a_flag_and_a_closed_one_none():
    flagged = [
        measure(spine([29], vertebra=SyntheticVertebra(open_ring=is_open)), {29: "vertebrae_L3"}).flags
        for is_open in (True, False)
    ]
    assert [[f.what for f in flags if f.what == "open-ring"] for flags in flagged] == [["open-ring"], []]
    assert canal_mm2(one(spine([29])), body(one(spine([29]))).frame) > 200


def test_a_partial_vertebra_is_refused_with_the_side_that_is_missing():
    whole = spine([29])
    for cut, side in ((whole[:, :, :48], "head"), (whole[:, :, 46:], "feet")):
        results = measure(cut, {29: "vertebrae_L3"})
        reasons = {r.name: r.reason for r in results.refused}
        assert f"cut off towards the {side}" in reasons["heights"]
        assert not [m for m in results.items if m.name.startswith("height")]
        assert [f.text for f in results.flags if f.what == "truncated"]


def test_a_label_that_ends_within_the_volume_is_a_partial_vertebra_too():
    voxels = sitk.GetArrayFromImage(spine([29]))
    voxels[48:] = 0
    cut = sitk.GetImageFromArray(voxels)
    cut.CopyInformation(spine([29]))
    reasons = [r.reason for r in measure(cut, {29: "vertebrae_L3"}).refused]
    assert any("cut off towards the head" in r for r in reasons)


def test_the_order_of_the_voxels_changes_nothing():
    image = spine([29])
    turned_grid = sitk.DICOMOrient(image, "ASR")
    first, second = (values(measure(i, {29: "vertebrae_L3"})) for i in (image, turned_grid))
    for key in (
        ("vertebrae_L3", "height_anterior"),
        ("vertebrae_L3", "pedicle_left_width"),
        ("vertebrae_L3", "volume"),
    ):
        assert first[key] == pytest.approx(second[key], abs=0.15)


def test_a_vertebra_turned_back_to_front_is_refused():
    results = measure(spine([29], [turned(2, 180)]), {29: "vertebrae_L3"})
    assert any("its arch lies in front of its body" in r.reason for r in results.refused)


@pytest.mark.parametrize("level", ["T13", "L6"])
def test_a_level_that_most_people_do_not_have_is_a_flag(level):
    results = measure(spine([201 if level == "T13" else 202]), NAMES)
    assert [f.structure for f in results.flags if f.what == "transitional"] == [f"vertebrae_{level}"]


def test_a_level_left_out_and_a_wrong_order_are_flags():
    left_out = measure(spine([32, 30]), NAMES).flags
    assert any(f.what == "count" and "no L1" in f.text for f in left_out)
    wrong = measure(spine([30, 32]), NAMES).flags
    assert any(f.what == "order" for f in wrong)


def test_a_label_in_two_pieces_is_a_flag_and_its_largest_is_measured():
    image = spine([29])
    voxels = sitk.GetArrayFromImage(image)
    voxels[2:12, 5:20, 5:20] = 29
    two = sitk.GetImageFromArray(voxels)
    two.CopyInformation(image)
    results = measure(two, {29: "vertebrae_L3"})
    assert [f.structure for f in results.flags if f.what == "pieces"] == ["vertebrae_L3"]
    assert values(results)["vertebrae_L3", "height_middle"] == pytest.approx(27.5, abs=0.8)


def test_an_empty_label_map_is_refused():
    with pytest.raises(MeasureError, match="none of the named structures"):
        measure(sitk.Image([20, 20, 20], sitk.sitkUInt8), NAMES)


def test_chosen_levels_that_are_not_there_are_refused_by_name():
    results = measure(spine([29]), NAMES, wanted=Wanted(cobb=[("T5", "T12"), ("L3", "L3")]))
    reasons = {r.structure: r.reason for r in results.refused if r.name == "cobb_coronal"}
    assert "T5: its endplates were not measured" in reasons["T5-T12"]
    assert "name the upper level first" in reasons["L3-L3"]


def test_pedicles_of_coarse_voxels_and_of_the_neck_are_refused():
    coarse = measure(spine([29], spacing=(3.0, 3.0, 3.0)), NAMES)
    assert any("too coarse for a pedicle" in r.reason for r in coarse.refused)
    neck = measure(spine([45]), NAMES)
    assert any("vertebral artery" in r.reason for r in neck.refused)


def test_a_lump_that_is_no_vertebra_is_refused():
    lump = sitk.GetImageFromArray(np.pad(np.full((3, 3, 3), 29, np.uint8), 10))
    with pytest.raises(Refused, match="nowhere thicker"):
        start_frame(one(lump), UP)
