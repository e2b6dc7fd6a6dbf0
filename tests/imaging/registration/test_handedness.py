"""Handedness: what the mirror image of a picture says of a pose, for any case."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from fluoronav.case import Volume
from fluoronav.geometry import Camera
from fluoronav.imaging.registration.agreement import Agreement
from fluoronav.imaging.registration.handedness import (
    MirrorImage,
    reason_of_hand,
    reversed_camera,
    reversed_columns,
    told_hand,
)
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.starts import reflection
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

SMALL = st.floats(-0.05, 0.05)


@given(st.lists(SMALL, min_size=12, max_size=12), st.tuples(SMALL, SMALL))
def test_the_reversed_camera_sees_a_reflected_point_in_the_reversed_column(coefficients, at):
    K = np.array([[900.0, 3.0, 480.0], [0, 910.0, 500.0], [0, 0, 1]])
    camera = Camera(1024, 1000, K, np.array(coefficients))
    point = np.array([at[0], at[1], 1.0])
    u, v = camera.project(point)
    mirrored_u, mirrored_v = reversed_camera(camera).project(point * [-1, 1, 1])
    assert mirrored_u == pytest.approx(camera.cols - 1 - u, abs=1e-6) and mirrored_v == pytest.approx(v, abs=1e-6)


def symmetric(case):
    """The case with a CT that is its own mirror image."""
    image = case.ct.image
    voxels = sitk.GetArrayFromImage(image)
    both = sitk.GetImageFromArray(((voxels.astype(np.int32) + voxels[:, :, ::-1]) // 2).astype(voxels.dtype))
    both.CopyInformation(image)
    return replace(case, ct=Volume(both, case.ct.path), surroundings=None)


class Patient:
    """A patient in the beam, and what the registration makes of a picture."""

    def __init__(self, case, camera):
        self.case, self.camera, self.truth = case, camera, Scenario().poses(case)[30]
        self.model, self.T_prior = RegistrationModel.of_case(case), case.prior.T_camera_ct()
        beam = Anatomy(case, camera.scaled(0.5)).transmission(*Anatomy(case, camera.scaled(0.5)).paths(self.truth))
        beam = cv2.resize(beam, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC)
        self.counts = ImageChain(FlatPanel(), camera.rows, camera.cols, 3).counts(beam, 1)

    def hand(self, counts, T_camera_ct):
        stage = AttenuationStage()
        stage.prepare(self.case, self.camera)
        frame = FrameRecord.of_counts(counts, seq=1)
        stage.process(frame, Budget(1e6))
        agreement = Agreement(self.model.tissue, self.model.bones, self.camera, 128, self.T_prior)
        mirror = MirrorImage(self.model.tissue, self.model.bones, self.camera, self.case.target_ct, self.T_prior)
        return told_hand(
            agreement(T_camera_ct, frame.pyramid[128], frame.anatomy_mask),
            mirror.agreement(T_camera_ct, frame.pyramid, frame.anatomy_mask),
        )


def test_a_picture_and_its_reversal_are_told_apart(case, camera):
    patient = Patient(case, camera)
    assert patient.hand(patient.counts, patient.truth) == "right"
    # The pose that a reversed picture suggests is that of the reflected patient.
    reflected = np.diag([-1.0, 1, 1, 1]) @ patient.truth @ reflection(np.array([1.0, 0, 0]), case.target_ct)
    assert patient.hand(reversed_columns(patient.counts), reflected) == "mirrored"
    assert patient.hand(reversed_columns(patient.counts), patient.truth) != "right"


def test_of_a_symmetric_patient_no_hand_is_claimed(case, camera):
    patient = Patient(symmetric(case), camera)
    assert patient.hand(patient.counts, patient.truth) == "unclear"


@pytest.mark.parametrize(
    ("hand", "pictures", "said"),
    [("right", 1, ""), ("unclear", 1, "whether the picture is mirrored"), ("unclear", 2, "the pictures are mirrored"),
     ("mirrored", 1, "the picture looks mirrored"), ("mirrored", 2, "the pictures look mirrored")],
)  # fmt: skip
def test_the_hand_of_pictures_is_said_alike_wherever_it_was_asked(hand, pictures, said):
    reason = reason_of_hand(hand, pictures, 0.71, 0.93)
    assert said in reason and (not said or ("0.71" in reason and "0.93" in reason))
