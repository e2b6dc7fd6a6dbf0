"""Pedicle screws and rods in the beam that the CT does not have: the picture after a step of the surgery."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case
from fluoronav.geometry import Camera, transform_points
from fluoronav.lab.simulation.metal import Metal, axis_points, profile_mm, steel_mm
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.lab.simulation.xray import transmission
from fluoronav.lab.spinal_hardware import Bar, construct

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


STEEL, TITANIUM = 1.0, 0.3  # attenuation relative to steel; of titanium at 60 keV (NIST XCOM)


def screws_and_rods(case: Case, levels: Sequence[str]) -> tuple[Bar, ...]:
    """Two screws in each vertebra, and a rod along each side.

    Parameters
    ----------
    case : Case
        Its first two trajectories are those of its plan's vertebra; the others' are moved from there to each vertebra.
    levels : sequence of str
        Names of structures, the vertebrae.
    """
    planned = next(s.name for s in case.structures if s.name.endswith(case.plan[0].name.split("_")[0]))
    sides = []
    for t in case.plan[:2]:
        shifts = [_middle_ct(case, level) - _middle_ct(case, planned) for level in levels]
        sides.append([(np.array(t.entry_ct) + shift, np.array(t.target_ct) + shift) for shift in shifts])
    return construct(sides)


def beam_behind(
    anatomy: Anatomy, camera: Camera, T_camera_ct: Float, bars: Iterable[Bar], metal: float = STEEL
) -> Float32:
    """Fraction of the open beam behind patient and metal, shape (rows, cols).

    Parameters
    ----------
    anatomy : Anatomy
        Of `camera` at half its resolution.
    camera : Camera
    T_camera_ct : ndarray, shape (4, 4)
    bars : iterable of Bar
    metal : float
        Attenuation relative to steel.
    """
    water, bone = (
        np.maximum(cv2.resize(path, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC), 0)
        for path in anatomy.paths(T_camera_ct)
    )
    steel, one = np.zeros((2, camera.rows, camera.cols), np.float32)
    for bar in bars:
        tip, tail = transform_points(T_camera_ct, np.array([bar.to_ct, bar.from_ct]))
        length = float(np.linalg.norm(tip - tail))
        radius = np.full(len(profile_mm(length)), bar.radius_mm, np.float32)
        body = Metal("screw", radius, np.zeros_like(radius))
        one[:] = 0
        steel_mm(body, axis_points(body, tip, (tip - tail) / length, np.zeros(3)), camera, one)
        steel += np.float32(metal) * one
    out = np.empty(water.size, np.float32)
    transmission(water.ravel(), bone.ravel(), steel.ravel(), out)
    return out.reshape(water.shape)


def _middle_ct(case: Case, structure: str) -> Float:
    assert case.labels is not None
    label = next(s.label for s in case.structures if s.name == structure)
    low, high = case.labels.extent_ct((label,))
    return (low + high) / 2
