"""Pictures that must not be believed: what they show, and that they go through the stream's search and acceptance."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from fluoronav.cli import main
from fluoronav.geometry import transform_points
from fluoronav.lab.bench.cohort import known_people, registering, wrong
from fluoronav.lab.bench.cohort.kept import kept_rows
from fluoronav.lab.bench.cohort.wrong import exposure_of, real_pictures, tasks
from fluoronav.lab.bench.cohort.wrong_bench import bench_wrong, wrong_result, wrong_table


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return known_people(tmp_path_factory.mktemp("no-data"))


@pytest.fixture
def small(monkeypatch):
    """Pixels eight times as wide as the C-arm's."""
    monkeypatch.setattr(wrong, "SETTINGS", replace(wrong.SETTINGS, image_scale=0.125))
    wrong._camera.cache_clear()
    yield
    wrong._camera.cache_clear()


def test_more_pictures_go_on_where_fewer_ended(people):
    first = [task for unit in tasks(0, 10, people, set()) for task in unit]
    more = [task for unit in tasks(0, 30, people, set(first)) for task in unit]
    assert [seed for _, seed in first + more] == list(range(30))
    assert [task for unit in tasks(10, 20, people, set()) for task in unit] == more
    # One person alone is never somebody else.
    assert "other-person" not in {kind for kind, _ in first + more}


def test_a_picture_beside_the_target_does_not_show_it(people, small):
    exposure, case, aimed_ct = exposure_of("aside", 3, people)
    target = case.person.target_ct(case.region)
    px = exposure.camera.project(transform_points(exposure.T_camera_ct, np.array([target, aimed_ct])))
    assert abs(px[0, 0] - exposure.camera.cols / 2) > 0.25 * exposure.camera.cols
    assert np.allclose(px[1], exposure.camera.K[:2, 2])
    assert exposure.scene.present


def test_a_mirrored_picture_and_nobody_have_no_right_pose(people, small):
    flipped, _, _ = exposure_of("mirrored", 0, people)
    nobody, _, _ = exposure_of("nobody", 4, people)
    assert not flipped.scene.present and not nobody.scene.present
    again, _, _ = exposure_of("mirrored", 0, people)
    np.testing.assert_array_equal(flipped.counts, again.counts)


def test_a_real_picture_is_shown_as_it_is_but_turned(people, small, tmp_path):
    picture = np.zeros((128, 128), np.uint8)
    picture[:40, :30] = 200
    (tmp_path / "knee").mkdir()
    cv2.imwrite(str(tmp_path / "knee" / "frame1.tif"), picture)
    real = real_pictures(tmp_path)
    exposure, _, _ = exposure_of("real", 5, people, real)
    assert (exposure.bits, exposure.scene.present) == (8, False)
    assert exposure.counts.shape == (exposure.camera.rows, exposure.camera.cols)
    assert np.bincount(exposure.counts.ravel(), minlength=256)[200] == pytest.approx(1200, abs=80)
    assert "real" in {kind for unit in tasks(0, 12, people, set(), True) for kind, _ in unit}
    assert "real" not in {kind for unit in tasks(0, 12, people, set()) for kind, _ in unit}


def test_a_mirrored_picture_goes_through_the_stages_and_the_next_search_begins_anew(
    people, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(registering, "SETTINGS", replace(registering.SETTINGS, searches=1))
    path = tmp_path / "wrong.json"
    found = bench_wrong(1, 0, people, None, 1, into=path)
    assert (found["all"]["n"], found["all"]["wrong_believed"]) == (1, 0)
    assert found["all"]["wrong_at_most"] == pytest.approx(0.95)
    assert registering._STAGES[-1][1]._finder._failed_searches == 0
    # The file has it: nothing is shown a second time.
    monkeypatch.setattr(wrong, "shown", None)
    assert (
        main(["bench", "cohort", "--wrong", "1", "--into", str(path), "--data", str(tmp_path), "--workers", "1"]) == 0
    )
    assert "`mirrored`: picture mirrored" in capsys.readouterr().out
    assert kept_rows(path, people, "wrong") == {("mirrored", 0): found["rows"][0]}


def test_what_was_believed_wrongly_is_counted_and_named():
    row = {
        "scene": "aside", "seed": 7, "present": True, "person": "lee", "region": "chest", "case_person": "lee",
        "case_region": "chest", "given": "no label map", "believed": True, "status": "tracking", "reason": "",
        "across_mm": 31.0, "score": 0.8, "bound_mm": 0.28,
    }  # fmt: skip
    rows = [row | {"wrong_believed": True}, *(row | {"wrong_believed": False, "seed": k} for k in range(8, 106))]
    result = wrong_result(rows, ["lee"])
    assert result["kinds"]["aside"]["wrong_believed"] == 1 and result["all"]["right_believed"] == 98
    assert result["cases"]["lee, chest, no label map"]["wrong_at_most"] == pytest.approx(0.047, abs=0.001)
    assert "aside, seed 7: lee chest with the case lee, chest, no label map" in wrong_table(result)
