import re
import shutil

import pytest
from tests.reports.briefed_case import FLAG, LEFT_VIEWS, MEASURED, OTHERS, POOR_BONE, briefed_case, open_level
from tests.reports.conftest import briefing, words

from fluoronav.planning.plan.planned import read_planned
from fluoronav.planning.plan.revisions import PlanRevisions
from fluoronav.planning.plan.schema import Screw, View
from fluoronav.reports.arm_words import arm_words
from fluoronav.site.case_trail import CaseTrail


@pytest.fixture(scope="module")
def document(approved, tmp_path_factory):
    """The HTML of the approved plan, and what the JSON says."""
    out = tmp_path_factory.mktemp("out") / "briefing.html"
    said = briefing(approved, out)
    return out.read_text(), said


@pytest.fixture
def case(approved, tmp_path):
    return shutil.copytree(approved, tmp_path / "P2KQX7")


def revised(case, **changes):
    """A new revision of the plan."""
    plans = PlanRevisions(case)
    plan = plans.newest()
    return plans.add(plan.model_copy(update=changes), parent=plan.revision)


def test_an_approved_plan_that_fits_is_no_draft_and_says_who_approved_it_and_when(document, approved):
    html, said = document
    head, planned = said["head"], read_planned(approved)
    assert head["is_final"] and head["draft_because"] == [] and "DRAFT" not in words(html)
    assert head["approved"]["who"] == head["reviewed"]["who"] == "ada" and re.match(r"20\d\d-", head["approved"]["at"])
    assert (head["revision"], head["case"]) == (planned.plan.revision, planned.case.name)
    assert head["plan_hash"] == planned.digest[:12] and head["ct_hash"] == planned.plan.ct_hash[:12]
    for text in (head["plan_hash"], head["labels_hash"], f"APPROVED ada, {head['approved']['at']}", "Pedicle screws"):
        assert text in words(html)


def test_screws_are_those_of_the_plan_with_what_the_guidance_leaves_of_their_clearance(document, approved):
    html, said = document
    screws = {i.id: i for i in read_planned(approved).plan.items if isinstance(i, Screw)}
    assert [s["item"] for s in said["screws"]] == ["T8-left", "T8-right"]
    for row, bound in zip(said["screws"], (0.47, 9.9), strict=True):
        screw = screws[row["item"]]
        for key in ("diameter_mm", "length_mm", "grade", "clearance_mm", "breach_mm", "origin"):
            assert row[key] == getattr(screw, key)
        assert row["bound_mm"] == bound and row["left_mm"] == pytest.approx(screw.clearance_mm - bound)
        assert f"{screw.diameter_mm:g} \u00d7 {screw.length_mm:g}" in words(html)
    assert re.search(r"T8 right .*?NONE \(-\d\.\d mm\) proposed", words(html))


def test_every_screw_is_counted_among_what_must_be_on_the_table(document):
    needed = document[1]["needed"]
    assert sum(n["count"] for n in needed) == 2 and all(n["note"] == "" for n in needed)


def test_a_screw_of_a_length_that_is_not_made_is_said_with_its_neighbours(case, tmp_path):
    plan = PlanRevisions(case).newest()
    items = tuple(i.model_copy(update={"length_mm": 36.7}) if i.id == "T8-left" else i for i in plan.items)
    revised(case, items=items, state="draft")
    said = briefing(case, tmp_path / "a.html")
    odd = next(n for n in said["needed"] if "36.7" in n["size"])
    assert odd["note"] == "no such length in the catalogue 'demo'; it has 35 and 40 mm"
    sizes = tmp_path / "sizes.yaml"
    sizes.write_text("{name: ours, diameters_mm: [3.5, 4, 4.5, 5, 5.5, 6], lengths_mm: [30, 36.7]}")
    said = briefing(case, tmp_path / "a.html", "--catalogue", str(sizes))
    assert next(n for n in said["needed"] if "36.7" in n["size"])["note"] == ""


