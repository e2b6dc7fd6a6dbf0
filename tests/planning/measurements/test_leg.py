"""A leg of known angles, real femoral heads, and bones that are cut off."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from tests.planning.measurements.built import leg

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.femur import head_of, neck_of
from fluoronav.planning.measurements.mask import StructureMask, masks_of
from fluoronav.planning.measurements.measure import MeasureError, measure


@pytest.fixture(scope="module")
def whole_leg():
    made, hip, image, names = leg(version=15.0, mldfa=86.0, mpta=85.0, hka=176.0)
    return made, hip, image, names, measure(image, names)


@pytest.fixture(scope="module")
def hips(shared_data):
    image = sitk.ReadImage(str(shared_data / "planning/patient_b/labels.nii.gz"))
    return masks_of(image, [(75, "femur_left"), (76, "femur_right")])


def head(mask, side):
    return head_of(mask, mask.surface(mask.level()), side)


@pytest.mark.parametrize(
    ("name", "angle"), [("mldfa", "mldfa"), ("mpta", "mpta"), ("hka", "hka"), ("version", "version")]
)
def test_the_angles_of_a_leg_are_found_within_a_degree(whole_leg, name, angle):
    made, _, _, _, results = whole_leg
    found = next(m for m in results.items if m.name == name)
    assert found.value == pytest.approx(getattr(made, angle), abs=1.0)
    assert found.uncertainty is not None and 0 < found.uncertainty < 1.5
    assert len(found.points_ct) == 4


def test_the_head_and_the_axis_are_found_within_a_millimetre(whole_leg):
    made, hip, _, _, results = whole_leg
    found = {(m.structure, m.name): m for m in results.items}
    assert np.linalg.norm(np.array(found["femur_left", "head_radius"].points_ct[0]) - hip) < 0.5
    assert found["femur_left", "head_radius"].value == pytest.approx(made.head_radius, abs=0.5)
    assert found["femur_left", "mechanical_axis"].value == pytest.approx(made.femur, abs=4)


def test_a_femur_without_its_knee_has_a_head_but_no_axis_and_no_leg(whole_leg):
    _, hip, image, names, _ = whole_leg
    first = image.TransformPhysicalPointToIndex((hip - [0, 0, 300]).tolist())[2]
    results = measure(image[:, :, first:], names)
    found, refused = {m.name for m in results.items}, {(r.structure, r.name): r.reason for r in results.refused}
    assert "head_radius" in found
    assert not found & {"mldfa", "hka", "version", "mechanical_axis"}
    assert "cut off towards the feet" in refused["femur_left", "mechanical_axis"]


def test_a_tibia_alone_has_its_own_angle(whole_leg):
    _, _, image, names, _ = whole_leg
    results = measure(image, {v: n for v, n in names.items() if n.startswith("tibia")})
    assert [m.name for m in results.items if m.unit == "deg"] == ["mpta"]


def test_left_and_right_swapped_are_refused(shared_data):
    image = sitk.ReadImage(str(shared_data / "planning/patient_b/labels.nii.gz"))
    names = {75: "femur_right", 76: "femur_left", 77: "hip_right", 78: "hip_left"}
    with pytest.raises(MeasureError, match="mirrored"):
        measure(image, names)


def test_real_heads_are_alike_on_both_sides_though_one_is_of_metal(hips):
    # patient_b, 3 mm voxels; the left hip is a prosthesis.
    left, right = head(hips["femur_left"], "left"), head(hips["femur_right"], "right")
    assert abs(left.radius_mm - right.radius_mm) < 2
    assert 20 < right.radius_mm < 27


def test_a_real_head_stays_when_the_bone_is_eroded_or_thinned(hips):
    mask = hips["femur_right"]
    whole = head(mask, "right")
    eroded = StructureMask(mask.name, ndimage.binary_erosion(mask.inside), mask.T_ct_index, mask.at_edge)
    small = head(eroded, "right")
    assert np.linalg.norm(small.centre - whole.centre) < 1.0
    assert whole.radius_mm - small.radius_mm == pytest.approx(3.0, abs=1.0)
    boundary = mask.surface(mask.level())
    thin = type(boundary)(boundary.points[::3], boundary.normals[::3], boundary.voxel_mm[::3])
    assert np.linalg.norm(head_of(mask, thin, "right").centre - whole.centre) < 0.7


def test_a_neck_that_the_volume_ends_in_is_refused(hips):
    mask = hips["femur_right"]
    found = head(mask, "right")
    cut = mask.inside.copy()
    z = mask.points_ct()[:, 2].min() + 30
    floor = int((z - mask.T_ct_index[2, 3]) / mask.T_ct_index[2, 2])
    cut[:floor] = False
    with pytest.raises(Refused, match="ends within its neck"):
        neck_of(StructureMask(mask.name, cut, mask.T_ct_index), found)


def test_a_head_that_the_volume_cuts_is_refused(hips):
    mask = hips["femur_right"]
    top = np.flatnonzero(mask.inside.any((1, 2)))[-1]
    cut = mask.inside.copy()
    cut[top - 6 :] = False
    with pytest.raises(Refused, match="ends within its head"):
        head(StructureMask(mask.name, cut, mask.T_ct_index), "right")
