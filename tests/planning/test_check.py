"""`plan check`: each thing that makes a plan unsafe or stale is said, and ends it with status 1."""

import json

import numpy as np
import pytest
import yaml

from fluoronav.cli import main
from fluoronav.paths import embedded_case
from fluoronav.planning.checks.clearance import neighbours_of, segment_distance_mm
from fluoronav.planning.plan.file import write_plan
from fluoronav.planning.plan.schema import Flag, Path, Plan, View
from fluoronav.planning.plan.source import read_source
from fluoronav.planning.screws.catalogue import read_catalogue
from fluoronav.planning.screws.proposals import propose, with_proposals
from fluoronav.planning.screws.spine import spine_of_names
from fluoronav.planning.segmentation.engine import SegmentedStructure


@pytest.fixture(scope="module")
def source():
    return read_source(embedded_case())


@pytest.fixture(scope="module")
def approved(source):
    """A plan of two screws that nothing is wrong with."""
    spine = spine_of_names(source.labels.image, {v: f"vertebrae_{level}" for level, v in source.vertebrae.items()})
    found = propose(spine, ["T8"], read_catalogue())
    empty = Plan(
        case=source.file.name, revision=1, ct_hash=source.ct_hash, labels_hash=source.labels_hash,
        made="2026-01-01T12:00:00+00:00",
    )  # fmt: skip
    plan, _ = with_proposals(empty, found.screws)
    return plan.model_copy(update={"state": "approved", "approved_by": "a surgeon"})


def said(plan, tmp_path, capsys):
    """Exit status and findings."""
    write_plan(plan, tmp_path / "plan.yaml")
    status = main(["plan", "check", str(tmp_path / "plan.yaml"), "--case", "embedded", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] == (status == 0)
    return status, {(f["severity"], f["item"]): f["text"] for f in result["findings"]}


def with_screw(plan, **changes):
    """The plan with its first screw changed."""
    screw = plan.items[0].model_copy(update=changes)
    return plan.model_copy(update={"items": (screw, *plan.items[1:])})


def test_an_approved_plan_that_fits_may_be_used(approved, tmp_path, capsys):
    status, found = said(approved, tmp_path, capsys)
    assert status == 0, found
    assert main(["plan", "check", str(tmp_path / "plan.yaml"), "--case", "embedded"]) == 0
    assert "the plan may be used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "key", "text"),
    [
        ({"ct_hash": "0" * 64}, ("stale", ""), "was made on another CT than ct.nrrd"),
        ({"labels_hash": "0" * 64}, ("stale", ""), "the label map has changed since"),
        ({"frame_of_reference": "1.2.3"}, ("stale", ""), "has another frame of reference"),
        ({"case": "somebody"}, ("stale", ""), "is a plan of the case 'somebody'"),
        ({"state": "reviewed"}, ("open", ""), "is reviewed, not approved"),
        ({"approved_by": ""}, ("open", ""), "says not by whom"),
    ],
)
def test_a_plan_of_something_else_or_without_approval_is_refused(approved, tmp_path, capsys, changes, key, text):
    status, found = said(approved.model_copy(update=changes), tmp_path, capsys)
    assert status == 1
    assert text in found[key]


def test_a_flag_that_nobody_acknowledged_is_open(approved, tmp_path, capsys):
    flag = Flag(id="count", origin="proposed", what="levels", text="13 ribs on the left")
    status, found = said(approved.model_copy(update={"items": (*approved.items, flag)}), tmp_path, capsys)
    assert status == 1
    assert found["open", "count"] == "nobody has acknowledged: 13 ribs on the left"
    done = flag.model_copy(update={"acknowledged_by": "a surgeon"})
    assert said(approved.model_copy(update={"items": (*approved.items, done)}), tmp_path, capsys)[0] == 0


def test_a_screw_that_breaches_is_unsafe_and_its_old_grade_stale(approved, tmp_path, capsys):
    screw = approved.items[0]
    # To the patient's left, away from the canal.
    shift = np.array([3.5, 0, 0])
    moved = with_screw(
        approved, entry_ct=tuple(screw.entry_ct + shift), tip_ct=tuple(screw.tip_ct + shift), origin="moved"
    )
    status, found = said(moved, tmp_path, capsys)
    assert status == 1
    assert "is grade C" in found["unsafe", screw.id]
    assert "the plan says grade A" in found["stale", screw.id]


def test_a_screw_in_the_canal_names_the_canal_and_the_cord(approved, tmp_path, capsys):
    screw = approved.items[0]
    shift = np.array([-6.0, 0, 0])
    moved = with_screw(approved, entry_ct=tuple(screw.entry_ct + shift), tip_ct=tuple(screw.tip_ct + shift))
    write_plan(moved, tmp_path / "plan.yaml")
    assert main(["plan", "check", str(tmp_path / "plan.yaml"), "--case", "embedded"]) == 1
    out = capsys.readouterr().out
    assert "into the spinal canal at T8" in out
    assert "spinal_cord" in out


