"""The initial search: from how far it comes home, and what it makes of noise and of views from the side."""

import cv2
import numpy as np
import pytest

from fluoronav.case import Spread
from fluoronav.geometry import moved_about, rotation_distance_deg
from fluoronav.imaging.registration.confidence import LOST_AGREEMENT, TRACKING_AGREEMENT
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.search import InitialSearch
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
        return {side: image.copy() for side, image in frame.pyramid.items()}, frame.field_mask.copy()

    return make


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pose_is_found_from_30_degrees_100_mm_and_60_mm_away(case, camera, model, exposed, seed):
    truth = Scenario().poses(case)[40 * seed]
    search = InitialSearch(
        model, camera, next(starts(truth, case.target_ct, 30, 100, 60, seed)), Spread(), case.target_ct
    )
    found = search.search(*exposed(truth))
    search.close()
    assert found.agreement >= TRACKING_AGREEMENT
    assert errors_mm(found.estimate.T_camera_ct, truth, case.target_ct[None])[1] < 1.5


def test_a_lateral_view_is_found_when_the_orbital_angle_is_unknown(case, camera, model, exposed):
    prior = case.prior.T_camera_ct()
    truth = prior @ moved_about(case.target_ct, [0, 0, np.deg2rad(80), 0, 0, 0])
    search = InitialSearch(model, camera, prior, Spread(), case.target_ct)
    frame = exposed(truth)
    found = search.search(*frame, orbit=True)
    around_prior = search.search(*frame)
    search.close()
    assert found.agreement >= TRACKING_AGREEMENT
    assert rotation_distance_deg(found.estimate.T_camera_ct, truth) < 2
    assert around_prior.agreement < TRACKING_AGREEMENT


def test_one_threshold_does_for_a_quarter_of_the_dose_and_nothing_is_found_in_noise(case, camera, model, exposed, rng):
    truth = Scenario().poses(case)[30]
    search = InitialSearch(model, camera, truth, Spread(), case.target_ct)
    level = np.array(truth)
    level[1, 3] += 24  # one vertebra off
    for photons in (80.0, 20.0):
        pyramid, field_mask = exposed(truth, photons)
        assert search.agreement(truth, pyramid[128], field_mask) >= TRACKING_AGREEMENT
        assert search.agreement(level, pyramid[128], field_mask) < LOST_AGREEMENT
    noise = {side: rng.standard_normal((side, side)).astype(np.float32) for side in (256, 128, 64)}
    found = search.search(noise, np.ones((128, 128), bool))
    search.close()
    assert found is None or found.agreement < LOST_AGREEMENT


def test_a_search_that_is_called_off_ends_with_nothing(case, camera, model, exposed):
    truth = Scenario().poses(case)[30]
    search = InitialSearch(model, camera, truth, Spread(), case.target_ct)
    asked = []

    def go_on():
        asked.append(1)
        return len(asked) < 20

    assert search.search(*exposed(truth), go_on) is None
    search.close()
