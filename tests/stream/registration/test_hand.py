"""Pictures that are refused, and the reason that is given: one like its own mirror image, and one that fits nothing."""

import cv2
import numpy as np
from tests.imaging.registration.test_handedness import symmetric
from tests.stream.registration.rig import Rig, arriving

from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.stream.reasons import NOTHING_FITS


def test_a_pose_that_the_mirror_image_fits_as_well_is_not_believed_and_that_is_said(case, camera):
    patient, truth = symmetric(case), Scenario().poses(case)[30]
    anatomy = Anatomy(patient, camera.scaled(0.5))
    counts = ImageChain(FlatPanel(), camera.rows, camera.cols, 3).counts(arriving(anatomy, camera, truth), 1)
    rig = Rig(patient, camera)
    frames = [rig.show(np.ascontiguousarray(counts)) for _ in range(2)]
    assert all(frame.registration is None for frame in frames)
    assert "mirror image fit the CT alike" in frames[-1].status_reason
    rig.registration.close()


def test_a_picture_that_nothing_fits_is_said_to_be_one_after_the_whole_orbit_has_been_searched(case, camera, rng):
    """Regression: another patient's CT was searched for without a word."""
    rig = Rig(case, camera)
    # Something dense that is no spine.
    beam = np.full((camera.rows, camera.cols), 6000.0)
    cv2.ellipse(beam, (450, 560), (260, 170), 20, 0, 360, 1500.0, -1)
    counts = rng.poisson(cv2.GaussianBlur(beam, (0, 0), 40)).astype(np.uint16)
    frames = [rig.show(counts) for _ in range(3)]
    rig.registration.close()
    assert [f.status for f in frames] == ["searching"] * 3
    # Of the second frame one search is over, around the prior.
    assert [f.status_reason for f in frames] == ["", "", NOTHING_FITS]
