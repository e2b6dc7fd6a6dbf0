"""Tracking without rendering in every frame: rendered patches as a linear model about a keyframe pose.

The line integrals of a patch change almost linearly while the pose moves by tenths of a millimetre and of a degree:

    I(x) = I_key + J_key x

with x the camera's twist from the keyframe. So an iteration needs no ray, only the sums of :mod:`.similarity`. Where a
pose is too far from its keyframe, patches are rendered there, and that is the next keyframe.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import rotation_distance_deg
from fluoronav.imaging.registration.gauss_newton import (
    CastsRays,
    Equations,
    damped_step,
    equations_of_model,
    twist_between,
)
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.similarity import normal_equations
from fluoronav.kernels import njit

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

_OPTIONS = {"fastmath": True, "error_model": "numpy", "nogil": True, "boundscheck": False, "cache": True}


@dataclass(frozen=True, slots=True)
class KeyframeLimits:
    """How far from a keyframe its linear model is used.

    The first three were fitted on the demo's frames: within twice these limits the error across the ray doubles.

    Attributes
    ----------
    turn_deg : float
    in_plane_mm, depth_mm : float
        Shift of the centre in the camera's frame. Patches hardly change with depth.
    error_mm : float
        Allowed error of the pose by the linear model; chosen: half the floor of the error across the ray.
    least_reach : float
        The reach is scaled down to this fraction of the limits at the least. Chosen: a render every few frames.
    least_measured : float
        The model's error is not measured nearer to the keyframe, where it is below the rounding of the voxels. Chosen.
    learned : float
        Weight of the newest error in the reach. Chosen.
    """

    turn_deg: float = 0.6
    in_plane_mm: float = 0.6
    depth_mm: float = 3.0
    error_mm: float = 0.05
    least_reach: float = 0.3
    least_measured: float = 0.2
    learned: float = 0.3


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


@njit(**_OPTIONS)
def normalise_rendered(integrals, size, count, out):
    """Makes rendered patches zero-mean and unit-norm, as :func:`.similarity.normalise_patches` does with a frame's.

    Parameters
    ----------
    integrals : float32 (>= count * size * size,)
    size : int
        Pixels along a patch's side.
    count : int
        Patches.
    out : float32 (>= count * size * size,)
        Written.
    """
    pixels = size * size
    for p in range(count):
        at = p * pixels
        total = 0.0
        for i in range(pixels):
            total += integrals[at + i]
        mean = np.float32(total / pixels)
        power = 0.0
        for i in range(pixels):
            out[at + i] = integrals[at + i] - mean
            power += out[at + i] * out[at + i]
        norm = np.sqrt(power)
        scale = np.float32(1 / norm) if norm > 1e-6 else np.float32(0)
        for i in range(pixels):
            out[at + i] *= scale


class Keyframe:
    """Rendered patches of one level at one pose.

    Attributes
    ----------
    T_camera_ct : ndarray, shape (4, 4)
    rendered : ndarray of float32, shape (7, n)
        Line integrals and derivatives.
    is_valid : bool
        They are of the patches that the level has now.
    serial : int
        Counts the renders.
    """

    def __init__(self, level: PatchLevel) -> None:
        self.T_camera_ct = np.eye(4)
        self.rendered = np.zeros_like(level.model)
        self.is_valid = False
        self.serial = 0

    def render(self, projector: CastsRays, level: PatchLevel, T_camera_ct: Float, centre_ct: Float) -> None:
        """Renders the patches."""
        self.is_valid = False
        self.serial += 1
        projector.line_integrals_and_derivatives(T_camera_ct, level.directions, centre_ct, self.rendered)
        np.copyto(self.T_camera_ct, T_camera_ct)
        self.is_valid = True


class _LevelKeys:
    """A level's keyframes, and scratch arrays for comparing them.

    Attributes
    ----------
    projector : CastsRays
        What is rendered.
    now, next, spare : Keyframe
        In use; rendered beside the frame path; rendered in a frame when neither is near.
    copied : tuple of (Keyframe, int)
        The keyframe, and its serial, whose derivatives are in the level's `model`.
    """

    def __init__(self, level: PatchLevel, projector: CastsRays) -> None:
        self.level, self.projector = level, projector
        self.now, self.next, self.spare = Keyframe(level), Keyframe(level), Keyframe(level)
        self.copied: tuple[Keyframe, int] = (self.now, -1)
        self.exact_hat = np.zeros_like(level.frame_hat)
        self.predicted = np.zeros_like(level.model)
        self.weights = np.ones(level.capacity)
        self.scratch = np.zeros_like(level.scratch)
        normalise_rendered(self.predicted[0], level.size, 0, self.exact_hat)  # compiles


class KeyframeModel:
    """Forms the equations of :mod:`.gauss_newton` from keyframes; see :class:`.gauss_newton.FormsEquations`.

    Two threads may use it. The frame path calls :meth:`equations`, :meth:`distance` and :meth:`take_next`. A worker
    calls :meth:`render_next`; the frame path does not call :meth:`take_next` until that has returned. Levels that no
    frame uses yet may be placed, and :meth:`render_first` called, on any thread.

    Parameters
    ----------
    projector : CastsRays
    centre_ct : ndarray, shape (3,)
        The twist turns about this point, LPS mm.
    levels : sequence of PatchLevel
    limits : KeyframeLimits, optional

    Attributes
    ----------
    rendered_in_frames, rendered_beside : int
        Keyframes that a frame had to wait for, and others.
    render_ms : float
        What the last render in a frame took.
    error_mm : float
        Error of the pose in the image plane, at the centre, that the linear model would have caused where a keyframe
        was left last.
    reach : float
        A keyframe is used within this fraction of the limits.
    """

    def __init__(
        self, projector: CastsRays, centre_ct: Float, levels: Sequence[PatchLevel], limits: KeyframeLimits | None = None
    ) -> None:
        self.limits = limits or KeyframeLimits()
        self._centre_ct = np.asarray(centre_ct, np.float64)
        self._keys = {id(level): _LevelKeys(level, projector) for level in levels}
        self._twist = np.zeros(6, np.float32)
        self.reach = 1.0
        self.rendered_in_frames = self.rendered_beside = 0
        self.render_ms = self.error_mm = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Keyframes rendered, `in_frames` and `beside`."""
        return {"in_frames": self.rendered_in_frames, "beside": self.rendered_beside}

    def equations(self, level: PatchLevel, T_camera_ct: Float, centre_ct: Float) -> Equations | None:
        """The equations of one view; None where no patch has a weight above 0.

        A pose out of the keyframe's reach is rendered at once, and is the next keyframe.
        """
        keys = self._keys[id(level)]
        if self.distance(level, T_camera_ct) > 1:
            start = time.perf_counter()
            # Not into the keyframe in use: a worker may be comparing it with the next.
            keys.spare.render(keys.projector, level, T_camera_ct, centre_ct)
            keys.now, keys.spare = keys.spare, keys.now
            self.render_ms = (time.perf_counter() - start) * 1000
            self.rendered_in_frames += 1
        key = keys.now
        self._twist[:] = twist_between(key.T_camera_ct, T_camera_ct, centre_ct)
        predict(key.rendered, self._twist, level.model[0])
        if keys.copied != (key, key.serial):
            np.copyto(level.model[1:], key.rendered[1:])
            keys.copied = (key, key.serial)
        return equations_of_model(level)

    def distance(self, level: PatchLevel, T_camera_ct: Float) -> float:
        """How far a pose is from the level's keyframe: 0 at it, 1 at the edge of its reach, infinite without one."""
        key = self._keys[id(level)].now
        return self.separation(key.T_camera_ct, T_camera_ct) if key.is_valid else float("inf")

    def separation(self, T_key: Float, T_now: Float) -> float:
        """Distance of two poses: 1 where one is at the edge of the reach of a keyframe at the other."""
        return self._distance(T_key, T_now) / self.reach

    def forget(self, levels: Sequence[PatchLevel], projector: CastsRays | None = None) -> None:
        """The levels' patches are about to be placed anew, and rendered with this model where one is given."""
        for level in levels:
            keys = self._keys[id(level)]
            keys.now.is_valid = keys.next.is_valid = False
            keys.projector = projector or keys.projector

    def render_first(self, levels: Sequence[PatchLevel], T_camera_ct: Float) -> None:
        """Renders keyframes of levels whose patches have just been placed, and that no frame uses yet."""
        for level in levels:
            if level.count:
                keys = self._keys[id(level)]
                keys.now.render(keys.projector, level, T_camera_ct, self._centre_ct)
                self.rendered_beside += 1

    def render_next(self, level: PatchLevel, T_camera_ct: Float) -> None:
        """Renders the keyframe that comes next, and measures the error of the one in use at that pose."""
        keys = self._keys[id(level)]
        if level.count:
            keys.next.render(keys.projector, level, T_camera_ct, self._centre_ct)
            self.rendered_beside += 1
            self._measure_error(keys)

    def take_next(self, level: PatchLevel, T_camera_ct: Float) -> None:
        """Goes on with the keyframe that has been rendered beside, where it is nearer to the pose."""
        keys = self._keys[id(level)]
        if not keys.next.is_valid:
            return
        away = self._distance(keys.next.T_camera_ct, T_camera_ct)
        if not keys.now.is_valid or away < self._distance(keys.now.T_camera_ct, T_camera_ct):
            keys.now, keys.next = keys.next, keys.now
        keys.next.is_valid = False

    def _distance(self, T_key: Float, T_now: Float) -> float:
        c, limits = self._centre_ct, self.limits
        shift = np.abs(T_now[:3, :3] @ c + T_now[:3, 3] - T_key[:3, :3] @ c - T_key[:3, 3])
        turn = rotation_distance_deg(T_key, T_now)
        in_plane = max(float(shift[0]), float(shift[1]))
        return max(turn / limits.turn_deg, in_plane / limits.in_plane_mm, float(shift[2]) / limits.depth_mm)

    def _measure_error(self, keys: _LevelKeys) -> None:
        """How far the linear model would pull the pose from the next keyframe's, and the reach that follows.

        The exact patches take the frame's place: what Gauss-Newton makes of the difference is the model's own error. It
        grows with the square of the distance, so the reach is scaled by the root of what is allowed.
        """
        level, old, new = keys.level, keys.now, keys.next
        serial = old.serial
        if not old.is_valid or not new.is_valid:
            return
        away = self._distance(old.T_camera_ct, new.T_camera_ct)
        if away < self.limits.least_measured:
            return
        twist = twist_between(old.T_camera_ct, new.T_camera_ct, self._centre_ct).astype(np.float32)
        predict(old.rendered, twist, keys.predicted[0])
        np.copyto(keys.predicted[1:], old.rendered[1:])
        if old.serial != serial:  # rendered anew in a frame meanwhile
            return
        n = level.count
        normalise_rendered(new.rendered[0], level.size, n, keys.exact_hat)
        A, g = np.zeros((6, 6)), np.zeros(6)
        normal_equations(keys.exact_hat, keys.predicted, level.size, keys.weights[:n], keys.scratch, A, g)
        step = damped_step(A, g)
        shift = new.T_camera_ct[:3, :3] @ step[3:]
        self.error_mm = float(np.hypot(shift[0], shift[1]))
        allowed = away * np.sqrt(self.limits.error_mm / max(self.error_mm, 1e-6))
        wanted = float(np.clip(allowed, self.limits.least_reach, 1.0))
        self.reach += self.limits.learned * (wanted - self.reach)
