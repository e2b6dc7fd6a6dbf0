"""Exposures along the scenario's motion, and the stages that register them."""

import cv2
import pytest
from tests.stream.registration.rig import POSES, Rig, exposed

from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy


@pytest.fixture(scope="module")
def beams(case, camera):
    """What arrives at the detector a few times along the scenario's motion, with the true poses."""
    anatomy = Anatomy(case, camera.scaled(0.5))
    poses = Scenario().poses(case)
    arriving = []
    for k in POSES:
        beam = anatomy.transmission(*anatomy.paths(poses[k]))
        arriving.append((cv2.resize(beam, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC), poses[k]))
    return arriving


@pytest.fixture(scope="module")
def exposures(beams, camera):
    return exposed(beams, camera)


@pytest.fixture
def rig(case, camera):
    rig = Rig(case, camera)
    yield rig
    rig.registration.close()
