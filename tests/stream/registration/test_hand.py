"""The hand of the picture in the stream: what could as well be its mirror image is not believed."""

import cv2
import numpy as np
from tests.imaging.registration.test_handedness import symmetric
from tests.stream.registration.test_stage import Rig

from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy


def test_a_pose_that_the_mirror_image_fits_as_well_is_not_believed_and_that_is_said(case, camera):
    patient, truth = symmetric(case), Scenario().poses(case)[30]
    anatomy = Anatomy(patient, camera.scaled(0.5))
    beam = anatomy.transmission(*anatomy.paths(truth))
    beam = cv2.resize(beam, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC)
    counts = ImageChain(FlatPanel(), camera.rows, camera.cols, 3).counts(beam, 1)
    rig = Rig(patient, camera)
    frames = [rig.show(np.ascontiguousarray(counts)) for _ in range(2)]
    assert all(frame.registration is None for frame in frames)
    assert "mirror image fit the CT alike" in frames[-1].status_reason
    rig.registration.close()
