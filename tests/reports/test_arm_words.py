import numpy as np
import pytest

from fluoronav.geometry import CArmPose
from fluoronav.reports.arm_words import arm_words, joint_words


@pytest.mark.parametrize(
    ("orbital", "angular", "said"),
    [
        (0, 0, "AP, no tilt"),
        (20, 0, "LPO 20°, no tilt"),
        (-35, 10, "RPO 35°, cranial 10°"),
        (0, -40, "AP, caudal 40°"),
        (90, 0, "lateral, detector on the patient's left, no tilt"),
        (-90, -5, "lateral, detector on the patient's right, caudal 5°"),
        (150, 0, "LAO 30°, no tilt"),
        (-170, 0, "RAO 10°, no tilt"),
        (180, 0, "PA, no tilt"),
        (0.3, -0.4, "AP, no tilt"),
    ],
)
def test_a_view_is_named_by_where_the_detector_is(orbital, angular, said):
    assert arm_words(orbital, angular) == said


@pytest.mark.parametrize("orbital", [-160, -100, -40, 40, 100, 160])
@pytest.mark.parametrize("angular", [-30, 30])
def test_the_side_in_words_is_the_side_of_the_beam(orbital, angular):
    left, back, head = CArmPose((0, 0, 0), 600.0, orbital, angular).T_camera_ct()[2, :3]
    words = arm_words(orbital, angular)
    assert words[0] == ("L" if left > 0 else "R") and words[1] == ("P" if back > 0 else "A")
    assert ("cranial" in words) == (head > 0) and np.sign(angular) == np.sign(head)


def test_the_joints_are_said_as_the_displays_menu_says_them():
    assert joint_words(20.0, -7.5) == "orbital 20°, angular -7.5°"
