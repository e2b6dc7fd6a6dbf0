"""The learned denoiser: less noise than the filter in its place, and no say in what is bright or dark as a whole."""

import numpy as np
import pytest

from fluoronav.geometry import Camera
from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.xray.denoiser import LearnedDenoiser
from fluoronav.imaging.xray.spatial_filter import LocalWiener
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.view.stage import ViewStage

ROWS, COLS = 512, 640


@pytest.fixture(scope="module")
def denoise():
    return LearnedDenoiser(ROWS, COLS, InferenceSettings())


def stabilised(worth, rng):
    """A picture that training has none of, its noise 1 / sqrt(worth): blobs, a step, and a thin dark line."""
    y, x = np.mgrid[:ROWS, :COLS].astype(np.float32)
    clean = 14 + 4 * np.sin(x / 60) * np.cos(y / 45) + 3 * (x > 400) - 2.5 * (np.abs(y - 0.4 * x - 90) < 2.5)
    return clean, (clean + rng.normal(0, 1 / np.sqrt(worth), clean.shape)).astype(np.float32)


@pytest.mark.parametrize("worth", [1.0, 5.0])
def test_less_noise_is_left_than_by_the_filter_and_the_line_stays(denoise, rng, worth):
    clean, noisy = stabilised(worth, rng)
    map_of_worth = np.full(noisy.shape, worth, np.float32)
    inside = (slice(16, -16), slice(16, -16))
    by_network = np.array(denoise(noisy, map_of_worth)) - clean
    by_filter = np.array(LocalWiener(ROWS, COLS)(noisy, map_of_worth)) - clean
    assert by_network[inside].std() < by_filter[inside].std()
    y, x = np.mgrid[:ROWS, :COLS]
    on_line = np.abs(y - 0.4 * x - 90) < 1.5
    assert by_network[inside][on_line[inside]].mean() < 0.5  # of a contrast of 2.5


def test_brightness_as_a_whole_goes_through(denoise, rng):
    _, noisy = stabilised(2.0, rng)
    worth = np.full(noisy.shape, 2.0, np.float32)
    plain = np.array(denoise(noisy, worth))
    brighter = np.array(denoise(noisy + 40, worth))
    # Where the frame ends the network's padding shows.
    np.testing.assert_allclose(brighter[64:-64, 64:-64], plain[64:-64, 64:-64] + 40, atol=0.02)


def test_a_frame_that_is_too_large_is_refused_and_auto_goes_on_with_the_filter():
    with pytest.raises(ValueError, match="frames up to 1024 x 1024; these have 2048 x 1536"):
        LearnedDenoiser(1536, 2048, InferenceSettings())
    stage = ViewStage(InferenceSettings(engine="auto", denoiser="auto"))
    camera = Camera(1536, 2048, np.array([[8000.0, 0, 1024], [0, 8000.0, 768], [0, 0, 1]]))
    stage.prepare(None, camera)
    assert stage.engine == "cpu"
    stage.close()


@pytest.mark.parametrize(("settings", "learned"), [({}, False), ({"denoiser": "network"}, True)])
def test_the_stage_says_what_it_denoises_with(rng, camera, settings, learned):
    stage = ViewStage(InferenceSettings.model_validate(settings))
    stage.prepare(None, camera)
    pictures = []
    stage.on_picture = lambda p: pictures.append(p.pixels.copy())
    frame = FrameRecord(
        1, 0, 0, rng.integers(2000, 40000, (camera.rows, camera.cols)).astype(np.uint16), 16, False, None
    )
    stage.process(frame, Budget(30))
    stage.idle(frame, Budget(1e6))
    stage.wait()
    stage.close()
    assert len(pictures) == 1 and ("denoiser" in stage.models) == learned
    assert ("CPUExecutionProvider" in stage.engine) == learned
