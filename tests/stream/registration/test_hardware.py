"""Screws and rods in the picture that the CT does not have."""

import numpy as np
import pytest
from tests.stream.registration.rig import Rig, errors

from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.lab.simulation.spinal_hardware import STEEL, TITANIUM, beam_behind, screws_and_rods

LEVELS = tuple(f"vertebrae_T{n}" for n in range(6, 11))


@pytest.mark.parametrize("metal", [STEEL, TITANIUM])
def test_a_spine_with_ten_screws_and_two_rods_is_found_and_followed_as_the_bare_one(case, camera, metal):
    anatomy, poses = Anatomy(case, camera.scaled(0.5)), Scenario().poses(case)
    bars, chain = screws_and_rods(case, LEVELS), ImageChain(FlatPanel(), camera.rows, camera.cols, 3)
    rig, across = Rig(case, camera), []
    for k in (0, 6, 12):
        counts = chain.counts(beam_behind(anatomy, camera, poses[k], bars, metal), k)
        for _ in range(3):
            frame = rig.show(counts)
        assert frame.status == "tracking"
        across.append(errors(case, frame.registration.T_camera_ct, poses[k])[0])
    rig.registration.close()
    assert np.median(across) < 0.3 and max(across) < 0.8