def test_each_view_has_its_picture_its_angles_in_words_and_its_predicted_error(document):
    html, said = document
    cards = said["views"]["cards"]
    assert html.count("data:image/jpeg;base64,") == len(cards) == 3
    # Of two views the second one of the plan is exposed first; the first one is guided in.
    first, guide, right = cards
    assert (first["orbital_deg"], first["angular_deg"]) == LEFT_VIEWS[1] and first["words"] == "LPO 70°, caudal 20°"
    assert first["uses"][0]["turn"] == "1. Expose here first" and arm_words(*LEFT_VIEWS[0]) in first["uses"][0]["text"]
    assert (guide["uses"][0]["turn"], guide["uses"][0]["error_mm"], guide["uses"][0]["bound_mm"]) == (
        "2. Guide here", 0.31, 0.47,
    )  # fmt: skip
    assert right["words"] == "LPO 12°, caudal 4°" and right["uses"][0]["turn"] == "Guide here"
    assert "tip error towards the spinal canal: 0.5 mm expected, guidance states 9.9 mm (95 %)" in words(html)
    assert "angular 40° is at the arm's limit" in words(html)


def test_a_view_that_the_arm_does_not_reach_is_said(case, tmp_path):
    plan = PlanRevisions(case).newest()
    items = [i for i in plan.items if not isinstance(i, View)]
    items += [
        View(id=f"v{k}", origin="drawn", item="T8-left", orbital_deg=o, angular_deg=a, error_mm=0.3)
        for k, (o, a) in enumerate(((180.0, 0.0), (0.0, 60.0)))
    ]
    revised(case, items=tuple(items), state="draft")
    cards = briefing(case, tmp_path / "a.html")["views"]["cards"]
    assert [c["arm"] for c in cards] == ["NOT REACHED: beyond the arm's limits"] * 2
    assert not any(c["is_free"] for c in cards)


def test_a_plan_without_views_says_how_to_compute_them(tmp_path):
    case = briefed_case(tmp_path / "P1", views=False, approve=False)
    said = briefing(case, tmp_path / "a.html")
    assert said["views"]["cards"] == [] and "fluoronav plan views CASE --write" in said["views"]["note"]
    assert all(s["bound_mm"] is None for s in said["screws"]) and "no views" in words((tmp_path / "a.html").read_text())


def test_views_that_are_older_than_their_screw_are_said(case, tmp_path):
    plan = PlanRevisions(case).newest()
    items = tuple(i.model_copy(update={"audit": "9"}) if i.id == "T8-right" else i for i in plan.items)
    revised(case, items=items, state="draft")
    assert "Changed after their views were computed: T8 right." in briefing(case, tmp_path / "a.html")["views"]["note"]


def test_what_is_open_comes_before_what_was_answered(tmp_path):
    case = briefed_case(tmp_path / "P1", approve=False, acknowledge=False)
    open_level(case)
    said = briefing(case, tmp_path / "a.html")
    text = words((tmp_path / "a.html").read_text())
    assert not said["questions"]["levels"]["is_sure"] and "Level: NOT SURE" in text
    assert [p["kind"] for p in said["questions"]["open"]][:2] == ["level", "flag"]
    assert POOR_BONE in text and text.index(POOR_BONE) < text.index("Screws") < text.index("Answered")


def test_who_acknowledged_a_flag_and_answered_a_question_is_said_with_the_time(document):
    html, said = document
    assert said["questions"]["open"] == []
    flag, level = said["questions"]["closed"]
    assert (flag["text"], flag["said"]["who"]) == (POOR_BONE, "ada") and re.match(r"20\d\d-", flag["said"]["at"])
    assert (level["answer"], level["said"]["who"]) == ("T8", "ben")
    assert said["questions"]["levels"]["is_sure"] and "answered by ben, 2026-01-05" in words(html)
    assert "metal beside T8" in said["questions"]["notes"]


