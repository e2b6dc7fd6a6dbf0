"""The atlas engine: its parts on made images, the whole on the embedded spine, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.case.volume import Volume, read_volume
from fluoronav.paths import embedded_case
from fluoronav.planning.anatomy import vertebra
from fluoronav.planning.segmentation.atlas import shipped
from fluoronav.planning.segmentation.atlas.bone import bone_in
from fluoronav.planning.segmentation.atlas.confidence import Signs, confidence_of
from fluoronav.planning.segmentation.atlas.engine import AtlasEngine, AtlasOptions
from fluoronav.planning.segmentation.atlas.local import affine, similarity, template_from
from fluoronav.planning.segmentation.atlas.scan import scan_of
from fluoronav.planning.segmentation.atlas.shipped import WHOLE, load_atlas
from fluoronav.planning.segmentation.engine import SegmentationError


def quiet(text, done):
    pass


def volume(voxels, spacing=(2.0, 2.0, 2.0), origin=(0.0, 0.0, 0.0), direction=None):
    image = sitk.GetImageFromArray(np.asarray(voxels, np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    return Volume(image, Path("ct.nii.gz"))


def trunk(shape=(40, 60, 60)):
    hu = np.full(shape, -1000)
    hu[:, 10:50, 10:50] = 40
    hu[:, 12:16, 12:48] = -100
    return hu


@pytest.fixture(scope="module")
def embedded():
    """The thoracic spine that is shipped as a case: T6 to T10 of the atlas's own patient, at full resolution."""
    return read_volume(embedded_case().parent / "ct.nrrd")


@pytest.fixture(scope="module")
def found(embedded):
    return AtlasEngine().segment(embedded, quiet)


def dice(found, level):
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(embedded_case().parent / "labels.nrrd"))) == vertebra(level).label
    mask = sitk.GetArrayFromImage(found.labels) == vertebra(level).label
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_the_shipped_atlas_is_small_and_what_its_hashes_say():
    files = [shipped.HERE / line.split()[1] for line in (shipped.HERE / "SHA256SUMS").read_text().splitlines()]
    assert sum(f.stat().st_size for f in files) < 8e6
    assert "CC BY 3.0" in (shipped.HERE / "ORIGIN.md").read_text()


def test_a_changed_atlas_is_refused(tmp_path, monkeypatch):
    for name in ("ct.nrrd", "labels.nrrd", "SHA256SUMS"):
        (tmp_path / name).write_bytes((shipped.HERE / name).read_bytes())
    with (tmp_path / "labels.nrrd").open("ab") as file:
        file.write(b"x")
    monkeypatch.setattr(shipped, "HERE", tmp_path)
    with pytest.raises(SegmentationError, match="not the file that was shipped"):
        load_atlas.__wrapped__()


def test_bodies_lie_in_front_of_their_arches_in_the_order_of_the_spine():
    atlas = load_atlas()
    heights = [atlas.body_centres[level][2] for level in WHOLE]
    assert heights == sorted(heights, reverse=True)
    assert all(atlas.body_centres[level][1] < atlas.centres[level][1] for level in WHOLE)


def test_the_spine_is_found_and_numbered_without_a_hint(found):
    assert {s.name for s in found.structures} >= {f"vertebrae_T{n}" for n in (7, 8, 9)}
    assert min(dice(found, f"T{n}") for n in (7, 8, 9)) > 0.85


def test_vertebrae_are_drafts_with_a_confidence_and_their_volume(found, embedded):
    for s in found.structures:
        assert s.state == "draft" and s.engine == "atlas" and 0 < s.confidence <= 1
        count = int((sitk.GetArrayViewFromImage(found.labels) == s.label).sum())
        assert s.voxels == count
        assert s.volume_cm3 == pytest.approx(count * np.prod(embedded.image.GetSpacing()) / 1000, abs=1e-3)


def test_organs_and_vessels_are_less_sure_than_vertebrae(found):
    soft = [s.confidence for s in found.structures if not s.name.startswith(("vertebrae", "rib"))]
    assert soft and max(soft) <= 0.5


def test_labels_lie_on_the_grid_of_the_ct(found, embedded):
    assert found.labels.GetSize() == embedded.image.GetSize()
    assert found.labels.GetOrigin() == embedded.image.GetOrigin()
    assert found.labels.GetDirection() == embedded.image.GetDirection()


def test_a_level_that_ribs_do_not_settle_is_a_question_with_the_point_and_the_answer(found):
    (question,) = found.questions
    assert question.key == "level" and len(question.choices) == 3
    assert question.choices[0] in question.text and "LPS mm" in question.text
    assert "the next one along the spine with" in question.evidence and len(question.points_ct) == 1


def test_a_click_settles_the_level(embedded):
    body = tuple(load_atlas().body_centres["T8"])
    clicked = AtlasEngine(AtlasOptions(at=("T8", body), surroundings=False)).segment(embedded, quiet)
    assert clicked.questions == () and dice(clicked, "T8") > 0.85
    assert {s.name.partition("_")[0] for s in clicked.structures} == {"vertebrae"}


def test_an_answer_renumbers_the_whole_spine(embedded):
    options = AtlasOptions(level_of=("T8", "T7"), surroundings=False)
    renamed = AtlasEngine(options).segment(embedded, quiet)
    assert renamed.questions == ()
    mask = sitk.GetArrayFromImage(renamed.labels) == vertebra("T7").label
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(embedded_case().parent / "labels.nrrd")))
    assert np.count_nonzero(mask & (truth == vertebra("T8").label)) > 0.6 * np.count_nonzero(mask)


