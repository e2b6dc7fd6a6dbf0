"""The parts of `bench planning` that grade screws and compare views."""

import shutil

import pytest

from fluoronav.lab.bench.planning import screws, views
from fluoronav.lab.bench.planning.segmentation import confidence_against_dice


def test_screws_are_measured_on_masks_by_hand_and_it_is_said_how_many(shared_data, tmp_path):
    (tmp_path / "planning").mkdir()
    shutil.copytree(shared_data / "planning" / "l3", tmp_path / "planning" / "l3")
    result = screws.measure(tmp_path, lambda _: None)
    assert result["masks_by_hand"] == 1
    assert result["network"] is None
    assert result["hand"]["grades"].keys() <= {"A", "B"}
    assert [r["level"] for r in result["levels_refused"]] == ["L2", "L4"]
    text = screws.table(result)
    assert "1 masks drawn by hand" in text
    assert "drawn by hand: 2 pedicles, 2 take a screw" in text


def test_a_folder_without_masks_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="has none of the masks"):
        screws.measure(tmp_path, lambda _: None)


def test_views_where_nothing_was_found_do_not_count():
    found = {"view": (0, 0), "lost": 0, **views._row([[[0.1], [0.2]]], [[0.3]]), **views._stated_ratios([])}
    lost = {"view": (90, 0), "lost": 12, **views._row([], []), **views._stated_ratios([])}
    assert found["predicted_mm"] == pytest.approx(0.196)
    assert found["measured_mm"] == pytest.approx(0.588)
    assert found["held"] == 1.0  # 0.3 mm in a bound of 0.39
    together = views._together([found, lost])
    assert together["ratio"] == pytest.approx(1 / 3)
    text = views.table({"views": [found, lost], "pairs": [], "all": together, "all_pairs": together})
    assert "lost" in text


def test_confidence_is_held_against_the_overlap_for_vertebrae_and_the_rest_apart():
    pairs = [("vertebrae_T12", 0.7, 0.8), ("vertebrae_L1", 0.8, 0.9), ("vertebrae_L2", 0.9, 0.85), ("liver", 0.4, 0.6)]
    subjects = {"one": {"structures": [{"name": n, "confidence": c, "dice": d} for n, c, d in pairs]}}
    assert confidence_against_dice(subjects, vertebrae=True) == {
        "structures": 3, "rank_correlation": 0.5, "least": -0.05, "most": 0.1
    }  # fmt: skip
    assert confidence_against_dice(subjects, vertebrae=False) is None
