"""Tracking without rendering in every frame: rendered patches as a linear model about a keyframe pose.

The line integrals of a patch change almost linearly while the pose moves by tenths of a millimetre and of a degree:

    I(x) = I_key + J_key x

with x the camera's twist from the keyframe. So an iteration needs no ray, only the sums of :mod:`.similarity`. Where a
pose is too far from its keyframe, patches are rendered there, and that is the next keyframe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from fluoronav.geometry import rotation_distance_deg
from fluoronav.imaging.registration.gauss_newton import (
    CastsRays,
    Equations,
    equations_of_model,
    twist_between,
)
from fluoronav.imaging.registration.patches import PatchLevel

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}


@dataclass(frozen=True, slots=True)
class KeyframeLimits:
    """How far from a keyframe its linear model is used.

    Chosen on the demo's frames (`bench keyframes`): beyond twice these limits the error across the ray doubles.

    Attributes
    ----------
    turn_deg : float
    in_plane_mm, depth_mm : float
        Shift of the centre in the camera's frame. Patches hardly change with depth.
    """

    turn_deg: float = 0.6
    in_plane_mm: float = 0.6
    depth_mm: float = 3.0


@njit(**_OPTIONS)
def predict(rendered, twist, out):
    """Line integrals after a small motion of the camera.

    Parameters
    ----------
    rendered : float32 (7, n)
        Line integrals and derivatives at the keyframe.
    twist : float32 (6,)
        From the keyframe, rad and mm.
    out : float32 (n,)
        Written.
    """
    a, b, c, d, e, f = twist[0], twist[1], twist[2], twist[3], twist[4], twist[5]
    for i in range(out.shape[0]):
        out[i] = (
            rendered[0, i]
            + a * rendered[1, i]
            + b * rendered[2, i]
            + c * rendered[3, i]
            + d * rendered[4, i]
            + e * rendered[5, i]
            + f * rendered[6, i]
        )


class Keyframe:
    """Rendered patches of one level at one pose.

    Attributes
    ----------
    T_camera_ct : ndarray, shape (4, 4)
    rendered : ndarray of float32, shape (7, n)
        Line integrals and derivatives.
    """

    def __init__(self, level: PatchLevel) -> None:
        self.T_camera_ct = np.eye(4)
        self.rendered = np.zeros_like(level.model)
        self.is_valid = False

    def render(self, projector: CastsRays, level: PatchLevel, T_camera_ct: Float, centre_ct: Float) -> None:
        """Renders the patches; may run beside the frame path."""
        self.is_valid = False
        projector.line_integrals_and_derivatives(T_camera_ct, level.directions, centre_ct, self.rendered)
        self.T_camera_ct = np.array(T_camera_ct)
        self.is_valid = True


def nearness(T_key: Float, T_now: Float, centre_ct: Float, limits: KeyframeLimits) -> float:
    """How far a pose is from a keyframe: 0 at it, 1 at the limit."""
    centre = np.append(centre_ct, 1.0)
    shift = np.abs((T_now @ centre - T_key @ centre)[:3])
    turn = rotation_distance_deg(T_key, T_now)
    return float(max(turn / limits.turn_deg, shift[:2].max() / limits.in_plane_mm, shift[2] / limits.depth_mm))


class KeyframeModel:
    """Forms the equations of :mod:`.gauss_newton` from keyframes; see :class:`.gauss_newton.FormsEquations`.

    Parameters
    ----------
    projector : CastsRays
    limits : KeyframeLimits, optional
    """

    def __init__(self, projector: CastsRays, limits: KeyframeLimits | None = None) -> None:
        self._projector, self.limits = projector, limits or KeyframeLimits()
        self._keys: dict[int, Keyframe] = {}
        self._twist = np.zeros(6, np.float32)
        self.renders = 0

    def equations(self, level: PatchLevel, T_camera_ct: Float, centre_ct: Float) -> Equations | None:
        """The equations of one view; None where no patch has a say."""
        key = self._keys.get(id(level))
        if key is None:
            key = self._keys[id(level)] = Keyframe(level)
        if not key.is_valid or nearness(key.T_camera_ct, T_camera_ct, centre_ct, self.limits) > 1:
            key.render(self._projector, level, T_camera_ct, centre_ct)
            self.renders += 1
        self._twist[:] = twist_between(key.T_camera_ct, T_camera_ct, centre_ct)
        predict(key.rendered, self._twist, level.model[0])
        level.model[1:] = key.rendered[1:]
        return equations_of_model(level)
