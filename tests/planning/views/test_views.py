"""Predicted errors at views, and what they mean for a screw."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from fluoronav.cli import main
from fluoronav.geometry import CArmPose, exp_so3, inverse, moved_in_camera, transform_points
from fluoronav.lab.bench.poses import PoseStages, followed, kept
from fluoronav.lab.bench.subjects import Subject, rendered, starts
from fluoronav.paths import embedded_case
from fluoronav.planning.plan.file import read_plan, write_plan
from fluoronav.planning.plan.revisions import PlanRevisions
from fluoronav.planning.plan.schema import Plan, Screw, View
from fluoronav.planning.screws.catalogue import read_catalogue
from fluoronav.planning.screws.proposals import propose, with_proposals
from fluoronav.planning.screws.spine import spine_of_names
from fluoronav.planning.views.choice import at_views, best_pair, best_view, no_breach, safest, towards_canal_ct
from fluoronav.planning.views.prediction import PredictedView, ViewPredictor, sigma_mm, together


def sigma(view, point_ct, direction_ct):
    """Standard deviation that the registration will state, mm."""
    return sigma_mm(view.both.stated, view.centre_ct, point_ct, direction_ct)


@pytest.fixture(scope="module")
def vertebra(case):
    return spine_of_names(case.labels.image, {s.label: s.name for s in case.structures}).vertebra("T8")


@pytest.fixture(scope="module")
def screws(case, vertebra):
    spine = spine_of_names(case.labels.image, {s.label: s.name for s in case.structures})
    found = propose(spine, ["T8"], read_catalogue())
    plan, _ = with_proposals(Plan(case="x", revision=1, ct_hash="0" * 64, made=""), found.screws)
    return {s.side: s for s in plan.items}


@pytest.fixture(scope="module")
def predictor(case, camera):
    return ViewPredictor(case, camera, case.target_ct)


@pytest.fixture(scope="module")
def views(case, predictor):
    reach = case.prior.source_to_isocentre_mm
    return [predictor.at(o, a, case.target_ct, reach) for o in (-60, -30, 0, 30, 60) for a in (-20, 0, 20)]


def test_the_standard_deviation_of_a_point_is_that_of_poses_drawn_from_the_covariance(case, predictor, rng):
    view = predictor.at(25, 10, case.target_ct, 620.0)
    point, direction = case.target_ct + [30.0, -20, 10], np.array([0.3, -0.8, 0.5])
    drawn = rng.multivariate_normal(np.zeros(6), view.stated, 4000)
    errors = []
    for off in drawn:
        T = moved_in_camera(view.T_camera_ct, case.target_ct, exp_so3(off[:3]), off[3:])
        moved = transform_points(inverse(view.T_camera_ct) @ T, point) - point
        errors.append(moved @ direction / np.linalg.norm(direction))
    assert np.std(errors) == pytest.approx(sigma(view, point, direction), rel=0.05)


def test_one_view_knows_the_place_across_the_ray_and_not_along_it(case, predictor):
    view = predictor.at(0, 0, case.target_ct, 620.0)
    across, along = (sigma(view, case.target_ct, d) for d in ([1.0, 0, 0], [0, 1.0, 0]))
    assert across < 0.3
    assert along > 1.5
    lateral = predictor.at(90, 0, case.target_ct, 620.0)
    assert sigma(lateral, case.target_ct, [1.0, 0, 0]) > 1.5


def test_a_quarter_of_the_dose_makes_the_prediction_worse(case, camera, predictor):
    low = ViewPredictor(case, camera, case.target_ct, replace(predictor._exposure, photons=20.0))
    usual, dim = (p.at(60, 0, case.target_ct, 620.0) for p in (predictor, low))
    assert sigma(dim, case.target_ct, [0, 0, 1.0]) > sigma(usual, case.target_ct, [0, 0, 1.0])
    assert dim.score < usual.score


def test_a_second_view_fixes_the_depth_as_far_as_the_joints_are_known(case, predictor):
    first, second = predictor.at(0, 0, case.target_ct, 620.0), predictor.at(80, 0, case.target_ct, 620.0)
    depth = [
        sigma_mm(together(first, second, *arm).stated, case.target_ct, case.target_ct, np.array([0, 1.0, 0]))
        for arm in ((0.001, 0.001), (0.3, 1.0), (30.0, 100.0))
    ]
    assert depth[0] < 0.4
    assert depth[0] < depth[1] < depth[2]
    assert depth[2] == pytest.approx(sigma(first, case.target_ct, [0, 1.0, 0]), rel=0.02)


def test_the_prediction_is_what_a_real_registration_states_there(case, camera, predictor):
    truths = np.array(
        [CArmPose(tuple(case.target_ct + s), 620.0, 25.0 + o, a).T_camera_ct() for s, o, a in ((0, 0, 0), (6, 3, 5))]
    )
    subject = Subject("embedded", case, camera, truths, rendered(case, camera, truths, "test"))
    stages = PoseStages(subject)
    for k, truth in enumerate(truths):
        frame = kept(stages.frame(subject.counts(k, 80.0, 3)))
        stages.registration.restart()
        found, _, _ = followed(stages.registration, frame, next(starts(truth, case.target_ct, 1, 1, 1, k)))
        view = predictor.at_pose(truth)
        of_view = np.sqrt(np.diag(view.stated))
        of_view[:3] = np.rad2deg(of_view[:3])
        assert of_view[3:] / found.sigma[3:] == pytest.approx(np.ones(3), abs=0.2)
        # The stream's rotation also holds what the layers of this very patient leave open.
        assert np.all(of_view[:3] < 1.2 * found.sigma[:3])
        assert view.score == pytest.approx(found.score, abs=0.06)


def test_the_direction_that_matters_leads_to_the_canal(screws, vertebra):
    left, right = (towards_canal_ct(screws[side], vertebra) for side in ("left", "right"))
    assert left[0] < -0.9  # LPS: from the left pedicle to the patient's right
    assert right[0] > 0.9
    along = np.subtract(screws["left"].tip_ct, screws["left"].entry_ct)
    assert abs(left @ along) < 1e-6


def test_the_best_view_is_the_best_and_looks_along_the_back(screws, vertebra, views, camera):
    screw = screws["left"]
    best = best_view(screw, vertebra, views)
    all_errors = [at_views(screw, vertebra, (v,), camera.arm_deg, camera.arm_mm).bound_mm for v in views]
    assert best.bound_mm == pytest.approx(min(all_errors))
    assert best.error_mm < best.bound_mm
    # Seen from the side, the way to the canal is along the ray.
    assert abs(best.views[0][0]) <= 30
    assert max(all_errors) > 5 * best.bound_mm
    pair = best_pair(screw, vertebra, views, 0.05, 0.1)
    assert len(pair.views) == 2
    assert pair.across_mm < best.across_mm
    assert best_pair(screw, vertebra, views[:1], 0.05, 0.1) is None


def test_the_probability_falls_as_the_error_grows(screws, vertebra, case):
    screw = screws["left"]
    covariances = [np.diag([1e-6] * 3 + [s**2] * 3) for s in (1e-3, 0.5, 1.0, 3.0)]
    found = [no_breach(screw, vertebra, c, case.target_ct) for c in covariances]
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.3
    assert no_breach(screw, vertebra, covariances[1], case.target_ct) == found[1]


def test_the_probability_is_that_of_a_normal_error_at_a_plane_wall(phantom_like):
    vertebra, screw, clearance_mm = phantom_like
    # The error is across the pedicle alone, whose walls are planes on both sides.
    covariance = np.diag([1e-12] * 3 + [1.0**2, 1e-12, 1e-12])
    from scipy.stats import norm

    expected = 2 * norm.cdf(clearance_mm) - 1
    assert no_breach(screw, vertebra, covariance, np.array(screw.tip_ct)) == pytest.approx(expected, abs=0.08)


@pytest.fixture(scope="module")
def phantom_like(phantom):
    """A straight pedicle between two planes, and a screw in its middle."""

    from fluoronav.planning.screws.grading import graded
    from fluoronav.planning.screws.vertebra import read_vertebra

    vertebra = read_vertebra(phantom.image((0.4, 0.4, 0.8)), 20, "L1")
    entry, tip = (tuple(np.array(phantom.centre_ct) + [14.0, y, 4.0]) for y in (9.0, -22.0))
    found = graded(entry, tip, 5.0, "left", vertebra)
    screw = Screw(
        id="L1-left", origin="drawn", level="L1", side="left", entry_ct=entry, tip_ct=tip, diameter_mm=5.0,
        length_mm=31.0, clearance_mm=found.clearance_mm, breach_mm=found.breach_mm, grade=found.grade,
    )  # fmt: skip
    return vertebra, screw, found.clearance_mm


def test_the_safest_trajectory_is_at_least_as_safe_and_of_the_same_diameter(screws, vertebra, case):
    screw = screws["right"]
    # The guidance errs up and down ten times as much as sideways.
    covariance = np.diag([1e-6] * 3 + [0.1**2, 0.1**2, 1.5**2])
    other = safest(screw, vertebra, covariance, case.target_ct, read_catalogue())
    assert other.fits
    assert other.diameter_mm == screw.diameter_mm
    changed = screw.model_copy(update={"entry_ct": other.entry_ct, "tip_ct": other.tip_ct})
    before, after = (no_breach(s, vertebra, covariance, case.target_ct) for s in (screw, changed))
    assert after >= before - 0.01


@pytest.fixture
def planned(tmp_path, screws):
    """The embedded case in a folder of its own, with a plan of two screws."""
    from fluoronav.planning.plan.source import read_source

    source = embedded_case().parent
    content = yaml.safe_load((source / "case.yaml").read_text())
    for key in ("ct", "labels", "surroundings"):
        content[key] = str(source / content[key])
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(content))
    of = read_source(tmp_path / "case.yaml")
    moved = screws["right"].model_copy(update={"origin": "moved"})
    plan = Plan(
        case=of.file.name, revision=1, ct_hash=of.ct_hash, labels_hash=of.labels_hash, made="2026-01-01T12:00:00+00:00",
        state="approved", approved_by="a surgeon", items=(screws["left"], moved),
    )  # fmt: skip
    PlanRevisions(tmp_path).add(plan, parent=0)
    return tmp_path


def test_views_are_found_written_as_a_draft_and_a_persons_screw_stays(planned, capsys):
    assert main(["plan", "views", str(planned), "--step", "30", "--choose", "--write", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    left = next(s for s in said["screws"] if s["id"] == "T8-left")
    assert 0 < left["one"]["error_mm"] < left["one"]["bound_mm"] < 1
    assert 0 <= left["one"]["no_breach"] <= 1
    assert len(left["pair"]["views"]) == 2
    assert sum(said["refused_angles"].values()) > 0
    plan = read_plan(planned / "plan.yaml")
    assert plan.state == "draft"
    assert plan.revision == 2
    views = [i for i in plan.items if isinstance(i, View)]
    assert {v.item for v in views} == {"T8-left", "T8-right"}
    assert views[0].bound_mm == pytest.approx(min(left["one"]["bound_mm"], left["pair"]["bound_mm"]), abs=1e-3)
    before = read_plan(planned / "plan" / "0001.yaml")
    assert next(i for i in plan.items if i.id == "T8-right") == next(i for i in before.items if i.id == "T8-right")


def test_a_plan_without_screws_or_of_another_ct_is_refused(planned, capsys):
    plan = read_plan(planned / "plan.yaml")
    write_plan(plan.model_copy(update={"items": ()}), planned / "none.yaml")
    assert main(["plan", "views", str(planned / "none.yaml")]) == 1
    assert "the plan has no screws" in capsys.readouterr().err
    write_plan(plan.model_copy(update={"ct_hash": "0" * 64}), planned / "other.yaml")
    assert main(["plan", "views", str(planned / "other.yaml")]) == 1
    assert "was made on another CT" in capsys.readouterr().err


def test_a_view_carries_its_covariance_in_ct_axes_too(case, predictor):
    view: PredictedView = predictor.at(90, 0, case.target_ct, 620.0)
    assert np.argmax(np.diag(view.stated)[3:]) == 2  # along the ray
    assert np.argmax(np.diag(view.both.stated)[3:]) == 0  # which is from side to side
