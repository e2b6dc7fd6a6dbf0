"""The sheet of images for people."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.xray.contrast import DisplayContrast
from fluoronav.imaging.xray.denoiser import SIDE, LearnedDenoiser
from fluoronav.imaging.xray.field_of_view import find_field_of_view
from fluoronav.imaging.xray.file import read_xray
from fluoronav.imaging.xray.noise import NoiseModel
from fluoronav.imaging.xray.spatial_filter import LocalWiener
from fluoronav.imaging.xray.temporal_filter import TemporalFilter
from fluoronav.lab.bench.enhancement.scene import FULL_PHOTONS, SEED, SETTINGS

Float32 = NDArray[np.float32]

_REAL = ("knee/frame0138_cam1.tif", "wrist/frame0099_cam1.tif")


def write_sheet(sheet: list[NDArray[np.uint8]], data: Path, path: Path) -> None:
    """Writes the sheet: unfiltered, filtered, with the network, without noise; at two doses, and for real frames."""
    side = SETTINGS.sheet_side_px
    tiles = [cv2.resize(s[200:850, 200:850], (side, side), interpolation=cv2.INTER_AREA) for s in sheet]
    for name in _REAL:
        if (data / name).exists():
            tiles += [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in _real(data / name)]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet_rows = [np.hstack(tiles[k : k + 4]) for k in range(0, len(tiles), 4)]
    cv2.imwrite(str(path), np.vstack(sheet_rows), [cv2.IMWRITE_JPEG_QUALITY, 85])


def _real(path: Path) -> list[NDArray[np.uint8]]:
    """A real X-ray at a quarter of the dose: unfiltered, by each filter after it has settled, and without noise."""
    beam = np.exp(-read_xray(path, with_camera=True).attenuation)
    if max(beam.shape) > SIDE:
        scale = SIDE / max(beam.shape)
        beam = cv2.resize(beam, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rows, cols = beam.shape
    field_mask = find_field_of_view(
        cv2.resize((60000 * beam / beam.max()).astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA)
    ).field_mask
    photons = FULL_PHOTONS * 0.25 * beam / beam.mean()
    gain, dark, rng = 200.0, 1000.0, np.random.default_rng(SEED)
    model = NoiseModel(gain, dark, 0.0)
    temporal, display = TemporalFilter(rows, cols), DisplayContrast(rows, cols)
    counts = out = np.zeros((rows, cols), np.float32)
    for _ in range(SETTINGS.settled):
        counts = np.clip(gain * rng.poisson(photons) + dark, 0, 65535).astype(np.uint16)
        out = temporal(counts, dark, field_mask)
    ways: list[Float32] = [model.stabilised(counts).astype(np.float32), LocalWiener(rows, cols)(out, temporal.worth)]
    learned = LearnedDenoiser(rows, cols, InferenceSettings())
    ways += [learned(out, temporal.worth), model.stabilised(gain * photons + dark).astype(np.float32)]
    return [display(way, field_mask).copy() for way in ways]
