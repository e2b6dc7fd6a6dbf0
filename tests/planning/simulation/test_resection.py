import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.planning.meshes.of_mask import mask_of, surface_of_mask
from fluoronav.planning.meshes.solid import MeshError, solid, surface_of
from fluoronav.planning.simulation.resection import resect

AXES = np.eye(3)


def scene(spacing=(0.8, 0.8, 2.0), direction=AXES):
    """A round lesion (1) of 6 mm radius in a bar of bone (2), a vessel (3) farther away."""
    size = np.array([75, 60, 30])
    image = sitk.Image(size.tolist(), sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetDirection(np.asarray(direction, float).ravel().tolist())
    z, y, x = np.indices(size[::-1])
    x, y, z = x * spacing[0], y * spacing[1], z * spacing[2]
    voxels = np.zeros(size[::-1], np.uint8)
    voxels[(abs(y - 24) < 8) & (abs(z - 30) < 8)] = 2
    voxels[(abs(y - 36) < 2) & (abs(z - 30) < 2)] = 3
    voxels[(x - 30) ** 2 + (y - 24) ** 2 + (z - 30) ** 2 < 36] = 1
    made = sitk.GetImageFromArray(voxels)
    made.CopyInformation(image)
    return made


def bone_of(image):
    return {"bone": solid(surface_of_mask(mask_of(image, 2, "bone"), "bone").mesh)}


OTHERS = {"bone": 2, "vessel": 3}


def test_the_margin_is_exact_for_uneven_spacing():
    image = scene()
    done = resect(image, ("lesion", 1), 5.0, OTHERS, bone_of(image))
    low, high = np.array(done.body.bounding_box()[:3]), np.array(done.body.bounding_box()[3:])
    # Half a voxel along z is 1 mm.
    assert np.allclose((high - low) / 2, 11.0, atol=1.0)
    assert done.body.volume() == pytest.approx(4 / 3 * np.pi * 11**3, rel=0.08)
    assert surface_of(done.body).is_watertight


def test_what_is_cut_through_is_said_with_its_volume():
    image = scene()
    near = resect(image, ("lesion", 1), 3.0, OTHERS, bone_of(image))
    wide = resect(image, ("lesion", 1), 5.5, OTHERS, bone_of(image))
    assert "vessel" not in near.through_mm3 and "vessel" in wide.through_mm3
    assert wide.through_mm3["bone"] > near.through_mm3["bone"] > 0


def test_a_bone_that_is_cut_through_is_left_in_two_pieces():
    image = scene()
    done = resect(image, ("lesion", 1), 6.5, OTHERS, bone_of(image))
    assert len(done.left["bone"]) == 2
    whole, left = bone_of(image)["bone"].volume(), sum(p.volume() for p in done.left["bone"])
    assert whole - left == pytest.approx(done.through_mm3["bone"], rel=0.08)


def test_an_oblique_left_handed_grid_changes_nothing():
    turned = np.array(sitk.Euler3DTransform((0, 0, 0), 0.4, 0.2, 0.1).GetMatrix()).reshape(3, 3) @ np.diag([1, 1, -1])
    plain, other = scene(), scene(direction=turned)
    a = resect(plain, ("lesion", 1), 5.0, OTHERS, bone_of(plain))
    b = resect(other, ("lesion", 1), 5.0, OTHERS, bone_of(other))
    assert a.body.volume() == pytest.approx(b.body.volume(), rel=1e-3)
    assert a.through_mm3 == pytest.approx(b.through_mm3, rel=0.01)
    centre = np.mean(np.reshape(b.body.bounding_box(), (2, 3)), axis=0)
    assert np.allclose(centre, turned @ [30, 24, 30], atol=1.5)


def test_a_margin_beyond_the_scan_is_closed():
    image = scene()
    done = resect(image, ("lesion", 1), 16.0, OTHERS, bone_of(image))
    assert surface_of(done.body).is_watertight and done.left["bone"]


def test_an_empty_lesion_is_refused():
    with pytest.raises(MeshError, match="label 9 has no voxel"):
        resect(scene(), ("lesion", 9), 5.0, OTHERS, {})
