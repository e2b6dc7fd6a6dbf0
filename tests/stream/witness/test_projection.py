"""The projection of kernels is the camera's."""

from dataclasses import replace

import numpy as np
import pytest

from fluoronav.stream.witness.projection import intrinsics, projected

DISTORTIONS = [None, (0.3, -0.1, 0.01, -0.02), tuple(0.01 * k for k in range(1, 13))]


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_kernels_project_as_the_camera_does(camera, distortion, rng):
    K = camera.K.copy()
    K[0, 1] = 7.0
    camera = replace(camera, K=K, distortion=None if distortion is None else np.array(distortion))
    points = rng.uniform([-90, -90, 500], [90, 90, 900], (50, 3))
    found = [projected(*p, intrinsics(camera)) for p in points]
    np.testing.assert_allclose(found, camera.project(points), atol=1e-9)
