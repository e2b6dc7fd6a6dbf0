"""The bench's own arithmetic: how wide an edge is."""

import cv2
import numpy as np
import pytest

from fluoronav.lab.bench.enhancement.measures import edge_width_px


@pytest.mark.parametrize("sigma_px", [0.9, 1.15, 1.3])
@pytest.mark.parametrize("angle", [0.4, 1.1])
def test_an_edge_is_as_wide_as_its_blur_to_a_twentieth_of_a_pixel(sigma_px, angle):
    """Regression: it was told in steps of a quarter of a pixel, and 16 % wider passed for 8."""
    direction = np.array([np.cos(angle), np.sin(angle)])
    y, x = np.mgrid[:512, :512] * 1.0
    beside = np.abs((x - 60) * -direction[1] + (y - 120) * direction[0])
    # A step blurred by a Gaussian, on a grid that it does not follow.
    image = cv2.GaussianBlur((100 - 60 * np.clip(7 - beside + 0.5, 0, 1)).astype(np.float32), (0, 0), sigma_px)
    from_pixels = np.sqrt(sigma_px**2 + 1 / 12)  # a pixel is a mean over its area
    assert edge_width_px(image, np.array([60.0, 120.0]), direction) == pytest.approx(2.563 * from_pixels, abs=0.05)