def test_what_a_check_calls_unsafe_is_open_until_whoever_approved_the_plan_accepted_it(case, tmp_path):
    plan = PlanRevisions(case).newest()
    longer = tuple(i.model_copy(update={"length_mm": i.length_mm + 5}) if i.id == "T8-left" else i for i in plan.items)
    plan = revised(case, items=longer, state="approved", approved_by="ada")
    (point,) = briefing(case, tmp_path / "a.html")["questions"]["open"]
    assert (point["kind"], point["about"]) == ("unsafe", "T8 left")
    CaseTrail(case).add(
        "plan", user="ada", revision=plan.revision, what="approved", accepted=[f"T8-left {point['text']}"]
    )
    said = briefing(case, tmp_path / "a.html")["questions"]
    assert said["open"] == [] and "unsafe; accepted at the approval" in [c["answer"] for c in said["closed"]]


def test_measurements_of_what_is_operated_on_are_there_and_the_rest_is_counted(document):
    html, said = document
    assert said["figures"] == [
        {"structure": "T8", "values": [["pedicle left width", "7.7 ± 0.4 mm"]]},
        {"structure": "T6-T10", "values": [["kyphosis", "31.3°"]]},
    ]
    assert said["more_figures"] == len(MEASURED) - 2 and "1 of other structures in the plan" in words(html)


def test_cuts_resections_implants_and_paths_are_there(tmp_path):
    case = briefed_case(tmp_path / "P1", approve=False, views=False, more=OTHERS)
    said = briefing(case, tmp_path / "a.html")
    steps = {s["item"]: s["text"] for s in said["steps"]}
    assert steps["cut-1"] == "kerf 1.2 mm, plane facing head; wedge to cut-2 of 30.0°"
    assert steps["resection-1"] == "taken out with a margin of 5 mm" and steps["rod-1"] == "demo-rod, size 60"
    assert said["paths"][0]["name"] == "k-wire" and said["paths"][0]["length_mm"] == pytest.approx(31.62, abs=0.01)
    assert {"count": 1, "what": "demo-rod", "size": "60", "note": ""} in said["needed"]
    text = words((tmp_path / "a.html").read_text())
    assert all(s in text for s in steps.values())


def test_structures_that_the_plan_uses_have_their_state_and_who_gave_it(document):
    used = {u["name"]: u for u in document[1]["segmented"]["used"]}
    assert used["T8"]["state"] == "approved" and used["spinal cord"]["engine"] == "atlas"
    assert document[1]["segmented"]["engines"] == ["atlas: 7 structures (7 approved)"]


@pytest.mark.parametrize("state", ["draft", "reviewed"])
def test_a_plan_that_is_not_approved_is_a_draft(case, tmp_path, state):
    revised(case, state=state, approved_by="")
    head = briefing(case, tmp_path / "a.html")["head"]
    assert not head["is_final"] and head["draft_because"] == [f"the plan is {state}, not approved"]
    assert "DRAFT: do not operate by this" in words((tmp_path / "a.html").read_text())


def test_an_approved_plan_that_was_changed_by_hand_is_a_draft(case, tmp_path):
    file = case / "plan.yaml"
    file.write_text(file.read_text().replace("note: ''", "note: 'changed'"))
    said = briefing(case, tmp_path / "a.html")
    assert not said["head"]["is_final"]
    assert any(p["kind"] == "stale" and "changed by hand" in p["text"] for p in said["questions"]["open"])


def test_an_older_revision_is_a_draft_though_it_was_approved(case, tmp_path):
    approved = PlanRevisions(case).newest().revision
    revised(case, note="later", state="draft")
    said = briefing(case / "plan" / f"{approved:04d}.yaml", tmp_path / "a.html")
    assert said["head"]["revision"] == approved and not said["head"]["is_final"]


def test_texts_of_a_plan_are_shown_and_never_read_as_html(document):
    assert "less than &lt;110&gt;" in document[0] and "<110>" not in document[0]
    assert FLAG.text == POOR_BONE
