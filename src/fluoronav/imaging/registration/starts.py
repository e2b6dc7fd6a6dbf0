"""Poses from which a still image is registered: around a start, and where a long bone fits nearly as well."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.projector import AttenuationGrid

Float = NDArray[np.float64]


@dataclass(frozen=True)
class StartSettings:
    """Where refinements start; all chosen on the wrist's X-rays (`bench registration`)."""

    # Around a start pose: one of these along and about each axis, and at random (1 sigma of the length of all six).
    turn_deg: float = 8.0
    shift_mm: float = 8.0
    random: int = 30
    seed: int = 1
    # Around a hypothesis: along and about the shaft of a long bone.
    about_shaft_deg: tuple[float, ...] = (0.0, 25.0, -25.0, 45.0, -45.0)
    along_shaft_mm: tuple[float, ...] = (0.0, 9.0, -9.0, 17.0, -17.0)
    # And across it in eight directions, onto the bone beside.
    across_shaft_mm: tuple[float, ...] = (10.0, 18.0)


SETTINGS = StartSettings()


def twists_around_start() -> list[Float]:
    """Twists about the centre from a start pose: none, along and about each axis, and at random.

    Returns
    -------
    list of ndarray, shape (6,)
        (w, v), rad and mm, CT axes.
    """
    scale = np.array([np.deg2rad(SETTINGS.turn_deg)] * 3 + [SETTINGS.shift_mm] * 3)
    axes = [sign * scale[i] * np.eye(6)[i] for i in range(6) for sign in (1, -1)]
    random = np.random.default_rng(SETTINGS.seed).standard_normal((SETTINGS.random, 6)) * scale / np.sqrt(3)
    return [np.zeros(6), *axes, *random]


def twists_to_similar_poses(bone: AttenuationGrid) -> list[Float]:
    """Twists to poses at which a long bone fits nearly as well: along and about its shaft, and onto the bone beside.

    Returns
    -------
    list of ndarray, shape (6,)
        (w, v), rad and mm, CT axes.
    """
    axes = _principal_axes(bone)
    shaft = axes[:, 2]
    along = [
        np.concatenate([np.deg2rad(turn) * shaft, shift * shaft])
        for turn in SETTINGS.about_shaft_deg
        for shift in SETTINGS.along_shaft_mm
    ]
    across = [
        np.concatenate([np.zeros(3), shift * (np.cos(angle) * axes[:, 0] + np.sin(angle) * axes[:, 1])])
        for angle in np.arange(8) * np.pi / 4
        for shift in SETTINGS.across_shaft_mm
    ]
    return along + across


def reflection(normal: Float, point: Float) -> Float:
    """Reflection in the plane through a point, shape (4, 4); not a rigid motion."""
    n = normal / np.linalg.norm(normal)
    T = np.eye(4)
    T[:3, :3] -= 2 * np.outer(n, n)
    T[:3, 3] = point - T[:3, :3] @ point
    return T


def _principal_axes(bone: AttenuationGrid) -> Float:
    """Principal axes of the bone, CT axes, columns of a (3, 3); the long axis is the last."""
    at = np.argwhere(bone.voxels > 0)[:, ::-1].astype(np.float64)
    return np.linalg.eigh(np.cov(at.T))[1]