def test_a_click_outside_the_scan_says_where_the_scan_reaches(embedded):
    with pytest.raises(SegmentationError, match="lies outside the CT, which reaches from"):
        AtlasEngine(AtlasOptions(at=("T8", (0.0, 0.0, 5000.0)))).segment(embedded, quiet)


@pytest.mark.parametrize("level", ["C1", "L4", "S1", "X"])
def test_a_level_that_the_atlas_cannot_draw_is_refused(level):
    with pytest.raises(SegmentationError, match="T1 to L3"):
        AtlasEngine(AtlasOptions(at=(level, (0.0, 0.0, 0.0))))


def test_an_mr_is_refused():
    rng = np.random.default_rng(1)
    with pytest.raises(SegmentationError, match="MR and PET look like this"):
        scan_of(volume(rng.integers(0, 900, (40, 60, 60))))


def test_a_scan_without_a_spine_is_refused_and_a_click_is_offered():
    with pytest.raises(SegmentationError, match="--at T12=x,y,z"):
        AtlasEngine().segment(volume(trunk((60, 80, 80)), (4.0, 4.0, 4.0)), quiet)


def test_thick_slices_are_refused():
    with pytest.raises(SegmentationError, match="10 mm apart"):
        scan_of(volume(trunk(), (2.0, 2.0, 10.0)))


def test_a_scan_of_a_few_slices_is_refused():
    with pytest.raises(SegmentationError, match="reaches 8 mm along the patient"):
        scan_of(volume(trunk((4, 60, 60))))


def test_a_scan_that_is_mostly_metal_is_refused():
    hu = trunk()
    hu[:, 20:48, 20:48] = 3000
    with pytest.raises(SegmentationError, match="as metal is"):
        scan_of(volume(hu))


def test_metal_is_said_and_lowers_the_confidence_beside_it():
    hu = trunk()
    hu[10:14, 20:30, 20:24] = 3000
    scan = scan_of(volume(hu))
    assert scan.metal_cm3 == pytest.approx(1.28) and any("metal" in w for w in scan.warnings)
    plain = confidence_of(Signs(0.8, 0.6, 1.0, False, 0.0), level_sure=True)
    beside = confidence_of(Signs(0.8, 0.6, 1.0, False, 1.28), level_sure=True)
    assert plain >= 0.85 and beside < 0.6


def test_a_vertebra_that_begins_outside_the_scan_stays_there_without_a_warning_of_itk(capfd):
    atlas = load_atlas()
    template = template_from(atlas.ct, atlas.mask("T8"), atlas.centres["T8"])
    scan = scan_of(volume(trunk())).working
    away = sitk.AffineTransform(3)
    away.SetTranslation((0.0, 0.0, 5000.0))
    for method in (affine, similarity):
        assert method(template, scan, away).GetTranslation() == away.GetTranslation()
    assert "WARNING" not in capfd.readouterr().err


def test_an_oblique_scan_is_laid_along_the_patient():
    c, s = np.cos(0.3), np.sin(0.3)
    scan = scan_of(volume(trunk(), direction=(1, 0, 0, 0, c, -s, 0, s, c)))
    assert np.allclose(scan.working.GetDirection(), np.eye(3).ravel())


def test_a_bone_is_found_by_its_density_where_the_registration_is_off():
    hu = np.full((40, 40, 40), 40.0)
    hu += np.random.default_rng(2).normal(0, 20, hu.shape)
    hu[10:30, 10:30, 10:30] += 400
    image = volume(hu, (1.0, 1.0, 1.0)).image
    soft = np.zeros((20, 20, 20), np.float32)
    soft[5:15, 5:15, 6:16] = 1  # 2 mm off
    registered = sitk.GetImageFromArray(soft)
    registered.SetSpacing((2.0, 2.0, 2.0))
    registered.SetOrigin((0.5, 0.5, 0.5))

    def overlap(correlation):
        block = bone_in(image, registered, correlation)
        mask = np.zeros(hu.shape, bool)
        mask[tuple(slice(a, a + n) for a, n in zip(block.low[::-1], block.odds.shape, strict=True))] = block.odds > 0
        truth = np.zeros(hu.shape, bool)
        truth[10:30, 10:30, 10:30] = True
        return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())

    # The gate: a registration that fits as well as it can is not asked again.
    assert overlap(0.7) > 0.97 > 0.93 > overlap(0.99)


def test_vertebrae_of_another_patient_reach_what_the_page_says(shared_data):
    ct = read_volume(shared_data / "planning/patient_b/ct.nii.gz")
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(shared_data / "planning/patient_b/labels.nii.gz")))
    found = AtlasEngine(AtlasOptions(surroundings=False)).segment(ct, quiet)
    mask = sitk.GetArrayFromImage(found.labels)
    overlaps = {
        level: 2
        * np.count_nonzero((mask == label) & (truth == label))
        / np.count_nonzero([mask == label, truth == label])
        for level in ("T12", "L1", "L2", "L3")
        for label in [vertebra(level).label]
    }
    assert np.mean(list(overlaps.values())) > 0.85, overlaps
    assert min(overlaps.values()) > 0.8, overlaps
    assert {s.name for s in found.structures} == {f"vertebrae_{level}" for level in overlaps}
