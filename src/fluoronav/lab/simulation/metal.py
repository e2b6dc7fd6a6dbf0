"""Instruments in the beam: bodies of revolution about a straight or bent axis, and their length along each ray.

An instrument is a radius (and an inner radius if hollow) as a function of the distance from its tip: a wire with its
trocar point, a drill with flutes, a screw with thread, head and driver, a needle with its bevel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.kernels import njit

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

_PROFILE_STEP_MM = 0.2  # chosen: about a pixel at the patient
_STEP_MM = np.float32(_PROFILE_STEP_MM)  # for the kernel
_NEAREST_MM = 50  # from the source; an instrument that comes nearer is left out


@dataclass(frozen=True)
class Metal:
    """The shape of one instrument.

    Attributes
    ----------
    kind : str
        One of :data:`fluoronav.stream.detection.network_input.KINDS`.
    outer_mm, inner_mm : ndarray of float32, shape (n,)
        Radii from the tip on, one every 0.2 mm.
    bend_mm : float
        Sagitta of the axis at its middle; 0 is straight.
    """

    kind: str
    outer_mm: Float32
    inner_mm: Float32
    bend_mm: float = 0.0

    @property
    def length_mm(self) -> float:
        return (len(self.outer_mm) - 1) * _PROFILE_STEP_MM


def k_wire(diameter_mm: float, length_mm: float, point_mm: float = 4.0, bend_mm: float = 0.0) -> Metal:
    """A Kirschner or guide wire with a conical point."""
    s = profile_mm(length_mm)
    return _solid("k-wire", diameter_mm / 2 * np.clip(s / point_mm, 0.08, 1), bend_mm)


def drill(diameter_mm: float, length_mm: float, flutes_mm: float, pitch_mm: float, shank_mm: float) -> Metal:
    """A twist drill: its radius is modulated by the flutes, up to the shank."""
    s = profile_mm(length_mm)
    r = diameter_mm / 2 * np.clip(s / (0.6 * diameter_mm), 0.1, 1)
    fluted = r * (0.62 + 0.38 * np.abs(np.cos(np.pi * s / pitch_mm)))
    return _solid("drill", np.where(s < flutes_mm, fluted, shank_mm / 2))


def screw(
    diameter_mm: float, thread_mm: float, pitch_mm: float, head_mm: float, driver_mm: float, length_mm: float
) -> Metal:
    """A pedicle screw on its driver: threaded core, polyaxial head, shaft."""
    s = profile_mm(length_mm)
    saw = 1 - np.abs(2 * ((s / pitch_mm) % 1) - 1)
    core = diameter_mm / 2 * np.clip(0.45 + s / (0.25 * thread_mm), 0, 1)
    threaded = core * (0.72 + 0.28 * saw) * np.clip(s / 2.0, 0.2, 1)
    head = np.where(s < thread_mm + 14, head_mm / 2, driver_mm / 2)
    return _solid("screw", np.where(s < thread_mm, threaded, head))


def needle(diameter_mm: float, wall_mm: float, length_mm: float) -> Metal:
    """A cannula: hollow, bevelled at the tip; its plastic hub is left out."""
    s = profile_mm(length_mm)
    bevel = np.clip(s / (2.0 * diameter_mm), 0.1, 1)
    outer = diameter_mm / 2 * bevel
    inner = np.maximum(diameter_mm / 2 - wall_mm, 0) * bevel
    return Metal("needle", outer.astype(np.float32), inner.astype(np.float32))


def axis_points(metal: Metal, tip: Float, direction: Float, side: Float, pieces: int = 24) -> Float:
    """Points of the instrument's axis from the tip on, shape (n, 3), mm.

    Parameters
    ----------
    metal : Metal
    tip : ndarray, shape (3,)
    direction : ndarray, shape (3,)
        Unit vector from the tail to the tip.
    side : ndarray, shape (3,)
        Unit vector across it; a bent instrument bulges towards it.
    """
    n = 1 if metal.bend_mm == 0 else pieces
    t = np.linspace(0, 1, n + 1)[:, None]
    axis = tip - t * metal.length_mm * direction + 4 * t * (1 - t) * metal.bend_mm * side
    return axis.astype(np.float64)


def steel_mm(metal: Metal, points_camera: Float, camera: Camera, out: Float32) -> NDArray[np.int64]:
    """Adds the length of steel along each ray to an image.

    Parameters
    ----------
    metal : Metal
    points_camera : ndarray, shape (n, 3)
        The axis from the tip on (:func:`axis_points`), camera frame, mm.
    camera : Camera
    out : ndarray of float32, shape (rows, cols)
        Added to: mm.

    Returns
    -------
    ndarray of int
        Flat indices of the pixels that may have changed.
    """
    uv = camera.project(points_camera)
    at = _near(uv, metal, points_camera, camera)
    if len(at):
        rows, cols = np.divmod(at, camera.cols)
        rays = camera.rays(np.stack([cols, rows], axis=-1).astype(np.float64))
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        steel = np.zeros(len(at), np.float32)
        _cross(rays.astype(np.float32), points_camera.astype(np.float32), metal.outer_mm, metal.inner_mm, steel)
        out.reshape(-1)[at] += steel
    return at


def profile_mm(length_mm: float) -> Float:
    """Distances from the tip at which the radii are stated, mm."""
    return np.arange(round(length_mm / _PROFILE_STEP_MM) + 1, dtype=np.float64) * _PROFILE_STEP_MM


def _solid(kind: str, radius: Float, bend_mm: float = 0.0) -> Metal:
    return Metal(kind, radius.astype(np.float32), np.zeros(len(radius), np.float32), bend_mm)


def _near(uv: Float, metal: Metal, points_camera: Float, camera: Camera) -> NDArray[np.int64]:
    """Flat indices of the pixels around the projected axis."""
    if not np.isfinite(uv).all() or (points_camera[:, 2] < _NEAREST_MM).any():
        return np.zeros(0, np.int64)
    thick = int(np.ceil(2 * metal.outer_mm.max() * camera.focal_px / points_camera[:, 2].min())) + 4
    line = np.zeros((camera.rows, camera.cols), np.uint8)
    cv2.polylines(line, [np.clip(np.rint(uv), -30000, 30000).astype(np.int32)], False, 1, thick)
    return np.flatnonzero(line)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _cross(rays, points, outer, inner, steel):
    """Chord of each ray (unit, from the origin) in the body about each piece of the axis; the longest counts."""
    start = np.float32(0)
    for k in range(points.shape[0] - 1):
        p = points[k]
        step = points[k + 1] - p
        length = np.sqrt((step * step).sum())
        a = step / length
        for i in range(rays.shape[0]):
            d = rays[i]
            cosine = d[0] * a[0] + d[1] * a[1] + d[2] * a[2]
            sine2 = max(np.float32(1) - cosine * cosine, np.float32(1e-6))
            pd = p[0] * d[0] + p[1] * d[1] + p[2] * d[2]
            pa = p[0] * a[0] + p[1] * a[1] + p[2] * a[2]
            # Position along the piece at which the ray comes nearest.
            s = (pd * cosine - pa) / sine2
            if s < np.float32(0) or s > length:
                continue
            t = (pd - pa * cosine) / sine2
            x, y, z = p[0] + s * a[0] - t * d[0], p[1] + s * a[1] - t * d[1], p[2] + s * a[2] - t * d[2]
            off2 = x * x + y * y + z * z
            at = (start + s) / _STEP_MM
            j = min(int(at), outer.shape[0] - 2)
            f = at - j
            r = outer[j] + f * (outer[j + 1] - outer[j])
            if off2 >= r * r:
                continue
            chord = np.sqrt(r * r - off2)
            r = inner[j] + f * (inner[j + 1] - inner[j])
            if off2 < r * r:
                chord -= np.sqrt(r * r - off2)
            # A ray nearly along the axis leaves through the ends.
            chord = min(2 * chord / np.sqrt(sine2), length / max(abs(cosine), np.float32(1e-3)))
            steel[i] = max(steel[i], chord)
        start += length
