"""Revisions of a segmentation: immutable, whole, and never lost to another editor."""

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.planning.plan.hashes import volume_hash
from fluoronav.planning.revisions import Conflict, RevisionError, Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure

T8 = SegmentedStructure("vertebrae_T8", 36, "atlas", 0.8, 8, 0.064)


def label_map(value=36):
    voxels = np.zeros((6, 5, 4), np.uint8)
    voxels[1:3, 1:3, 1:3] = value
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetOrigin((-1.5, 3.25, 100.0))
    return image


def added(revisions, parent, labels=None):
    return revisions.add(labels or label_map(), (T8,), author="atlas", ct_hash="0" * 64, parent=parent)


def test_a_revision_is_read_as_it_was_added(tmp_path):
    revisions = Revisions(tmp_path)
    first = added(revisions, 0)
    assert revisions.newest() == first
    assert volume_hash(sitk.ReadImage(str(revisions.labels_path(1)))) == first.labels_hash


def test_of_two_who_edit_the_same_revision_the_second_is_told_and_the_first_keeps_its_work(tmp_path):
    revisions = Revisions(tmp_path)
    added(revisions, 0)
    second = added(revisions, 1)
    with pytest.raises(Conflict) as caught:
        added(revisions, 1, label_map(35))
    assert caught.value.newest == 2
    assert revisions.newest() == second


def test_what_a_crash_left_half_written_is_no_revision_and_hinders_none(tmp_path):
    revisions = Revisions(tmp_path)
    added(revisions, 0)
    part = revisions.folder / ".0002"
    part.mkdir()
    (part / "labels.nii.gz").write_bytes(b"half")
    assert revisions.numbers() == [1]
    assert added(revisions, 1).number == 2


def test_a_damaged_record_is_named(tmp_path):
    revisions = Revisions(tmp_path)
    added(revisions, 0)
    (revisions.folder / "0001" / "revision.json").write_text("{")
    with pytest.raises(RevisionError, match=r"revision\.json"):
        revisions.newest()


@pytest.mark.parametrize("change", ["voxel", "origin", "type"])
def test_the_hash_of_a_volume_knows_its_voxels_its_place_and_its_type(change):
    image = label_map()
    if change == "voxel":
        image[0, 0, 0] = 1
    elif change == "origin":
        image.SetOrigin((-1.5, 3.25, 100.01))
    else:
        image = sitk.Cast(image, sitk.sitkUInt16)
    assert volume_hash(image) != volume_hash(label_map())


def test_a_branch_leaves_the_main_line_as_it_is(tmp_path):
    revisions = Revisions(tmp_path)
    added(revisions, 0)
    second = added(revisions, 1)
    branch = revisions.add(label_map(35), (T8,), author="ben", ct_hash="0" * 64, parent=1, branch="ben")
    assert branch.number == 3 and revisions.newest() == second and revisions.newest("ben") == branch
    with pytest.raises(Conflict):
        revisions.add(label_map(34), (T8,), author="ben", ct_hash="0" * 64, parent=1, branch="ben")
    assert added(revisions, 2).number == 4


def test_what_is_said_anew_of_a_revision_has_its_voxels_and_leaves_it_as_it_was(tmp_path):
    from dataclasses import replace

    revisions = Revisions(tmp_path)
    first = added(revisions, 0)
    approved = replace(T8, state="approved", judged_by="ada", judged_at="2026-01-01T12:00:00+00:00")
    second = revisions.restated(1, (approved,), "ada", "approved")
    assert (second.number, second.parent, second.labels_hash) == (2, 1, first.labels_hash)
    assert revisions.read(1) == first and revisions.read(2).structures == (approved,)
    assert revisions.labels_path(2).read_bytes() == revisions.labels_path(1).read_bytes()
