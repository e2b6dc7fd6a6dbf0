"""Exposures along the scenario's motion, and the stages that register them."""

import pytest
from tests.stream.registration.rig import POSES, Rig, arriving, exposed

from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy


@pytest.fixture(scope="module")
def beams(case, camera):
    """What arrives at the detector a few times along the scenario's motion, with the true poses."""
    anatomy = Anatomy(case, camera.scaled(0.5))
    poses = Scenario().poses(case)
    return [(arriving(anatomy, camera, poses[k]), poses[k]) for k in POSES]


@pytest.fixture(scope="module")
def exposures(beams, camera):
    return exposed(beams, camera)


@pytest.fixture
def rig(case, camera):
    rig = Rig(case, camera)
    yield rig
    rig.registration.close()
