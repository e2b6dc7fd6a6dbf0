"""What an engine found is laid over a case without touching what people made of it."""

import numpy as np
import pytest
import SimpleITK as sitk
from tests.workspace.conftest import CORD, LESION, T8, T9, image, make_case, phantom

from fluoronav.planning.revisions import Conflict, Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.workspace.cases import CaseStore
from fluoronav.workspace.errors import Unknown
from fluoronav.workspace.label_maps import first_revision
from fluoronav.workspace.scan import known_scan, unpacked_scan
from fluoronav.workspace.segmented import kept_segmentation, laid_over


def structure(name, label, engine="atlas", state="draft"):
    return SegmentedStructure(name, label, engine, 0.8, 1, 0.1, state)


def test_what_is_approved_or_drawn_stays_and_the_rest_is_replaced_by_name():
    below = np.array([[[T8, T8, T9, CORD, LESION, 0]]], np.uint16)
    old = (
        structure("vertebrae_T8", T8, state="approved"), structure("vertebrae_T9", T9),
        structure("spinal_cord", CORD), structure("lesion_1", LESION, "person"),
    )  # fmt: skip
    labels = np.array([[[T9, T8, 0, T9, T9, T8]]], np.uint16)
    new = (structure("vertebrae_T8", T8, "network"), structure("vertebrae_T9", T9, "network"))
    out, kept = laid_over(below, old, labels, new)
    assert out.tolist() == [[[T8, T8, 0, T9, LESION, 0]]]
    assert {s.name: s.engine for s in kept} == {
        "vertebrae_T8": "atlas", "vertebrae_T9": "network", "spinal_cord": "atlas", "lesion_1": "person",
    }  # fmt: skip


def test_a_new_structure_whose_label_is_taken_gets_another():
    below = np.array([[[LESION, 0]]], np.uint16)
    labels = np.array([[[0, LESION]]], np.uint16)
    out, kept = laid_over(
        below, (structure("lesion_1", LESION, "person"),), labels, (structure("implant_1", LESION, "threshold"),)
    )
    by = {s.name: s.label for s in kept}
    assert by["lesion_1"] == LESION != by["implant_1"] and out.tolist() == [[[LESION, by["implant_1"]]]]


def test_a_draft_is_taken_in_as_a_branch_or_as_the_newest_revision(tmp_path):
    folder = make_case(tmp_path, "A")
    scan = unpacked_scan(folder)
    first = first_revision(folder, scan)
    drafted = Revisions(tmp_path / "out")
    labels = phantom()[1]
    labels[labels == T9] = 0
    drafted.add(image(labels), (structure("vertebrae_T8", T8),), author="atlas 1", ct_hash="0" * 64, parent=0)
    branch = kept_segmentation(folder, tmp_path / "out", scan, "atlas", first.number, "atlas-1")
    assert Revisions(folder).newest() == first and branch.author == "atlas 1"
    newest = kept_segmentation(folder, tmp_path / "out", scan, "atlas", first.number, "")
    assert Revisions(folder).newest() == newest and not (folder / "labels.nii.gz").samefile(
        Revisions(folder).labels_path(newest.number)
    )
    with pytest.raises(Conflict):
        kept_segmentation(folder, tmp_path / "out", scan, "atlas", first.number, "")
    assert {s.name: s.engine for s in newest.structures} == {
        "vertebrae_T8": "atlas", "vertebrae_T9": "import", "spinal_cord": "import",
    }  # fmt: skip


def test_a_label_map_on_another_grid_is_resampled_into_the_first_revision(tmp_path):
    folder = make_case(tmp_path, "A")
    coarse = sitk.Shrink(image(phantom()[1]), [2, 2, 1])
    sitk.WriteImage(coarse, str(folder / "drawn.nrrd"))
    scan = unpacked_scan(folder)
    revision = first_revision(folder, scan)
    assert sitk.ReadImage(str(Revisions(folder).labels_path(1))).GetSize() == scan.size
    assert {s.name for s in revision.structures} == {"vertebrae_T8", "vertebrae_T9", "spinal_cord"}
    assert first_revision(folder, scan) is None


def test_a_scan_is_unpacked_once_and_again_when_it_has_changed(tmp_path):
    folder = make_case(tmp_path, "A", labels=False)
    assert known_scan(folder) is None
    scan = unpacked_scan(folder)
    assert known_scan(folder) == scan and (scan.hounsfield() == phantom()[0]).all()
    scan.path.write_bytes(b"half")  # as a full disk may leave it
    assert known_scan(folder) is None
    assert (unpacked_scan(folder).hounsfield() == phantom()[0]).all()


@pytest.mark.parametrize("name", ["", ".", "..", "../A", "A/../A", "A\x00", ".cache", "A" * 65])
def test_a_name_never_leads_out_of_the_store(tmp_path, name):
    make_case(tmp_path, "A", labels=False)
    with pytest.raises(Unknown):
        CaseStore(tmp_path).folder(name)


def test_processes_that_unpack_a_case_at_once_do_not_disturb_one_another(tmp_path):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    folder = make_case(tmp_path, "A", shape=(24, 120, 120))
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        scans = list(pool.map(unpacked_scan, [folder] * 6))
        assert scans == [known_scan(folder)] * 6
        revisions = list(pool.map(first_revision, [folder] * 6, scans))
    assert [r.number for r in revisions if r] == [1]
