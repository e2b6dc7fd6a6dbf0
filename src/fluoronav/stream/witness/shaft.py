"""Whether a shadow lies under the projected shaft of a tool: profiles across it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Tool
from fluoronav.geometry import Camera
from fluoronav.kernels import njit
from fluoronav.stream.witness.evidence import Verdict
from fluoronav.stream.witness.projection import intrinsics, moved, projected
from fluoronav.stream.witness.tip import TipWitness

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ShaftLimits:
    """When profiles across a shaft show its shadow.

    Attributes
    ----------
    from_tip_mm : float
        Left out at the tip, whose point is thinner. Chosen: a trocar point of a 2 mm wire is 3 mm long.
    stations : int
        Profiles along the shaft; chosen: 1.2 mm apart along a wire of 150 mm.
    half : int
        Samples to each side of the axis.
    step_mm : float
        Between two samples at the tool's depth, where the tool is thin; chosen: a pixel of a 300 mm panel in 512.
    steps_per_diameter : float
        Samples across the shadow at the most; chosen, so that the window grows with the tool.
    flank_of_diameter, least_flank_mm : float
        Width of what the shadow is compared with on either side; chosen.
    near_mm : float
        A shadow this near to the axis is the tool's. Chosen: half of what is asked to be found (3 mm), and three
        sigmas of tracker and registration together.
    least_depth : float
        Attenuation of a shadow over both flanks; as `ProfileLimits.min_depth` of the detection.
    least_sigmas : float
        The same, in standard errors over the segments; chosen for one false frame in 10,000 (`bench witness`).
    segments, least_segments : int
        Parts of the shaft whose profiles are averaged, and how many must be in view; chosen.
    least_visible_mm : float
        Length of the shaft in view, at its depth; chosen: a shorter one may be a rib's edge.
    shares : float
        A shadow beside the axis counts where that under it has less than this share of its depth; chosen.
    dense : float
        Flanks with a higher attenuation are metal, or show no photons; chosen on the demo's frames: bone has less.
    """

    from_tip_mm: float = 4.0
    stations: int = 128
    half: int = 30
    step_mm: float = 0.35
    steps_per_diameter: float = 6.0
    flank_of_diameter: float = 0.75
    least_flank_mm: float = 1.0
    near_mm: float = 1.5
    least_depth: float = 0.12
    least_sigmas: float = 4.0
    segments: int = 8
    least_segments: int = 5
    least_visible_mm: float = 15.0
    shares: float = 0.5
    dense: float = 6.0


LIMITS = ShaftLimits()
# Kernels take scalars.
_FROM_TIP_MM, _HALF, _SEGMENTS, _DENSE = LIMITS.from_tip_mm, LIMITS.half, LIMITS.segments, LIMITS.dense
_WIDTH = 2 * _HALF + 1

OUTSIDE = Verdict("cannot_say", "outside_field")
OVER_METAL = Verdict("cannot_say", "over_metal")
END_ON = Verdict("cannot_say", "seen_end_on")
NO_CONTRAST = Verdict("cannot_say", "no_contrast")
AGREES = Verdict("agrees", "agrees", -1.0)


@njit(cache=True, nogil=True)
def sample_profiles(picture, field, T_camera_ct, tip_ct, axis_ct, length_mm, step_mm, camera, profiles):
    """Attenuation across a shaft, at the stations that are in view.

    Parameters
    ----------
    picture : ndarray of float32, shape (rows, cols)
    field : ndarray of bool, of the same shape
    T_camera_ct : ndarray, shape (4, 4)
    tip_ct, axis_ct : ndarray, shape (3,)
        LPS mm; the axis points from the tail to the tip.
    length_mm, step_mm : float
        Of the shaft; between samples, at its depth.
    camera : ndarray, shape (17,)
        Of the picture; from :func:`.projection.intrinsics`.
    profiles : ndarray of float32, shape (stations, 2 half + 1)
        Filled from the top, the station nearest to the tip first.

    Returns
    -------
    count, dense : int
        Stations that were filled, and that were left out because metal, or nothing, lies beside the shaft.
    spacing_mm : float
        Between two stations, across the ray.
    """
    rows, cols = picture.shape
    stations = profiles.shape[0]
    tip, axis = moved(T_camera_ct, tip_ct, 1.0), moved(T_camera_ct, axis_ct, 0.0)
    apart = (length_mm - _FROM_TIP_MM) / stations
    count, dense, across_mm = 0, 0, 0.0
    for k in range(stations):
        s = _FROM_TIP_MM + apart * k
        x, y, z = tip[0] - s * axis[0], tip[1] - s * axis[1], tip[2] - s * axis[2]
        if z < 1.0 or z - apart * axis[2] < 1.0:
            continue
        u, v = projected(x, y, z, camera)
        u1, v1 = projected(x - apart * axis[0], y - apart * axis[1], z - apart * axis[2], camera)
        du, dv = u1 - u, v1 - v
        long = np.sqrt(du * du + dv * dv)
        px = camera[0] / z  # pixels of a millimetre
        if long < 1e-6:
            continue
        du, dv = -dv / long * step_mm * px, du / long * step_mm * px
        inside = True
        for end in (-_HALF, _HALF):
            c, r = u + end * du, v + end * dv
            if not (0 <= c < cols - 1 and 0 <= r < rows - 1) or not field[int(r + 0.5), int(c + 0.5)]:
                inside = False
        if not inside or not field[int(v + 0.5), int(u + 0.5)]:
            continue
        total = 0.0
        for j in range(_WIDTH):
            c, r = u + (j - _HALF) * du, v + (j - _HALF) * dv
            ci, ri = int(c), int(r)
            fc, fr = c - ci, r - ri
            value = (1 - fr) * ((1 - fc) * picture[ri, ci] + fc * picture[ri, ci + 1]) + fr * (
                (1 - fc) * picture[ri + 1, ci] + fc * picture[ri + 1, ci + 1]
            )
            profiles[count, j] = value
            total += value
        if total / _WIDTH > _DENSE:
            dense += 1
        else:
            count += 1
            across_mm += long / px
    return count, dense, across_mm / max(count, 1)


@njit(cache=True, nogil=True)
def _median(values):
    """The median; sorts in place, since there are few."""
    n = values.shape[0]
    for i in range(1, n):
        value, k = values[i], i
        while k > 0 and values[k - 1] > value:
            values[k] = values[k - 1]
            k -= 1
        values[k] = value
    return (values[(n - 1) // 2] + values[n // 2]) / 2


@njit(cache=True, nogil=True)
def combine_profiles(profiles, count, core, flank, parts, values, depth, error):
    """How deep a shadow of the tool's width is at each offset, over all parts of the shaft.

    The depth is over the darker of the two flanks, so that an edge has none. It is the median over parts of the
    shaft, so that what crosses it counts little; its standard error is from their median deviation.

    Parameters
    ----------
    profiles : ndarray of float32, shape (stations, 2 half + 1)
    count : int
        Rows that hold something.
    core, flank : int
        Half the shadow's width, and the width of a flank, in samples.
    parts : ndarray, shape (segments, 2 half + 1)
    values : ndarray, shape (segments,)
        Both are overwritten.
    depth, error : ndarray, shape (2 half + 1,)
        The result; 0 where the window is too short.
    """
    width, segments = profiles.shape[1], parts.shape[0]
    parts[:] = 0
    for k in range(count):
        part = k * segments // count
        for j in range(width):
            parts[part, j] += profiles[k, j] * segments / count
    reach = core + 1 + flank
    for j in range(width):
        depth[j] = error[j] = 0
        if j < reach or j >= width - reach:
            continue
        for p in range(segments):
            inner, left, right = 0.0, 0.0, 0.0
            for i in range(j - core, j + core + 1):
                inner += parts[p, i]
            for i in range(flank):
                left += parts[p, j - core - 2 - i]
                right += parts[p, j + core + 2 + i]
            values[p] = inner / (2 * core + 1) - max(left, right) / flank
        depth[j] = _median(values)
        for p in range(segments):
            values[p] = abs(values[p] - depth[j])
        # 1.4826 from the median deviation to sigma, 1.2533 from a mean's error to a median's.
        error[j] = 1.4826 * 1.2533 * _median(values) / np.sqrt(segments)


class ShaftWitness:
    """Looks for the shadow of one tool.

    Parameters
    ----------
    tool : Tool
    camera : Camera
        Of the picture.
    """

    def __init__(self, tool: Tool, camera: Camera) -> None:
        self._length_mm = tool.length_mm
        self._step_mm = max(LIMITS.step_mm, tool.diameter_mm / LIMITS.steps_per_diameter)
        self._core = max(round((tool.diameter_mm / self._step_mm - 1) / 2), 0)
        flank_mm = max(LIMITS.flank_of_diameter * tool.diameter_mm, LIMITS.least_flank_mm)
        self._flank = max(round(flank_mm / self._step_mm), 1)
        self._near = round(LIMITS.near_mm / self._step_mm)
        self._camera = intrinsics(camera)
        self._tip = TipWitness(tool, self._camera, self._step_mm, self._core, self._flank)
        self._profiles = np.zeros((LIMITS.stations, _WIDTH), np.float32)
        self._parts = np.zeros((LIMITS.segments, _WIDTH))
        self._values = np.zeros(LIMITS.segments)
        self._T_camera_ct, self._tip_ct, self._axis_ct = np.eye(4), np.zeros(3), np.array([0.0, 0, 1])
        self.depth, self.error = np.zeros(_WIDTH), np.zeros(_WIDTH)

    def look(
        self, picture: Float32, field: NDArray[np.bool_], T_camera_ct: Float, tip_ct: Float, axis_ct: Float
    ) -> Verdict:
        """What the picture says of the tool's place.

        Parameters
        ----------
        picture : ndarray of float32, shape (rows, cols)
            Attenuation.
        field : ndarray of bool, of the same shape
        T_camera_ct : ndarray, shape (4, 4)
        tip_ct, axis_ct : ndarray, shape (3,)
        """
        # Copies: the kernels are compiled for arrays of one kind.
        self._T_camera_ct[:], self._tip_ct[:], self._axis_ct[:] = T_camera_ct, tip_ct, axis_ct
        count, dense, spacing_mm = sample_profiles(
            picture, field, self._T_camera_ct, self._tip_ct, self._axis_ct, self._length_mm, self._step_mm,
            self._camera, self._profiles,
        )  # fmt: skip
        if count < LIMITS.segments or count * spacing_mm < LIMITS.least_visible_mm:
            if dense > count:
                return OVER_METAL
            return END_ON if count > LIMITS.stations // 2 else OUTSIDE
        self._combine(count)
        verdict, under = self._judged()
        if verdict is not AGREES:
            return verdict
        of_tip = self._tip.look(
            picture, field, self._T_camera_ct, self._tip_ct, self._axis_ct, under - _HALF, float(self.depth[under])
        )
        return verdict if of_tip is None else of_tip

    def warm(self, picture: Float32, field: NDArray[np.bool_]) -> None:
        """Compiles the kernels for such pictures."""
        self.look(picture, field, self._T_camera_ct, self._tip_ct, self._axis_ct)
        self._combine(LIMITS.segments)
        self._tip.look(picture, field, self._T_camera_ct, self._tip_ct, self._axis_ct, 0, 1.0)

    def _combine(self, count: int) -> None:
        combine_profiles(
            self._profiles, count, self._core, self._flank, self._parts, self._values, self.depth, self.error
        )

    def _judged(self) -> tuple[Verdict, int]:
        """Of the shaft alone; and the sample under which its shadow is deepest near the axis."""
        shown = self.depth - LIMITS.least_sigmas * self.error
        low, high = _HALF - self._near, _HALF + self._near + 1
        under = low + int(self.depth[low:high].argmax())
        at_axis = self.depth[under]
        if at_axis >= LIMITS.least_depth and shown[under] > 0 and at_axis >= LIMITS.shares * self.depth.max():
            return AGREES, under
        beside = int(self.depth.argmax())
        if (
            self.depth[beside] >= LIMITS.least_depth
            and shown[beside] > 0
            and at_axis < LIMITS.shares * self.depth[beside]
        ):
            return Verdict("disagrees", "shadow_beside", 1.0, abs(beside - _HALF) * self._step_mm), under
        return NO_CONTRAST, under
