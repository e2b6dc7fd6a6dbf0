"""Offset, gain and dead pixels of a flat panel: measured from frames, and taken out of others."""

import cv2
import numpy as np
import pytest
import yaml

from fluoronav.cli import main
from fluoronav.geometry import Camera
from fluoronav.imaging.xray.detector import DetectorCalibration, DetectorCorrection, DetectorError
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage

SIDE = 128


class Panel:
    """A panel with uneven pixels, a slow shading, and dead and hot ones."""

    def __init__(self, rng):
        self.rng = rng
        y, x = np.mgrid[:SIDE, :SIDE] / SIDE
        self.offset = 1200 + 60 * x + rng.normal(0, 10, (SIDE, SIDE))
        self.gain = (1 + 0.15 * (y - 0.5)) * rng.normal(1, 0.03, (SIDE, SIDE))
        self.dead = np.zeros((SIDE, SIDE), bool)
        self.dead.reshape(-1)[rng.choice(SIDE * SIDE, 25, replace=False)] = True
        self.dead[40, 50:53] = True  # a few side by side
        self.hot = np.zeros_like(self.dead)
        self.hot[90, 20] = True

    def frame(self, photons):
        counts = self.offset + 100 * self.gain * self.rng.poisson(photons, (SIDE, SIDE))
        counts[self.dead], counts[self.hot] = 0, 60000
        return np.clip(np.rint(counts + self.rng.normal(0, 20, counts.shape)), 0, 65535).astype(np.uint16)

    def calibrated(self):
        dark, flat = (np.stack([self.frame(p) for _ in range(24)]) for p in (0, 200))
        return DetectorCalibration.of_frames(dark, flat)


@pytest.fixture
def panel(rng):
    return Panel(rng)


def test_the_maps_are_those_of_the_panel(panel):
    found = panel.calibrated()
    assert (found.dead == (panel.dead | panel.hot)).mean() > 0.9995 and found.dead[panel.dead | panel.hot].all()
    good = ~found.dead
    np.testing.assert_allclose(found.offset[good], panel.offset[good], atol=25)
    ratio = (found.gain * panel.gain)[good]
    assert ratio.std() / ratio.mean() < 0.02


def test_a_flat_field_is_flat_and_dead_pixels_look_like_their_neighbours(panel):
    correct = DetectorCorrection(panel.calibrated())
    frames = np.mean([correct(panel.frame(50), 16).astype(float) for _ in range(40)], axis=0) - correct.dark
    assert frames.std() / frames.mean() < 0.04  # what is left of the noise of 40 frames
    assert abs(frames[panel.dead].mean() / frames.mean() - 1) < 0.03
    assert frames[: SIDE // 4].mean() == pytest.approx(frames[-SIDE // 4 :].mean(), rel=0.01)


def test_frames_that_do_not_calibrate_are_refused_with_the_reason(panel):
    dark, flat = (np.stack([panel.frame(p) for _ in range(12)]) for p in (0, 200))
    for wrong, said in (
        ((dark, dark), "was the beam on"),
        ((dark[:, :64], flat), "of one detector"),
        ((dark, np.full_like(flat, 65535)), "saturated"),
    ):
        with pytest.raises(DetectorError, match=said):
            DetectorCalibration.of_frames(*wrong)
    shaded = flat.copy()
    shaded[:, :, :40] = dark[:, :, :40]
    with pytest.raises(DetectorError, match="or a blade"):
        DetectorCalibration.of_frames(dark, shaded)


def test_the_command_makes_a_file_that_the_camera_file_names(panel, tmp_path, capsys):
    for kind, photons in (("dark", 0), ("flat", 200)):
        for k in range(12):
            cv2.imwrite(str(tmp_path / f"{kind}{k}.png"), panel.frame(photons))
    out = tmp_path / "panel.npz"
    files = {k: [str(p) for p in sorted(tmp_path.glob(f"{k}*.png"))] for k in ("dark", "flat")}
    assert main(["calibrate", "detector", "--dark", *files["dark"], "--flat", *files["flat"], "--out", str(out)]) == 0
    assert "dead pixels" in capsys.readouterr().out
    K = [[500.0, 0, 64], [0, 500.0, 64], [0, 0, 1]]
    camera_file = tmp_path / "camera.yaml"
    camera_file.write_text(yaml.safe_dump({"rows": SIDE, "cols": SIDE, "K": K, "detector": "panel.npz"}))
    stage = AttenuationStage()
    stage.prepare(None, Camera.load(camera_file))
    frame = FrameRecord.of_counts(panel.frame(50))
    raw = frame.counts.astype(float).std()
    stage.process(frame, Budget(30))
    # What is left is the photons' own noise, 100 counts each.
    assert frame.corrected.astype(float).std() == pytest.approx(100 * np.sqrt(50), rel=0.05) and raw > 800
    camera_file.write_text(yaml.safe_dump({"rows": 64, "cols": SIDE, "K": K, "detector": "panel.npz"}))
    with pytest.raises(DetectorError, match="is for 128 x 128 pixels, the camera has 128 x 64"):
        AttenuationStage().prepare(None, Camera.load(camera_file))
    out.write_bytes(b"not a calibration")
    with pytest.raises(DetectorError, match="is no detector calibration"):
        DetectorCalibration.load(out)
