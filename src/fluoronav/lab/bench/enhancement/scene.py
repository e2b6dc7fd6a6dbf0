"""The scene of the enhancement's bench: a wire that moves in front of real anatomy at rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.lab.bench.subjects import load_subject, view_poses
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.metal import axis_points, k_wire, steel_mm
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.lab.simulation.xray import transmission
from fluoronav.paths import shipped

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

FULL_PHOTONS = 80.0  # mean detected photons per pixel at the full dose; chosen: a usual one
SEED = 61


@dataclass(frozen=True)
class EnhancementSettings:
    """The scene, and how it is measured; all chosen."""

    settled: int = 8  # frames that let a temporal filter settle
    speed_px: float = 4.0  # of the wire, per frame
    wire_mm: float = 2.0  # diameter
    wire_depth_mm: float = 650.0  # from the source
    near_px: int = 25  # width of the neighbourhood of the wire
    beside_px: int = 7  # width of the wire with its penumbra, which the neighbourhood leaves out
    steepest: float = 97  # percentile of the slope from which a pixel is a bone edge
    dark_counts: float = 1300.0  # of the panel whose correction is timed
    sheet_side_px: int = 480  # of an image on the sheet


SETTINGS = EnhancementSettings()


@dataclass
class MovingWire:
    """Frames without noise, the wire's place in each, and bone."""

    clean: list[NDArray[np.uint16]]
    on_wire: list[NDArray[np.bool_]]
    axis: list[tuple[Float, Float]]  # tip of the wire and its unit direction, pixels
    bone: Float32
    field_mask: NDArray[np.bool_]


def moving_wire(frames: int):
    """The wire in front of the embedded case, and a function from photons to (settings, chain, beams)."""
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    case = load_subject("embedded", 1, Path()).case
    half = Anatomy(case, camera.scaled(0.5))
    T = view_poses(case, 1, SEED)[0]
    water, bone = (
        cv2.resize(p, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC).clip(0) for p in half.paths(T)
    )
    wire = k_wire(SETTINGS.wire_mm, 120.0)
    beams, on_wire, axes = [], [], []
    for k in range(frames):
        tip = camera.rays(np.array([330.0 + 1.0 * k, 380.0 + SETTINGS.speed_px * k])) * SETTINGS.wire_depth_mm
        points = axis_points(wire, tip, np.array([-0.97, 0.24, 0.0]), np.array([0.0, 0.0, 1.0]))
        steel = np.zeros((camera.rows, camera.cols), np.float32)
        steel_mm(wire, points, camera, steel)
        beam = np.empty(steel.size, np.float32)
        transmission(water.ravel(), bone.ravel(), steel.ravel(), beam)
        beams.append(beam.reshape(steel.shape))
        on_wire.append(steel > 0.5)
        ends = camera.project(points)
        axes.append((ends[0], (ends[-1] - ends[0]) / np.linalg.norm(ends[-1] - ends[0])))

    def chain_of(photons: float, noiseless: bool = False):
        electronic = 0.0 if noiseless else FlatPanel().electronic_photons
        settings = FlatPanel(photons=photons, electronic_photons=electronic, fixed_pattern=0.0)
        return settings, ImageChain(settings, camera.rows, camera.cols, 3), beams

    _, perfect, _ = chain_of(1e7, True)
    clean = [perfect.counts(beam, 1) for beam in beams]
    edges = np.asarray(cv2.GaussianBlur(bone.astype(np.float32), (0, 0), 2), np.float32)
    return MovingWire(clean, on_wire, axes, edges, perfect.field_mask), chain_of
