"""The initial search: from how far it comes home, and what it makes of noise and of views from the side."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluoronav.case import Spread
from fluoronav.geometry import moved_about, moved_in_camera, rotation_distance_deg
from fluoronav.imaging.registration import search
from fluoronav.imaging.registration.confidence import (
    LOST_AGREEMENT,
    MIN_PATCHES,
    TRACKING_AGREEMENT,
    TRACKING_SCORE,
)
from fluoronav.imaging.registration.gauss_newton import PoseEstimate
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.search import InitialSearch
from fluoronav.imaging.registration.view_grid import ViewGrid
from fluoronav.imaging.registration.views_around import SETTINGS, ViewsAround
from fluoronav.lab.bench.subjects import errors_mm, starts
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage


@pytest.fixture(scope="module")
def model(case):
    return RegistrationModel.of_case(case)


@pytest.fixture(scope="module")
def exposed(case, camera):
    """Makes the frame of a pose at a dose."""
    anatomy = Anatomy(case, camera.scaled(0.5))
    stage = AttenuationStage()
    stage.prepare(case, camera)

    def make(T_camera_ct, photons=80.0):
        beam = anatomy.transmission(*anatomy.paths(T_camera_ct))
        beam = cv2.resize(beam, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC)
        chain = ImageChain(FlatPanel(photons=photons), camera.rows, camera.cols, 3)
        frame = FrameRecord.of_counts(chain.counts(beam, 1), seq=1)
        stage.process(frame, Budget(1e6))
        return {side: image.copy() for side, image in frame.pyramid.items()}, frame.anatomy_mask.copy()

    return make


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pose_is_found_from_30_degrees_100_mm_and_60_mm_away(case, camera, model, exposed, seed):
    truth = Scenario().poses(case)[40 * seed]
    searcher = InitialSearch(
        model, camera, next(starts(truth, case.target_ct, 30, 100, 60, seed)), Spread(), case.target_ct
    )
    found = searcher.search(*exposed(truth))
    searcher.close()
    assert found.agreement >= TRACKING_AGREEMENT
    assert errors_mm(found.estimate.T_camera_ct, truth, case.target_ct[None])[1] < 1.5


def test_a_lateral_view_is_found_when_the_orbital_angle_is_unknown(case, camera, model, exposed):
    prior = case.prior.T_camera_ct()
    truth = prior @ moved_about(case.target_ct, [0, 0, np.deg2rad(80), 0, 0, 0])
    searcher = InitialSearch(model, camera, prior, Spread(), case.target_ct)
    frame = exposed(truth)
    found = searcher.search(*frame, orbit=True)
    around_prior = searcher.search(*frame)
    searcher.close()
    assert found.agreement >= TRACKING_AGREEMENT
    assert rotation_distance_deg(found.estimate.T_camera_ct, truth) < 2
    assert around_prior.agreement < TRACKING_AGREEMENT


def test_one_threshold_does_for_a_quarter_of_the_dose_and_nothing_is_found_in_noise(case, camera, model, exposed, rng):
    truth = Scenario().poses(case)[30]
    searcher = InitialSearch(model, camera, truth, Spread(), case.target_ct)
    level = np.array(truth)
    level[1, 3] += 24  # one vertebra off
    for photons in (80.0, 20.0):
        pyramid, anatomy_mask = exposed(truth, photons)
        assert searcher.agreement(truth, pyramid[128], anatomy_mask) >= TRACKING_AGREEMENT
        assert searcher.agreement(level, pyramid[128], anatomy_mask) < LOST_AGREEMENT
    noise = {side: rng.standard_normal((side, side)).astype(np.float32) for side in (256, 128, 64)}
    found = searcher.search(noise, np.ones((128, 128), bool))
    searcher.close()
    assert found is None or found.agreement < LOST_AGREEMENT


def test_a_search_that_is_called_off_ends_with_nothing(case, camera, model, exposed):
    truth = Scenario().poses(case)[30]
    searcher = InitialSearch(model, camera, truth, Spread(), case.target_ct)
    asked = []

    def go_on():
        asked.append(1)
        return len(asked) < 20

    assert searcher.search(*exposed(truth), go_on) is None
    searcher.close()


@pytest.mark.parametrize("seed", [4, 5])
def test_the_search_that_ends_early_finds_what_the_whole_one_finds(case, camera, model, exposed, monkeypatch, seed):
    truth = Scenario().poses(case)[35 * (seed - 3)]
    frame = exposed(truth)
    early = InitialSearch(
        model, camera, next(starts(truth, case.target_ct, 30, 100, 60, seed)), Spread(), case.target_ct
    )
    found = early.search(*frame)
    monkeypatch.setattr(search, "is_clear", lambda _: False)
    whole = early.search(*frame)
    early.close()
    assert abs(found.agreement - whole.agreement) < 0.03
    assert errors_mm(found.estimate.T_camera_ct, whole.estimate.T_camera_ct, case.target_ct[None])[1] < 0.3


def test_where_the_first_candidates_are_not_clear_the_search_goes_on_to_more(case, camera, model, exposed, monkeypatch):
    truth = Scenario().poses(case)[20]
    frame, asked = exposed(truth), []

    def clear_at_last(found):
        asked.append(found)
        return len(asked) == len(search.SETTINGS.steps)

    monkeypatch.setattr(search, "is_clear", clear_at_last)
    searcher = InitialSearch(model, camera, truth, Spread(), case.target_ct)
    found = searcher.search(*frame)
    searcher.close()
    assert found is asked[-1]
    # What was found before is not lost where more hypotheses come before it.
    assert all(b.agreement >= a.agreement for a, b in pairwise(asked))
    assert search.SETTINGS.steps[-1].halves == 2 and len(asked) == len(search.SETTINGS.steps)


@given(st.floats(-1, 1.2), st.floats(0, 1), st.integers(0, 60))
def test_what_ends_a_search_early_is_never_a_pose_that_would_be_refused(agreement, score, patches):
    estimate = PoseEstimate(np.eye(4), score, np.eye(6), np.zeros(3), 3, patches)
    found = search.Hypothesis(estimate, agreement)
    acceptable = agreement >= TRACKING_AGREEMENT and score >= TRACKING_SCORE and patches >= MIN_PATCHES
    assert acceptable or not search.is_clear(found)


def test_views_that_were_rendered_before_are_used_again_and_the_result_is_the_same_to_the_bit(
    case, camera, model, exposed, monkeypatch
):
    truth = Scenario().poses(case)[10]
    frame, rendered = exposed(truth), []
    frontal = ViewGrid._frontal
    monkeypatch.setattr(ViewGrid, "_frontal", lambda *given: rendered.append(1) or frontal(*given))
    T_prior = next(starts(truth, case.target_ct, 10, 30, 20, 7))
    searcher = InitialSearch(model, camera, T_prior, Spread(), case.target_ct)
    first = searcher.search(*frame)
    assert rendered
    searcher.prepare()
    searcher._pool.shutdown(wait=True)
    renderings = len(rendered)
    assert renderings == len(searcher._grid.around(T_prior).tilts)
    again = InitialSearch(model, camera, T_prior, Spread(), case.target_ct)
    again._grid = searcher._grid
    second = again.search(*frame)
    again.close()
    assert len(rendered) == renderings
    assert np.array_equal(first.estimate.T_camera_ct, second.estimate.T_camera_ct)
    assert first.agreement == second.agreement


def test_the_views_that_are_kept_are_bounded(case, camera, model):
    grid = ViewGrid(model.coarse_tissue, model.coarse_bones, camera, case.target_ct, Spread(), 64, 4.0)
    T_prior = case.prior.T_camera_ct()
    for k in range(3 * SETTINGS.kept_priors):
        grid.around(moved_in_camera(T_prior, case.target_ct, np.eye(3), [k, 0, 0])).view(0)
    assert len(grid._known) == SETTINGS.kept_priors
    fine = ViewGrid(
        model.coarse_tissue, model.coarse_bones, camera, case.target_ct, Spread(rotation_deg=90), 192, 4.0
    ).around(T_prior)
    fine.view(0)
    assert not fine._kept


@given(st.floats(1, 90), st.floats(5, 250), st.floats(5, 150))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_half_of_the_tilts_leaves_none_farther_than_a_step_and_no_shift_wraps_around(case, camera, degrees, mm, depth):
    spread = Spread(rotation_deg=degrees, in_plane_mm=mm, depth_mm=depth)
    small = camera.scaled(64 / max(camera.rows, camera.cols))
    views = ViewsAround(
        case.prior.T_camera_ct(),
        small,
        case.target_ct,
        spread,
        64,
        4.0,
        lambda R, mm: (np.zeros((64, 64)), np.zeros((64, 64))),
    )
    first, rest = np.array(views.tilts[: views.first_half]), np.array(views.tilts[views.first_half :])
    cosines = (np.einsum("aij,bij->ab", rest, first).max(1) - 1) / 2
    assert (np.rad2deg(np.arccos(np.clip(cosines, -1, 1))) < SETTINGS.step_deg + 0.01).all()
    assert len(first) >= len(rest)
    most = max((abs(shifts).max() for window in views.windows for shifts in window if len(shifts)), default=0)
    assert views.shape[0] >= 64 + most
