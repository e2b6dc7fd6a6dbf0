"""Patients who are not their CT: the chest breathes and the spine bends, and the pose is the target bone's."""

import cv2
import pytest

from fluoronav.geometry import rotation_distance_deg
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.search import InitialSearch
from fluoronav.lab.bench.subjects import errors_mm, view_poses
from fluoronav.lab.simulation.deformed import Deformation, deformed
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.pipeline.messages import overlay_message
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.stage import RegistrationStage

TARGET = "vertebrae_T8"


@pytest.fixture(scope="module")
def stages(case, camera):
    attenuation, registration = AttenuationStage(), RegistrationStage()
    for stage in (attenuation, registration):
        stage.prepare(case, camera)
    yield attenuation, registration
    registration.close()


def exposed(case, camera, attenuation, how, seed):
    """A frame of the patient, and the target bone's true pose."""
    patient, _ = deformed(case, TARGET, how)
    truth = view_poses(case, 1, seed)[0]
    anatomy, chain = Anatomy(patient, camera.scaled(0.5)), ImageChain(FlatPanel(), camera.rows, camera.cols, 3)
    beam = anatomy.transmission(*anatomy.paths(truth))
    beam = cv2.resize(beam, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC)
    frame = FrameRecord.of_counts(chain.counts(beam, 1))
    attenuation.process(frame, Budget(1e6))
    return frame, truth


def followed(registration, frame, T):
    registration.restart()
    registration.adopt(T, frame)
    for _ in range(7):
        registration.process(frame, Budget(1e6))
        registration.idle(frame, Budget(1e6))
        registration.wait_for_background()
    return frame.registration


@pytest.mark.parametrize(
    ("how", "seed"), [(Deformation(breath_mm=12.0), 79), (Deformation((3.0, 2.5, 1.0), breath_mm=8.0), 82)]
)
def test_the_target_bone_is_where_it_is_though_the_chest_has_moved(case, camera, stages, how, seed):
    """Regression: the pose that fits the chest best was called tracking, 4 and 5 degrees wrong, with a small bound."""
    attenuation, registration = stages
    frame, truth = exposed(case, camera, attenuation, how, seed)
    model = RegistrationModel.of_case(case)
    search = InitialSearch(model, camera, truth, case.prior.spread, case.target_ct)
    whole = search.refined(truth, frame.pyramid, frame.anatomy_mask)
    search.close()
    assert whole.agreement > 0.7 and rotation_distance_deg(whole.estimate.T_camera_ct, truth) > 3
    found = followed(registration, frame, whole.estimate.T_camera_ct)
    across = errors_mm(found.T_camera_ct, truth, case.target_ct[None])[1]
    turned = rotation_distance_deg(found.T_camera_ct, truth)
    assert frame.status == "tracking" and found.bone == TARGET
    assert across < 0.8 and turned < 2.5
    assert across < found.tre_image_mm and turned < found.turn_deg


def test_a_patient_who_is_the_ct_keeps_the_pose_of_all_tissue(case, camera, stages):
    attenuation, registration = stages
    frame, truth = exposed(case, camera, attenuation, Deformation(), 77)
    found = followed(registration, frame, truth)
    assert frame.status == "tracking" and found.bone == ""
    assert errors_mm(found.T_camera_ct, truth, case.target_ct[None])[1] < 0.3
    assert rotation_distance_deg(found.T_camera_ct, truth) < found.turn_deg < 3
    assert found.tre_image_mm < 0.45, "chance is no doubt of the pose of all tissue"
    message = overlay_message(frame, "carm0", 33.3, {"network": 0, "overload": 0, "invalid": 0}, {}, "live")
    assert message.registration.turn_deg == found.turn_deg and message.registration.bone == ""