def test_left_and_right_exchanged_are_found(approved, tmp_path, capsys):
    status, found = said(with_screw(approved, side="right"), tmp_path, capsys)
    assert status == 1
    assert "does not go through the pedicle T8 right" in found["unsafe", approved.items[0].id]


def test_screws_that_collide_are_unsafe(approved, tmp_path, capsys):
    left, right = approved.items
    crossed = left.model_copy(update={"id": "crossed", "tip_ct": right.tip_ct})
    status, found = said(approved.model_copy(update={"items": (*approved.items, crossed)}), tmp_path, capsys)
    assert status == 1
    assert "collides with crossed" in found["unsafe", left.id]


def test_a_tip_outside_the_ct_and_a_path_into_the_aorta_are_unsafe(approved, tmp_path, capsys):
    out = Path(
        id="out", origin="drawn", name="out", entry_ct=(-40, 130, -150), target_ct=(-40, 130, 400), diameter_mm=2
    )
    aorta = Path(
        id="aorta", origin="drawn", name="aorta", entry_ct=(20, 120, -158), target_ct=(24.0, 62.0, -158), diameter_mm=2
    )
    status, found = said(approved.model_copy(update={"items": (*approved.items, out, aorta)}), tmp_path, capsys)
    assert status == 1
    assert found["unsafe", "out"] == "its tip lies outside the CT: nobody can see what is there"
    assert "aorta" in found["unsafe", "aorta"]


def test_a_length_that_is_not_the_distance_of_the_ends_and_lost_references_are_said(approved, tmp_path, capsys):
    view = View(id="v", origin="proposed", item="T12-left", orbital_deg=0, angular_deg=0, error_mm=1)
    plan = with_screw(approved, length_mm=25.0)
    status, found = said(plan.model_copy(update={"items": (*plan.items, view)}), tmp_path, capsys)
    assert status == 1
    assert "its length is 25 mm" in found["unsafe", approved.items[0].id]
    assert "'T12-left', which is not in the plan" in found["stale", "v"]


def test_a_level_that_has_no_label_cannot_be_graded(approved, tmp_path, capsys):
    status, found = said(with_screw(approved, level="L1"), tmp_path, capsys)
    assert status == 1
    assert "cannot be graded: L1: is not in the label map" in found["unsafe", approved.items[0].id]


def test_a_plan_changed_by_hand_differs_from_its_revision(approved, tmp_path, capsys):
    (tmp_path / "plan").mkdir()
    write_plan(approved, tmp_path / "plan" / "0001.yaml")
    assert said(approved, tmp_path, capsys)[0] == 0
    status, found = said(approved.model_copy(update={"author": "x"}), tmp_path, capsys)
    assert status == 1
    assert "was changed by hand" in found["stale", ""]
    write_plan(approved.model_copy(update={"revision": 2}), tmp_path / "plan" / "0002.yaml")
    assert said(approved, tmp_path, capsys)[1]["stale", ""] == "is revision 1; the newest is 2"


def test_a_file_that_is_no_plan_is_refused(tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"screws": []}))
    assert main(["plan", "check", str(tmp_path / "plan.yaml"), "--case", "embedded"]) == 1
    assert "plan.yaml" in capsys.readouterr().err


def test_a_vessel_that_nobody_approved_is_no_alarm_but_a_question(source):
    of_atlas = tuple(
        SegmentedStructure(name, 1, "atlas", 0.9, 1, 1.0, state)
        for name, state in (("aorta", "draft"), ("spinal_cord", "approved"))
    )
    assert {n.name: n.is_approved for n in neighbours_of(source.file, of_atlas)} == {
        "aorta": False,
        "spinal_cord": True,
    }
    assert all(n.is_approved for n in neighbours_of(source.file, None))


def test_the_distance_of_segments_is_that_of_their_nearest_points(rng):
    steps = np.linspace(0, 1, 201)[:, None]
    for _ in range(30):
        a0, a1, b0, b1 = rng.uniform(-20, 20, (4, 3))
        a, b = a0 + steps * (a1 - a0), b0 + steps * (b1 - b0)
        nearest = np.linalg.norm(a[:, None] - b[None], axis=-1).min()
        assert segment_distance_mm(a0, a1, b0, b1) == pytest.approx(nearest, abs=0.15)
    assert segment_distance_mm(*np.array([[0.0, 0, 0], [10, 0, 0], [3, 4, 0], [13, 4, 0]])) == pytest.approx(4)
