"""Implants and lesions by a range of HU around a point."""

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.case.volume import Volume
from fluoronav.planning.segmentation.engine import SegmentationError
from fluoronav.planning.segmentation.threshold import Region, ThresholdEngine


@pytest.fixture
def ct(tmp_path):
    """Two screws of 4000 HU, joined by a thin artefact of 2600 HU, on an oblique grid."""
    values = np.full((24, 30, 40), 40, np.int16)
    values[6:18, 8:12, 5:10] = 4000
    values[6:18, 8:12, 28:34] = 4000
    values[12, 10, 10:28] = 2600
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.8, 0.8, 1.5))
    image.SetOrigin((-12.0, 40.0, -300.0))
    turn = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.1, 0.3)
    image.SetDirection(turn.GetMatrix())
    return Volume(image, tmp_path / "ct", units="hu")


def segmented(ct, **keys):
    return ThresholdEngine(Region("implant", 2500, **keys)).segment(ct, lambda *_: None)


def seed(ct):
    return ct.image.TransformIndexToPhysicalPoint((7, 9, 10))


def test_without_a_point_all_in_the_range_is_taken_and_its_volume_is_that_of_its_voxels(ct):
    (found,) = segmented(ct).structures
    assert found.voxels == 12 * 4 * 11 + 18
    assert found.volume_cm3 == pytest.approx(found.voxels * 0.8 * 0.8 * 1.5 / 1000)


def test_from_a_point_an_opening_cuts_the_bridge_to_the_other_screw(ct):
    assert segmented(ct, seed_ct=seed(ct)).structures[0].voxels == 12 * 4 * 11 + 18
    alone = segmented(ct, seed_ct=seed(ct), opening_mm=0.8)
    where = np.argwhere(sitk.GetArrayFromImage(alone.labels))
    assert where[:, 2].max() < 10 and len(where) > 100


def test_nothing_beyond_the_radius_is_taken_on_an_oblique_grid(ct):
    found = segmented(ct, seed_ct=seed(ct), radius_mm=4.0)
    for z, y, x in np.argwhere(sitk.GetArrayFromImage(found.labels)).tolist():
        assert np.linalg.norm(np.subtract(ct.image.TransformIndexToPhysicalPoint((x, y, z)), seed(ct))) <= 4.0 + 1e-6


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"seed_ct": (0.0, 0.0, 0.0)}, "outside the CT"),
        ({"radius_mm": 5.0}, "needs a point"),
        ({"high_hu": 2400}, "range is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused(ct, keys, said):
    with pytest.raises(SegmentationError, match=said):
        segmented(ct, **keys)


def test_a_point_beside_the_implant_is_named(ct):
    with pytest.raises(SegmentationError, match="itself is not in the range"):
        segmented(ct, seed_ct=ct.image.TransformIndexToPhysicalPoint((20, 20, 20)))


def test_an_implant_that_the_scan_cuts_off_is_warned_of(ct):
    values = sitk.GetArrayFromImage(ct.image)
    values[0, 10, 20] = 4000
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(ct.image)
    assert "border" in segmented(Volume(image, ct.path, units="hu")).warnings[0]
