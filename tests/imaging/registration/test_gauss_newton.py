"""When a refined pose has settled."""

import numpy as np
import pytest

from fluoronav.imaging.registration.gauss_newton import refine
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.patches import PatchLevel


@pytest.mark.parametrize("has_time", [True, False])
def test_a_pose_for_whose_fine_level_there_is_no_time_has_not_settled(case, camera, has_time):
    """Regression: it was called tracking by the limits of the fine level, with the score of the coarse one."""
    model, T = RegistrationModel.of_case(case), case.prior.T_camera_ct()
    levels = []
    for side, size in ((128, 12), (256, 15)):
        level = PatchLevel(camera, side, size, 40)
        level.choose(model.bones, T, np.ones((side, side), bool))
        levels.append((level, model.tissue.render(T, level.camera), 8))
    fine = levels[1][0]
    estimate = refine(model.tissue, levels, T, case.target_ct, go_on=lambda level, _: has_time or level is not fine)
    assert estimate.settled == has_time
